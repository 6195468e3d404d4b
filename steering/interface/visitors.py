"""Who is who on a page: each visitor's shelf and private folder.

On one's own machine there is one visitor, with the user's shelf (`OneVisitor`); for a public page see
`public_visitors`.
"""

from dataclasses import dataclass
from pathlib import Path

from steering import paths
from steering.limits import Limits
from steering.vectors.library import Library


@dataclass(frozen=True, eq=False)
class Visitor:
    """A visitor.

    Attributes:
        id: names the visitor on the server; `local` on one's own machine.
        library: the shelf: shipped, published and own vectors, with its drafts and its trash.
        folder: for checkpoints and uploads; private. It may not be there yet.
        ticket: what the browser shows with requests that carry no session.
    """

    id: str
    library: Library
    folder: Path
    ticket: str = ""

    @property
    def checkpoints(self) -> Path:
        """Folder of unfinished runs."""
        return self.folder / "checkpoints"

    @property
    def uploads(self) -> Path:
        """Folder of the file that was brought last."""
        return self.folder / "uploads"


class OneVisitor:
    """The only visitor of a page on one's own machine.

    Args:
        library: the user's shelf.
        limits: what may be asked for.
    """

    is_public = False

    def __init__(self, library: Library, limits: Limits | None = None) -> None:
        self.limits = limits or Limits.local()
        self.owner = library
        self._visitor: Visitor | None = None

    def enter(self, secret: object, session: str, account: str = "") -> str:
        """Do nothing: whoever opens the page is the user."""
        return ""

    def of_session(self, session: str) -> Visitor:
        """Return the user."""
        if self._visitor is None:
            self._visitor = Visitor("local", self.owner, paths.data_dir())
        return self._visitor

    def of_program(self, session: str) -> Visitor:
        """Return the user."""
        return self.of_session(session)

    def of_ticket(self, ticket: object) -> Visitor:
        """Return the user."""
        return self.of_session("")

    def nobody(self) -> Visitor:
        """Return the user."""
        return self.of_session("")

    def check_room(self) -> None:
        """Do nothing: the disk is the user's own."""

    def sweep(self) -> None:
        """Do nothing: what the user keeps, stays."""


def published_folder() -> Path:
    """Return the folder of the vectors that the owner of a public page shows to every visitor."""
    return paths.data_dir() / "published"
