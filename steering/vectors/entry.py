"""One vector on the shelf."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from steering.vectors.vector import SteeringVector

Section = Literal["shipped", "published", "own"]


@dataclass(frozen=True)
class Entry:
    """One vector on the shelf. `slug` names its file; only the user's own can be deleted, all can be used."""

    slug: str
    path: Path
    section: Section
    vector: SteeringVector

    @property
    def shipped(self) -> bool:
        """Whether it comes with the project."""
        return self.section == "shipped"
