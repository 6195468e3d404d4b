"""The shelf: the vectors that ship with the project and those of the user."""

import contextlib
import dataclasses
import difflib
import itertools
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from steering import paths
from steering.errors import SteeringError
from steering.vectors.drafts import Drafts
from steering.vectors.formats import READERS, read_any
from steering.vectors.native_file import TEXTS, shown
from steering.vectors.vector import SUFFIX, SteeringVector, slug_of

MOST_DELETED = 50  # vectors that can still be restored
MAX_SLUG = 60
LOCK_SECONDS = 20


@dataclass(frozen=True)
class Entry:
    """One vector on the shelf. `slug` names its file; shipped vectors can be used and copied, not deleted."""

    slug: str
    path: Path
    shipped: bool
    vector: SteeringVector


class Library:
    """Shipped and own vectors. Files unchanged on disk come back as the same objects, so they serve as keys.

    May be used by several threads, and its folder by several processes.

    Args:
        own: folder of the user's vectors; `shipped`: of those that come with the project.

    Attributes:
        problems: one sentence for each file that the last `entries()` could not read.
        drafts: vectors of training runs that nobody saved.
    """

    def __init__(self, own: Path | None = None, shipped: Path | None = None) -> None:
        self.own = (own or _own_folder()).absolute()
        self.shipped = (shipped or paths.shipped("vectors")).absolute()
        self.drafts = Drafts(self.own / ".drafts")
        self.problems: list[str] = []
        self._lock = threading.RLock()  # among threads; the other one among processes
        self._file_lock = FileLock(self.own / ".lock", timeout=LOCK_SECONDS, thread_local=False)
        self._loaded: dict[Path, tuple[tuple[int, ...], SteeringVector | str]] = {}

    def entries(self) -> list[Entry]:
        """Shipped ones first, each part by name; every slug once, an own file hides a shipped one.

        Unreadable files are left out and told in `problems`.
        """
        with self._lock:
            problems: list[str] = []
            own = self._folder(self.own, False, problems)
            hidden = {entry.slug for entry in own}
            shipped = [e for e in self._folder(self.shipped, True, problems) if e.slug not in hidden]
            self.problems = problems
            return shipped + own

    def get(self, name_or_file: str, *, files: bool = True) -> SteeringVector:
        """A vector by slug, by name (case does not matter), or by the path of a file.

        `files=False` knows the shelf only; requests from outside must not reach into the file system.
        Raises SteeringError, naming what there is, for anything else.
        """
        wanted = name_or_file.strip()
        entries = self.entries()
        called = {e.vector.name.casefold(): e for e in reversed(entries)} | {e.slug: e for e in entries}
        if found := called.get(wanted) or called.get(wanted.casefold()):
            return found.vector
        with self._lock:
            for folder in (self.own, self.shipped):
                if (broken := _vector_files(folder).get(wanted)) is not None:
                    return self._read(broken)  # which raises what is wrong with it
            if files and (Path(wanted).suffix.lower() in READERS or "/" in wanted or os.sep in wanted):
                return self._read(Path(os.path.expanduser(wanted)).absolute())
        near = difflib.get_close_matches(wanted.casefold(), called, n=1)
        hint = f" (did you mean {called[near[0]].slug!r}?)" if near else ""
        names = [entry.slug for entry in entries]
        there = f"there are: {', '.join(names[:40])}{', ...' if len(names) > 40 else ''}" if names else "it is empty"
        raise SteeringError(f"There is no vector {shown(wanted, 'name')!r} on the shelf{hint}; {there}.")

    def add(self, vector: SteeringVector, *, replace: bool = False) -> Entry:
        """Put a copy of the vector on the shelf.

        If its name is taken, the copy gets a number behind it; with `replace`, an own vector of that name makes room.
        """
        with self._changing():
            path, name = self._place(shown(vector.name, "name") or "vector", replace)
            dataclasses.replace(vector, name=name).save(path)
            return self._entry(path)

    def delete(self, slug: str) -> str:
        """Take one of the user's vectors off the shelf; returns the token with which `restore` puts it back."""
        with self._changing():
            path = _vector_files(self.own).get(slug)
            if path is None and slug in _vector_files(self.shipped):
                raise SteeringError(f"{slug!r} ships with the playground and cannot be deleted.")
            if path is None:
                raise SteeringError(
                    f"There is no vector {shown(slug, 'name')!r} on the shelf; it may have been deleted already."
                )
            token = f"{time.time_ns()}-{secrets.token_hex(4)}"
            _move(path, self._trash / f"{token}.{path.name}")
            for old in sorted(self._trash.glob(f"*{SUFFIX}"), reverse=True)[MOST_DELETED:]:
                old.unlink(missing_ok=True)
            return token

    def restore(self, token: str) -> Entry:
        """Undo `delete`; if the name was taken meanwhile, the vector gets a number behind it."""
        with self._changing():
            sound = re.fullmatch(r"[0-9]+-[0-9a-f]+", token)
            deleted = next(self._trash.glob(f"{token}.*{SUFFIX}"), None) if sound else None
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

    def _place(self, wanted: str, replace: bool) -> tuple[Path, str]:
        """Path and name for a vector that wants this name."""
        named = {entry.vector.name.casefold(): entry for entry in self.entries()}
        if replace and (old := named.get(wanted.casefold())) and not old.shipped:
            return old.path, wanted
        files = {stem.casefold() for folder in (self.own, self.shipped) for stem in _vector_files(folder)}
        for number in itertools.count(1):
            tail = f" {number}" if number > 1 else ""
            name = wanted[: TEXTS["name"] - len(tail)].rstrip() + tail
            slug = slug_of(wanted)[: MAX_SLUG - len(tail)].strip("-") + tail.replace(" ", "-")
            if slug not in files and name.casefold() not in named:
                return self.own / f"{slug}{SUFFIX}", name

    def _folder(self, folder: Path, shipped: bool, problems: list[str]) -> list[Entry]:
        found = []
        for path in _vector_files(folder).values():
            try:
                found.append(self._entry(path, shipped))
            except SteeringError as error:
                problems.append(str(error))
        return sorted(found, key=lambda entry: (entry.vector.name.casefold(), entry.slug))

    def _entry(self, path: Path, shipped: bool = False) -> Entry:
        return Entry(path.stem, path, shipped, self._read(path))

    def _read(self, path: Path) -> SteeringVector:
        """The vector in a file, read once for as long as the file stays as it is."""
        try:
            status = path.stat()
        except (OSError, ValueError) as error:
            raise SteeringError(f"{path.name[:80]}: there is no such file; check the path.") from error
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        if self._loaded.get(path, (None,))[0] != stamp:
            try:
                self._loaded[path] = (stamp, read_any(path))
            except SteeringError as error:
                self._loaded[path] = (stamp, str(error))
        loaded = self._loaded[path][1]
        if isinstance(loaded, str):
            raise SteeringError(loaded)
        return loaded

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Alone with the user's folder, among threads and processes."""
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


def _own_folder() -> Path:
    try:
        return paths.data_dir() / "vectors"
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no such user, or none has a home
        reason = getattr(error, "strerror", None) or error
        raise SteeringError(f"The folder for your vectors cannot be made ({reason}); set STEERING_DATA_DIR.") from error


def _vector_files(folder: Path) -> dict[str, Path]:
    """slug -> vector file, in order. Slugs from outside are looked up here; no path is ever made of one."""
    return {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}")) if not path.name.startswith(".")}


def _move(path: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    os.replace(path, target)
