"""The shelf: the vectors that ship with the project, those that a page publishes, and those of the user."""

import contextlib
import dataclasses
import difflib
import itertools
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from steering import paths
from steering.errors import SteeringError
from steering.vectors.drafts import Drafts
from steering.vectors.entry import Entry, Section
from steering.vectors.formats.registry import suffixes
from steering.vectors.reader import VectorReader
from steering.vectors.text import MAX_SLUG_LENGTH, TEXT_LIMITS, display_text, slug_of
from steering.vectors.vector import SUFFIX, SteeringVector

MOST_DELETED = 50
"""Deleted vectors that can still be restored; a vector of one layer takes 4 kB."""

MOST_NAMES = 40
"""Names that an error message lists; on a terminal about five lines."""

LOCK_SECONDS = 20
"""Wait for another program that changes the shelf. A change takes milliseconds; a slow network disk takes seconds."""


class Library:
    """The shelf: shipped vectors, published ones and those of the user.

    A file that is unchanged on disk comes back as the same object, so vectors serve as keys of a setting. May be used
    by several threads, and its folder by several processes.

    Args:
        own: folder of the user's vectors; by default the one of `paths.data_dir()`. It is made when it is written to.
        shipped: folder of those that come with the project.
        published: folder of those that the owner of a public page shows to every visitor; None for none.
        check_count: called before one is added, with how many the user will then have; what it raises stands in the
            way.
        reader: reads the files; shelves that share it have the same object for the same file.
        before_change: called before anything is written; what it raises stands in the way.

    Attributes:
        problems: one sentence for each file that the last `entries()` could not read.
        drafts: vectors of training runs not saved yet.

    Example:
        >>> library = Library()
        >>> vector = library.get("power-seeking")
        >>> library.add(vector * 0.5).slug
        'power-seeking-x-0-5'
    """

    def __init__(
        self,
        own: Path | None = None,
        shipped: Path | None = None,
        *,
        published: Path | None = None,
        check_count: Callable[[int], None] = lambda count: None,
        reader: VectorReader | None = None,
        before_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.own = (own or _own_folder()).absolute()
        self.shipped = (shipped or paths.shipped("vectors")).absolute()
        self.published = published and published.absolute()
        self._reader = reader or VectorReader()
        self._check_count, self._before_change = check_count, before_change
        self.drafts = Drafts(self.own / ".drafts")
        self.problems: list[str] = []
        self._lock = threading.RLock()  # among threads; the other one among processes
        self._file_lock = FileLock(self.own / ".lock", timeout=LOCK_SECONDS, thread_local=False)
        self._path_of: dict[str, Path] = {}  # slug -> file, as the last `entries()` listed them

    def entries(self) -> list[Entry]:
        """List the shelf: shipped, published, own, each part by name; a later part hides earlier ones of a slug of its.

        Unreadable files are left out and described in `problems`. Lists the folders and stats every file in them.
        """
        with self._lock:
            problems: list[str] = []
            hidden: set[str] = set()
            listed: list[Entry] = []
            for folder, section in reversed(self._sections()):
                entries = self._folder(folder, section, problems)
                listed = [entry for entry in entries if entry.slug not in hidden] + listed
                hidden |= {entry.slug for entry in entries}
            self.problems = problems
            self._path_of = {entry.slug: entry.path for entry in listed}
            return listed

    def entry(self, slug: str) -> Entry:
        """Look up one vector by slug; stats its file only, unless the slug is new or its file is gone.

        Raises SteeringError if there is no such vector, or its file is damaged.
        """
        with self._lock:
            path = self._path_of.get(slug)
            hidden = path is not None and path.parent != self.own and (self.own / path.name).is_file()
            if path is None or hidden or not path.is_file():
                self.entries()
                path = self._path_of.get(slug)
            if path is None:
                self._raise_if_damaged(slug)
                raise _not_on_shelf(slug)
            return self._entry(path)

    def fitting(self, hidden_size: int, num_layers: int) -> list[Entry]:
        """List the vectors on the shelf that can be added to a model of this width and depth."""
        return [entry for entry in self.entries() if entry.vector.fits(hidden_size, num_layers)]

    def setting(self, multipliers: Mapping[str, float]) -> dict[SteeringVector, float]:
        """Turn {slug: multiplier} into {vector: multiplier}; SteeringError for a slug that is not on the shelf."""
        setting: dict[SteeringVector, float] = {}
        for slug, multiplier in multipliers.items():
            try:
                setting[self.entry(slug).vector] = multiplier
            except NotOnShelf as error:
                raise SteeringError(f"The vector {slug[:60]!r} is no longer on the shelf; reload the page.") from error
        return setting

    def get(self, name_or_file: str, *, files: bool = True) -> SteeringVector:
        """Return a vector by slug, by name (in upper or lower case), or by the path of a file.

        Args:
            name_or_file: slug, name or path.
            files: whether paths are taken; False for requests from outside, which must not reach the file system.

        Raises:
            SteeringError: there is no such vector (the message lists those on the shelf), or its file is damaged.
        """
        wanted = name_or_file.strip()
        if wanted in self._path_of:
            with contextlib.suppress(NotOnShelf):  # gone since it was listed: look again, by name too
                return self.entry(wanted).vector
        entries = self.entries()
        by_name = {e.vector.name.casefold(): e for e in reversed(entries)} | {e.slug: e for e in entries}
        if entry := by_name.get(wanted) or by_name.get(wanted.casefold()):
            return entry.vector
        with self._lock:
            self._raise_if_damaged(wanted)
            if files and (Path(wanted).suffix.lower() in suffixes(readable=True) or "/" in wanted or os.sep in wanted):
                return self._reader.read(Path(os.path.expanduser(wanted)).absolute())
        near = difflib.get_close_matches(wanted.casefold(), by_name, n=1)
        hint = f" (did you mean {by_name[near[0]].slug!r}?)" if near else ""
        raise _not_on_shelf(wanted, hint, [entry.slug for entry in entries])

    def add(self, vector: SteeringVector) -> Entry:
        """Put a copy of the vector on the shelf; if its name is taken, the copy gets a number behind it.

        Raises what `check_count` does if the user has as many as are allowed.
        """
        self._before_change()
        with self._changing():
            self._check_count(len(_vector_files(self.own)) + 1)
            path, name = self._free_place(display_text(vector.name, "name") or "vector")
            dataclasses.replace(vector, name=name).save(path)
            return self._entry(path)

    def replace(self, slug: str, vector: SteeringVector) -> Entry:
        """Write a vector over one of the user's, whose slug and name it takes; NotOnShelf if that is gone."""
        with self._changing():
            path = _vector_files(self.own).get(slug)
            if path is None:
                raise _not_on_shelf(slug)
            dataclasses.replace(vector, name=self._reader.read(path).name).save(path)
            return self._entry(path)

    def delete(self, slug: str) -> str:
        """Take one of the user's vectors off the shelf; return the token with which `restore` puts it back."""
        with self._changing():
            path = _vector_files(self.own).get(slug)
            if path is None and slug in _vector_files(self.shipped):
                raise SteeringError(f"{slug!r} ships with the playground and cannot be deleted.")
            if path is None and self.published and slug in _vector_files(self.published):
                raise SteeringError(f"{slug!r} is published by the owner of this page and cannot be deleted.")
            if path is None:
                raise _not_on_shelf(slug)
            token = f"{time.time_ns()}-{secrets.token_hex(4)}"
            _move(path, self._trash / f"{token}.{path.name}")
            for old in sorted(self._trash.glob(f"*{SUFFIX}"), reverse=True)[MOST_DELETED:]:
                old.unlink(missing_ok=True)
            return token

    def restore(self, token: str) -> Entry:
        """Undo `delete`; if the name was taken meanwhile, the vector gets a number behind it."""
        with self._changing():
            well_formed = re.fullmatch(r"[0-9]+-[0-9a-f]+", token)
            deleted = next(self._trash.glob(f"{token}.*{SUFFIX}"), None) if well_formed else None
            if deleted is None:
                raise SteeringError("There is nothing to restore; the deletion may have been undone already.")
            path = self.own / deleted.name.partition(".")[2]
            if path.exists():
                entry = self.add(SteeringVector.load(deleted))
                deleted.unlink()
                return entry
            _move(deleted, path)
            return self._entry(path)

    @property
    def _trash(self) -> Path:
        return self.own / ".trash"

    def _free_place(self, wanted: str) -> tuple[Path, str]:
        """Find a free path and name for a vector that is to have this name, numbered if it is taken."""
        names = {entry.vector.name.casefold() for entry in self.entries()}
        files = {stem.casefold() for folder, _ in self._sections() for stem in _vector_files(folder)}
        for number in itertools.count(1):
            tail = f" {number}" if number > 1 else ""
            name = wanted[: TEXT_LIMITS["name"] - len(tail)].rstrip() + tail
            slug = slug_of(wanted)[: MAX_SLUG_LENGTH - len(tail)].strip("-") + tail.replace(" ", "-")
            if slug not in files and name.casefold() not in names:
                return self.own / f"{slug}{SUFFIX}", name
        raise AssertionError("unreachable: the numbers do not end")

    def _sections(self) -> list[tuple[Path, Section]]:
        """List the folders, those of the user last."""
        published: list[tuple[Path, Section]] = [(self.published, "published")] if self.published else []
        return [(self.shipped, "shipped"), *published, (self.own, "own")]

    def _folder(self, folder: Path, section: Section, problems: list[str]) -> list[Entry]:
        """List a folder's readable vectors by name; append a sentence to `problems` for each other file."""
        entries = []
        for path in _vector_files(folder).values():
            try:
                entries.append(Entry(path.stem, path, section, self._reader.read(path)))
            except SteeringError as error:
                problems.append(str(error))
        return sorted(entries, key=lambda entry: (entry.vector.name.casefold(), entry.slug))

    def _entry(self, path: Path) -> Entry:
        section = next(section for folder, section in reversed(self._sections()) if path.parent == folder)
        return Entry(path.stem, path, section, self._reader.read(path))

    def _raise_if_damaged(self, slug: str) -> None:
        """Raise SteeringError, saying what is wrong, if the shelf has a file of this slug that cannot be read."""
        for folder, _ in reversed(self._sections()):
            if (path := _vector_files(folder).get(slug)) is not None:
                self._reader.read(path)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Lock the user's folder, among threads and processes."""
        with self._lock:
            try:
                self.own.mkdir(parents=True, exist_ok=True)
                with self._file_lock:
                    yield
            except Timeout as error:
                raise SteeringError("Another program is changing the shelf; try again in a moment.") from error
            except OSError as error:
                reason = error.strerror or error
                raise SteeringError(f"{self.own}: cannot be changed ({reason}); set STEERING_DATA_DIR.") from error


class NotOnShelf(SteeringError):
    """There is no vector of this slug or name on the shelf."""


def _not_on_shelf(wanted: str, hint: str = "", slugs: list[str] | None = None) -> NotOnShelf:
    """Make the error for a vector that is not there; `slugs` are those to choose from, None names none."""
    if slugs is None:
        remedy = "it may have been deleted already"
    elif slugs:
        remedy = f"there are: {', '.join(slugs[:MOST_NAMES])}{', ...' if len(slugs) > MOST_NAMES else ''}"
    else:
        remedy = "it is empty"
    return NotOnShelf(f"There is no vector {display_text(wanted, 'name')!r} on the shelf{hint}; {remedy}.")


def _own_folder() -> Path:
    try:
        return paths.data_dir() / "vectors"
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no such user, or none has a home
        reason = getattr(error, "strerror", None) or error
        raise SteeringError(f"The folder for your vectors cannot be made ({reason}); set STEERING_DATA_DIR.") from error


def _vector_files(folder: Path) -> dict[str, Path]:
    """List slug -> vector file, in order. Slugs from outside are looked up here; no path is ever made of one."""
    return {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}")) if not path.name.startswith(".")}


def _move(path: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    os.replace(path, target)
