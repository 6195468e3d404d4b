"""What a model is and whether it fits into memory, said before it is loaded; and the models loaded of late."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from steering.models import bundled

BUNDLED_BYTES = 540_000_000
"""Of the bundled model in float32: 134.5 million parameters."""
UNPACKED = 8
"""Bytes in memory for a byte of a GGUF file of 4-bit blocks, as float32."""

_recent: list[str] = []


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model before it is loaded.

    Attributes:
        kind, name, source: what it is, its short name, and what `load_model` takes.
        file_bytes, memory_bytes: size on disk, and of the weights in memory; None where that is not known.
        free_bytes: memory that is free; `fits` whether the model does.
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
    """Look at a model without loading it."""
    text = str(source or bundled.NAME)
    path, free = Path(text), os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if text == bundled.NAME:
        return ModelInfo("bundled", text, text, 98_362_432, BUNDLED_BYTES, free, free >= BUNDLED_BYTES)
    if path.is_dir():
        size = _bytes_of(path.glob("*.safetensors"))
        return ModelInfo("folder", path.name, text, size, 2 * size, free, free >= 2 * size)
    if path.is_file() and path.suffix.lower() == ".gguf":
        size = _bytes_of([path])
        return ModelInfo("gguf", path.stem, text, size, UNPACKED * size, free, free >= UNPACKED * size)
    is_path = path.is_absolute() or text.startswith((".", "~")) or text.count("/") != 1
    problem = f"{text}: there is no such folder or GGUF file; check the path." if is_path else ""
    return ModelInfo("folder" if is_path else "hub", path.name, text, None, None, free, True, problem)


def recent_models() -> list[str]:
    """List what was loaded of late, the latest first."""
    return list(_recent)


def remember_model(source: str | Path) -> None:
    """Put a source at the head of `recent_models`."""
    _recent[:] = [str(source), *(each for each in _recent if each != str(source))][:10]


def _bytes_of(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths)
