"""What stands in a vector file: bytes put together and taken apart, metadata checked. `vectors.py` gives it meaning.

The file is safetensors: tensors `layer.<k>` and, under the metadata key `steering`, one JSON object. Both may come from
anybody, so every size is limited before memory is spent on it and every type is checked before anybody relies on it.
"""

import json
import math
import os
import re
import secrets
import unicodedata
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from steering.errors import SteeringError

SUFFIX = ".safetensors"
FORMAT_VERSION = 1
MAX_FILE_BYTES = 64_000_000
MAX_HEADER_BYTES = 2_000_000
MAX_METADATA_BYTES = 500_000  # escaped within the header it may be twice as long, beside the names of the tensors
MAX_DEPTH = 16  # of lists and objects within the metadata

TEXTS = {"name": 80, "behavior": 200, "description": 2000} | dict.fromkeys(
    ("model_id", "model_fingerprint", "site", "token_scope", "licence", "created"), 300
)
"""The text fields of the metadata and the most characters each may have."""

OBJECTS = ("method", "pairs", "metrics", "versions")
MEASURES = ("multiplier", "preference_accuracy", "preference_margin")


def read_limited(path: str | Path, limit: int) -> bytes:
    """The file's bytes, cut off one byte after `limit`; SteeringError if there is no such file."""
    path = Path(path)
    try:
        if not path.is_file():
            raise SteeringError(f"{path.name}: there is no such file; check the path.")
        with path.open("rb") as file:
            return file.read(min(path.stat().st_size, limit) + 1)
    except OSError as error:
        raise SteeringError(f"{path.name[:80]}: cannot be read ({error.strerror}); check the path.") from error


def write_whole(path: Path, data: bytes) -> None:
    """Write the file so that others see all of it or, if that fails, what was there before."""
    scratch = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with scratch.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise SteeringError(f"{path.name}: cannot be written ({reason}); choose another place.") from error


def pack(directions: dict[int, Tensor], metadata: dict[str, Any]) -> bytes:
    """The file's content, the same bytes for the same content. `metadata` is plain (see `plain`)."""
    text = json.dumps(metadata, sort_keys=True, allow_nan=False)
    if len(text) > MAX_METADATA_BYTES:
        raise SteeringError(f"The vector's metadata is larger than {MAX_METADATA_BYTES // 1000} kB; keep less of it.")
    return safetensors.torch.save({f"layer.{k}": d for k, d in directions.items()}, metadata={"steering": text})


def unpack(data: bytes) -> tuple[dict[int, Tensor], dict[str, Any]]:
    """Directions as they are stored and the checked metadata. Raises SteeringError saying what is unsound."""
    if len(data) > MAX_FILE_BYTES:
        raise SteeringError(f"larger than {MAX_FILE_BYTES // 10**6} MB, so it is no vector file.")
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise SteeringError("not a safetensors file, or cut short; export or download it anew.")
    if length > MAX_HEADER_BYTES:
        raise SteeringError(f"its header is larger than {MAX_HEADER_BYTES // 10**6} MB, so it is no vector file.")
    try:
        tensors = safetensors.torch.load(data)
        text = json.loads(data[8 : 8 + length]).get("__metadata__", {}).get("steering")
    except Exception as error:  # beside its own, safetensors lets KeyError, TypeError and others escape
        raise SteeringError("damaged or cut short; export or download it anew.") from error
    if text is None:
        raise SteeringError("it holds no `steering` metadata, so it is not a vector file of this project.")
    for name in tensors:
        if not re.fullmatch(r"layer\.(0|[1-9][0-9]{0,3})", name):
            raise SteeringError(f"tensor {visible(name)[:60]!r} is not `layer.<number>`, so it does not belong here.")
    directions = {int(name.removeprefix("layer.")): tensor for name, tensor in tensors.items()}
    return directions, _checked(text)


def plain(value: Any, depth: int = 0) -> Any:
    """A copy of JSON's own types, without invisible characters; what JSON has no number for becomes None."""
    if depth > MAX_DEPTH:
        raise SteeringError(f"the metadata is nested deeper than {MAX_DEPTH} levels; flatten it.")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {visible(str(key)): plain(one, depth + 1) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one, depth + 1) for one in value]
    raise SteeringError(f"the metadata holds a {type(value).__name__}, which a vector file cannot keep.")


def visible(text: str) -> str:
    """The text without control characters, lone surrogates and marks that reorder a line; emoji joiners stay."""
    return "".join(c for c in text if c in "\n\t\u200c\u200d" or unicodedata.category(c) not in ("Cc", "Cf", "Cs"))


def shown(text: str, field: str) -> str:
    """A text field as it may be shown on a page: not endless, and in one line unless it is the description."""
    text = visible(text)
    text = text if field == "description" else " ".join(text.split())
    return text[: TEXTS[field]].strip()


def _checked(text: str) -> dict[str, Any]:
    """The metadata, types checked, nothing in `metrics.held_out` missing."""
    try:
        data = json.loads(text, parse_constant=lambda word: None)  # NaN and Infinity are not JSON
    except (ValueError, RecursionError) as error:
        raise SteeringError("its `steering` metadata is not sound JSON.") from error
    if not isinstance(data, dict):
        raise SteeringError("its `steering` metadata is not a JSON object.")
    version = data.get("format_version")
    if type(version) is not int or version < 1:
        raise SteeringError("its metadata gives no `format_version`.")
    if version > FORMAT_VERSION:
        raise SteeringError(
            f"its format version {str(version)[:20]} is newer than {FORMAT_VERSION}, known here; update this program."
        )
    data = plain(data)
    _expect(data, "metadata", dict.fromkeys(TEXTS, str) | dict.fromkeys(OBJECTS, dict))
    _expect(data, "metadata", {"hidden_size": int, "default_multiplier": float})
    _expect(data.get("method", {}), "method", {"name": str})
    _expect(data.get("pairs", {}), "pairs", {"sha256": str, "source": str, "train": int, "held_out": int})
    _expect(data.get("versions", {}), "versions", dict.fromkeys(data.get("versions", {}), str))
    _expect(data.get("metrics", {}), "metrics", {"held_out": list})
    for i, row in enumerate(data.get("metrics", {}).get("held_out", [])):
        _expect({i: row}, "metrics.held_out", {i: dict})
        row.update({key: math.nan for key in MEASURES if row.get(key) is None})  # which JSON writes as null
        _expect(row, f"metrics.held_out.{i}", dict.fromkeys(MEASURES, float))
    return data


def _expect(data: dict[Any, Any], where: str, kinds: dict[Any, type]) -> None:
    """SteeringError unless each of these keys, where there is one, holds this kind of value."""
    words = {dict: "an object", list: "a list", str: "text", int: "a whole number", float: "a number"}
    for key, kind in kinds.items():
        if key in data and type(data[key]) not in ((int, float) if kind is float else (kind,)):
            raise SteeringError(f"its {where} field {str(key)[:40]!r} is not {words[kind]}.")
