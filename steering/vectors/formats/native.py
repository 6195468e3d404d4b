"""This project's own vector files: `.safetensors` with directions and provenance (see `vectors/native_file.py`)."""

from pathlib import Path

from steering.errors import SteeringError
from steering.vectors.formats.registry import Format
from steering.vectors.native_file import SUFFIX
from steering.vectors.vector import SteeringVector


def read_native(path: str | Path, *, layer: int | None = None, name: str | None = None) -> SteeringVector:
    """Read a vector file of ours; a nameless one is called by its file name.

    Raises SteeringError for an unsound file, or a `layer` other than the one it steers.
    """
    path = Path(path)
    vector = SteeringVector.load(path)
    if layer is not None and vector.layers != (layer,):
        layers = ", ".join(map(str, vector.layers[:8]))
        raise SteeringError(f"{path.name}: the file itself says that it steers layer {layers}; leave the layer out.")
    vector.name = name or vector.name or path.stem
    return vector


def write_native(vector: SteeringVector, path: Path) -> None:
    """Write a vector file of ours, atomically."""
    vector.save(path)


FORMAT = Format(
    "safetensors", "Steering Playground, .safetensors", (SUFFIX,), read_native, write_native, says_operator=True
)
