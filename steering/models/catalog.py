"""What a model is and whether it fits into memory, said before it is loaded; and the models loaded of late."""

import json
import math
import operator
import os
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import psutil
from filelock import FileLock

from steering.errors import SteeringError
from steering.models import bundled
from steering.models.adapters import base_of, check_peft, is_adapter
from steering.paths import data_dir

BUNDLED_WEIGHTS = 134_515_008
"""Parameters of the bundled model; its GGUF file has 98,362,432 bytes."""
BYTES_A_WEIGHT = 4
"""Models are loaded in float32 on the CPU."""
MOST_RECENT = 10
LONGEST_HEADER = 100_000_000
"""Bytes of a safetensors header: the format's own limit."""
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model before it is loaded.

    Attributes:
        kind, name, source: what it is, its short name, and what `load_model` takes.
        file_bytes, memory_bytes: size on disk, and of what loading needs in memory; None where that is not known.
        free_bytes: memory that is free; `fits` whether the model does, as far as is known.
        problem: why it cannot be loaded, in a sentence; `note`: something to know.
    """

    kind: Literal["bundled", "hub", "folder", "gguf", "adapter"]
    name: str
    source: str
    file_bytes: int | None
    memory_bytes: int | None
    free_bytes: int
    fits: bool
    problem: str = ""
    note: str = ""


def describe_model(source: str | Path | None) -> ModelInfo:
    """Look at a model without loading it; asks the network only about a Hub id.

    Example:
        >>> describe_model("Qwen2.5-0.5B-Instruct-Q4_K_M.gguf").kind
        'gguf'
    """
    text = str(source or bundled.NAME)
    path = Path(text)
    try:
        if text == bundled.NAME:
            return _info("bundled", text, text, 98_362_432, BUNDLED_WEIGHTS)
        if is_adapter(text):
            return _adapter(path)
        if text.lower().endswith(".gguf"):
            return _gguf(path)
        if os.path.isdir(path):
            return _folder(path)
        if path.is_absolute() or text.startswith((".", "~")) or text.count("/") != 1 or " " in text:
            raise SteeringError(f"{text[:100]}: there is no such folder or GGUF file; check the path.")
        return _hub(text)
    except SteeringError as error:
        kind: Any = "gguf" if text.lower().endswith(".gguf") else "folder"
        return replace(_info(kind, path.name or text, text, None, None), problem=str(error))


def _info(kind: Any, name: str, source: str, file_bytes: int | None, weights: int | None, note: str = "") -> ModelInfo:
    memory, free = (None if weights is None else weights * BYTES_A_WEIGHT), free_memory()
    return ModelInfo(kind, name, source, file_bytes, memory, free, memory is None or memory <= free, note=note)


def _gguf(path: Path) -> ModelInfo:
    from gguf import GGUFReader

    from steering.models.gguf_cache import conversion_of

    if not os.path.isfile(path):
        raise SteeringError(f"{path.name[:100]}: there is no such file; check the path.")
    if folder := conversion_of(path):  # its header is read at once, a GGUF file's with a large vocabulary in seconds
        weights = sum(_weights_in(file) for file in folder.glob("*.safetensors"))
        return _info("gguf", path.stem, str(path), path.stat().st_size, weights)
    try:
        weights = sum(int(tensor.n_elements) for tensor in GGUFReader(path).tensors)
    except Exception as error:  # whatever a damaged file makes of the reader
        raise SteeringError(f"{path.name}: the file is damaged or not GGUF; download it again.") from error
    note = "It is converted when it is first loaded, which takes a while; later starts are quick."
    info = _info("gguf", path.stem, str(path), path.stat().st_size, 2 * weights, note)  # two copies while converting
    return info


def _folder(path: Path) -> ModelInfo:
    config = _json(path / "config.json")
    if not isinstance(config, dict):
        raise SteeringError(f"{path.name}: the folder has no config.json, so it holds no model; choose another.")
    if config.get("is_encoder_decoder"):
        raise SteeringError(f"{path.name}: this is an encoder-decoder model; steering needs a decoder-only one.")
    files = sorted(path.glob("*.safetensors"))
    if not files:
        pickled = " in safetensors" if any(path.glob("*.bin")) else ""
        raise SteeringError(f"{path.name}: the folder holds no weights{pickled}; save it with save_pretrained.")
    if not any((path / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")):
        raise SteeringError(f"{path.name}: the folder holds no tokenizer; save it there, too.")
    weights = sum(_weights_in(file) for file in files)
    return _info("folder", path.name, str(path), sum(file.stat().st_size for file in files), weights)


def _adapter(path: Path) -> ModelInfo:
    check_peft(path)
    base = base_of(path)
    below = describe_model(base)
    if below.problem:
        raise SteeringError(f"{path.name}: its base model cannot be used: {below.problem}")
    own = sum(file.stat().st_size for file in path.glob("adapter_model*"))
    if not own:
        raise SteeringError(f"{path.name}: the folder holds no adapter_model.safetensors; save the adapter again.")
    note = f"A LoRA adapter of {Path(base).name}, which is loaded with it."
    size = None if below.file_bytes is None else below.file_bytes + own
    return replace(below, kind="adapter", name=path.name, source=str(path), file_bytes=size, note=note)


def _hub(name: str) -> ModelInfo:
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError

    cached = isinstance(try_to_load_from_cache(name, "config.json"), str)
    try:
        found = HfApi().model_info(name, files_metadata=True, timeout=10)
    except HfHubHTTPError as error:
        if cached:
            return _info("hub", name.split("/")[1], name, None, None, "It is in the Hub's cache on this machine.")
        status = getattr(error.response, "status_code", None)
        if status in (401, 403, 404):
            raise SteeringError(
                f"{name}: the Hub has no such model, or it is private or gated; check the name, or log in with "
                "`hf auth login`."
            ) from error
        raise SteeringError(f"{name}: the Hub answers {status}; try again later.") from error
    except Exception as error:  # no network shows as one of many kinds
        if cached:
            return _info("hub", name.split("/")[1], name, None, None, "It is in the Hub's cache on this machine.")
        raise SteeringError(
            f"{name}: the Hub cannot be reached; check the network, or choose a file or folder."
        ) from error
    sizes = {each.rfilename: each.size or 0 for each in found.siblings or []}
    safetensors = {file: size for file, size in sizes.items() if file.endswith(".safetensors") and "/" not in file}
    if not safetensors:
        raise SteeringError(f"{name}: there are no weights in safetensors there; choose another model.")
    weights = getattr(found.safetensors, "total", None)
    note = "" if cached else "It is downloaded when it is first loaded."
    return _info("hub", name.split("/")[1], name, sum(safetensors.values()), weights, note)


def _weights_in(file: Path) -> int:
    """Count the weights of a safetensors file by its header."""
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(min(length, LONGEST_HEADER)))
        shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
        return sum(math.prod(map(operator.index, shape)) for shape in shapes)
    except (OSError, ValueError, struct.error, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SteeringError(f"{file.name}: the file is damaged or not safetensors; download it again.") from error


def free_memory() -> int:
    """Return the bytes that a process may still take: of the machine, or of the container around it."""
    free = int(psutil.virtual_memory().available)
    try:
        limit, used = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return free if limit == "max" else max(0, min(free, int(limit) - int(used)))
    except (OSError, ValueError):
        return free


# Models loaded of late ------------------------------------------------------------------------------------------------


def recent_models() -> list[str]:
    """List what was loaded of late, the latest first."""
    found = _json(_recent_file())
    return [text for text in found if isinstance(text, str)][:MOST_RECENT] if isinstance(found, list) else []


def remember_model(source: str | Path) -> None:
    """Put a source at the head of `recent_models`; a disk that cannot be written to only loses the memory of it."""
    file = _recent_file()
    try:
        with FileLock(file.with_suffix(".lock"), timeout=5):
            kept = [str(source), *(each for each in recent_models() if each != str(source))][:MOST_RECENT]
            partial = file.with_suffix(".partial")
            partial.write_text(json.dumps(kept), encoding="utf-8")
            os.replace(partial, file)
    except (OSError, TimeoutError):
        pass


def _recent_file() -> Path:
    return data_dir() / "recent_models.json"


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
