"""Drafts: vectors of training runs not saved yet, on disk, so that a closed tab or a killed server loses nothing."""

import time
from datetime import datetime
from pathlib import Path

from steering.errors import SteeringError
from steering.vectors.text import slug_of
from steering.vectors.vector import SUFFIX, SteeringVector

MOST_DRAFTS = 10
"""As many as a list on the page shows at one look; a draft takes a few kB."""


class Drafts:
    """A folder of drafts, the newest ten. Each has a token that names its file; tokens sort by time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, name: str) -> str:
        """Make the token of a new run; nothing is written yet."""
        return f"{time.time_ns()}-{slug_of(name)}"

    def keep(self, token: str, vector: SteeringVector) -> None:
        """Write the run's vector in place of its earlier one; the oldest drafts are deleted beyond `MOST_DRAFTS`."""
        vector.name = vector.name or token.partition("-")[2].replace("-", " ")
        vector.save(self._path(token))
        for path in self._paths()[MOST_DRAFTS:]:
            path.unlink(missing_ok=True)

    def open(self, token: str) -> SteeringVector:
        """Read a draft; raise SteeringError if it is no longer there."""
        path = self._path(token)
        if not token or not path.is_file():
            raise SteeringError("This run is no longer there; it may have been saved already.")
        return SteeringVector.load(path)

    def discard(self, token: str) -> None:
        """Delete a draft; nothing happens if it is no longer there."""
        self._path(token).unlink(missing_ok=True)

    def labels(self) -> list[tuple[str, str]]:
        """List (token, label such as `formal, 03 May 14:20`), newest first."""
        return [(path.stem, _label(path)) for path in self._paths()]

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob(f"*{SUFFIX}"), reverse=True)

    def _path(self, token: str) -> Path:
        return self.folder / f"{Path(token).name}{SUFFIX}"  # .name: a token never leaves the folder


def _label(path: Path) -> str:
    number, _, slug = path.stem.partition("-")
    when = datetime.fromtimestamp(int(number) / 1e9) if number.isdigit() else None
    return f"{slug.replace('-', ' ')}, {when:%d %b %H:%M}" if when else slug
