"""Vectors of training runs that nobody saved: kept so that a closed tab or a killed server loses nothing."""

import time
from datetime import datetime
from pathlib import Path

from steering.errors import SteeringError
from steering.vectors.vector import SUFFIX, SteeringVector, slug_of

MOST_DRAFTS = 10


class Drafts:
    """A folder of drafts, the newest few."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, name: str) -> str:
        """A token for a new run; nothing is written yet."""
        return f"{time.time_ns()}-{slug_of(name)}"

    def keep(self, token: str, vector: SteeringVector) -> None:
        """Write the run's vector in place of its earlier one; the oldest drafts make room."""
        vector.name = vector.name or token.partition("-")[2].replace("-", " ")
        vector.save(self._path(token))
        for path in self._paths()[MOST_DRAFTS:]:
            path.unlink(missing_ok=True)

    def open(self, token: str) -> SteeringVector:
        path = self._path(token)
        if not token or not path.is_file():
            raise SteeringError("This run is no longer there; it may have been saved already.")
        return SteeringVector.load(path)

    def discard(self, token: str) -> None:
        self._path(token).unlink(missing_ok=True)

    def labels(self) -> list[tuple[str, str]]:
        """(token, words for people), newest first."""
        return [(path.stem, _label(path)) for path in self._paths()]

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob(f"*{SUFFIX}"), reverse=True)

    def _path(self, token: str) -> Path:
        return self.folder / f"{Path(token).name}{SUFFIX}"  # .name: a token never leaves the folder


def _label(path: Path) -> str:
    number, _, slug = path.stem.partition("-")
    when = datetime.fromtimestamp(int(number) / 1e9) if number.isdigit() else None
    return f"{slug.replace('-', ' ')}, {when:%d %b %H:%M}" if when else slug
