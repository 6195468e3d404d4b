"""Vector files of all kinds: the one place that reads a file somebody brings, and writes one for somebody else."""

from pathlib import Path

from steering.errors import SteeringError
from steering.formats.bipo import read_bipo
from steering.vectors import SUFFIX, SteeringVector

EXPORT_FORMATS = ("safetensors",)


def read_any(path: str | Path, *, layer: int | None = None, name: str | None = None) -> SteeringVector:
    """Read a vector file by its suffix. `layer` and `name` serve formats that do not say them."""
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.is_file():
        raise SteeringError(f"{path}: there is no such file.")
    if suffix == SUFFIX:
        vector = SteeringVector.load(path)
        vector.name = (name or vector.name or path.stem).strip()
        return vector
    if suffix in (".pt", ".pth"):
        return read_bipo(path, layer=layer, name=name)
    raise SteeringError(f"{path.name}: vector files end in {SUFFIX} (ours) or .pt (BiPO); this one in {suffix or 'nothing'!r}.")


def write(vector: SteeringVector, path: str | Path, format: str = "safetensors") -> Path:
    """Write a vector for use elsewhere; returns the path written."""
    if format not in EXPORT_FORMATS:
        raise SteeringError(f"There is no format {format!r}; choose one of: {', '.join(EXPORT_FORMATS)}.")
    return vector.save(path)
