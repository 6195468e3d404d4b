"""Vector files of all kinds: the one place that reads a file somebody brings, and writes one for somebody else."""

from pathlib import Path

from steering.errors import SteeringError
from steering.vectors.formats.bipo_pt import read_bipo
from steering.vectors.vector import SUFFIX, SteeringVector

EXPORT_FORMATS = ("safetensors",)

__all__ = ["EXPORT_FORMATS", "READERS", "read_any", "read_bipo", "write"]


def read_any(path: str | Path, *, layer: int | None = None, name: str | None = None) -> SteeringVector:
    """Read a vector file by its suffix.

    `layer` is for files that do not say which layer they steer; `name` goes before the one in the file.
    Raises SteeringError for another kind of file, an unsound one, or a `layer` that a file contradicts.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise SteeringError(
            f"{path.name}: cannot read this kind of file; a vector file ends in one of {', '.join(READERS)}."
        )
    return READERS[suffix](path, layer=layer, name=name)


def write(vector: SteeringVector, path: str | Path, format: str = "safetensors") -> Path:
    """Write a vector for use elsewhere; returns the path written."""
    if format not in EXPORT_FORMATS:
        raise SteeringError(f"There is no format {format!r}; choose one of: {', '.join(EXPORT_FORMATS)}.")
    return vector.save(path)


def _read_native(path: Path, *, layer: int | None = None, name: str | None = None) -> SteeringVector:
    vector = SteeringVector.load(path)
    if layer is not None and vector.layers != (layer,):
        layers = ", ".join(map(str, vector.layers[:8]))
        raise SteeringError(f"{path.name}: the file itself says that it steers layer {layers}; leave the layer out.")
    vector.name = name or vector.name or path.stem
    return vector


READERS = {SUFFIX: _read_native, ".pt": read_bipo, ".pth": read_bipo}
