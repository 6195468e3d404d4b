"""The formats of vector files that there are: ours, and those that other packages add.

Adding one takes one file: a function that reads, one that writes, or both, and `FORMAT`, a `Format` that names them.
Ours are listed in `OURS`; another package declares an entry point:

    [project.entry-points."steering.formats"]
    mine = "my_package.my_format:FORMAT"
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Protocol

from steering.errors import SteeringError
from steering.plugins import with_plugins
from steering.vectors.action import PLAIN
from steering.vectors.vector import SteeringVector

ENTRY_POINTS = "steering.formats"

OURS = ("steering.vectors.formats.native", "steering.vectors.formats.bipo_pt")
"""Modules that hold a `FORMAT`, in the order in which menus and messages list them."""

logger = logging.getLogger(__name__)


class Read(Protocol):
    """A function that reads a file of one format."""

    def __call__(self, path: Path, *, layer: int | None, name: str | None) -> SteeringVector:
        """Read a file of the format.

        Args:
            path: the file; its suffix is one of the format's.
            layer: the steered layer, for files that do not say it; a file that says another one is refused.
            name: takes the place of the name in the file.

        Raises:
            SteeringError: the file is unsound, or the layer is unknown or contradicted.
        """
        ...


Write = Callable[[SteeringVector, Path], None]
"""Write a vector to a path that ends in one of the format's suffixes; SteeringError for one the format cannot hold."""


@dataclass(frozen=True)
class Format:
    """One format of vector files.

    Attributes:
        name: on the command line (`steering export --format NAME`); lower-case.
        label: for menus and file pickers, such as "BiPO, .pt".
        suffixes: lower-case, with the dot, the one for new files first.
        read: reads a file; None for a format that can only be written.
        write: writes a vector; None for a format that can only be read.
        says_layer: whether its files say which layer they steer; where not, people are asked for it.
        says_operator: whether its files say how a vector acts; where not, only vectors that are added are written.
    """

    name: str
    label: str
    suffixes: tuple[str, ...]
    read: Read | None = None
    write: Write | None = None
    says_layer: bool = True
    says_operator: bool = False


@cache
def formats() -> dict[str, Format]:
    """List all formats by name, ours first; one of another package that cannot be used is logged and left out."""
    return with_plugins((import_module(module).FORMAT for module in OURS), ENTRY_POINTS, Format)


def format_named(name: str) -> Format:
    """Return the format of this name; raise SteeringError, listing those that there are, for another."""
    known = formats()
    if name not in known:
        raise SteeringError(f"There is no format {name!r}; choose one of: {', '.join(known)}.")
    return known[name]


def suffixes(*, readable: bool = False, writable: bool = False) -> tuple[str, ...]:
    """List the suffixes of all formats, each once; with `readable` or `writable`, of those that can be read or written.

    Example:
        >>> suffixes(readable=True)
        ('.safetensors', '.pt', '.pth')
    """
    chosen = (f for f in formats().values() if (f.read or not readable) and (f.write or not writable))
    return tuple(dict.fromkeys(suffix for each in chosen for suffix in each.suffixes))


def read_any(path: str | Path, *, layer: int | None = None, name: str | None = None) -> SteeringVector:
    """Read a vector file of any format, chosen by its suffix; the first in `formats()` of those that share it reads.

    Args:
        path: the file.
        layer: for files that do not say which layer they steer.
        name: takes the place of the one in the file.

    Raises:
        SteeringError: another kind of file, an unsound one, or a `layer` that the file contradicts.

    Example:
        >>> vector = read_any("vec_ep20_layer15.pt", name="power-seeking")
    """
    path = Path(path)
    suffix = path.suffix.lower()
    read = next((each.read for each in formats().values() if each.read and suffix in each.suffixes), None)
    if read is None:
        known = ", ".join(suffixes(readable=True))
        raise SteeringError(f"{path.name}: cannot read this kind of file; a vector file ends in one of {known}.")
    try:
        return read(path, layer=layer, name=name)
    except OSError as error:
        raise SteeringError(f"{path.name[:80]}: cannot be read ({error.strerror or error}); check the path.") from error


def write(vector: SteeringVector, path: str | Path, format: str = "safetensors") -> Path:
    """Write a vector in the named format for use elsewhere; return the path written.

    Raises SteeringError for an unknown format, one that can only be read, another suffix than the format's, or a path
    that cannot be written.
    """
    path = Path(path)
    chosen = format_named(format)
    if chosen.write is None:
        names = ", ".join(each.name for each in formats().values() if each.write)
        raise SteeringError(f"Format {format!r} can be read, not written; choose one of: {names}.")
    if path.suffix.lower() not in chosen.suffixes:
        raise SteeringError(
            f"{path.name}: in format {format!r} a vector file ends in {' or '.join(chosen.suffixes)}; name it "
            f"{path.stem}{chosen.suffixes[0]}."
        )
    if vector.operator != PLAIN and not chosen.says_operator:
        raise SteeringError(
            f"Format {format!r} cannot say that the vector acts by {vector.operator!r}, others would add it; "
            "write it as safetensors."
        )
    try:
        chosen.write(vector, path)
    except OSError as error:
        reason = error.strerror or error
        raise SteeringError(f"{path.name[:80]}: cannot be written ({reason}); choose another place.") from error
    return path
