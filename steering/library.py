"""The shelf: the vectors that ship with the project and those of the user."""

import difflib
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from steering import paths
from steering.drafts import Drafts
from steering.errors import SteeringError
from steering.vectors import SUFFIX, SteeringVector, slug_of

TRASH = ".trash"


@dataclass(frozen=True)
class Entry:
    """One vector on the shelf. `slug` names its file; shipped vectors can be used and copied, not deleted."""

    slug: str
    path: Path
    shipped: bool
    vector: SteeringVector


class Library:
    """Shipped and own vectors. Files unchanged on disk come back as the same objects, so they serve as keys.

    Args:
        own: folder of the user's vectors; `shipped`: of those that come with the project.
    """

    def __init__(self, own: Path | None = None, shipped: Path | None = None) -> None:
        self.own = own or paths.data_dir() / "vectors"
        self.shipped = shipped or paths.shipped("vectors")
        self.drafts = Drafts(self.own / ".drafts")
        self.problems: list[str] = []
        self._lock = threading.RLock()
        self._loaded: dict[Path, tuple[tuple[int, int], SteeringVector]] = {}

    def entries(self) -> list[Entry]:
        """Shipped ones first, each part by name. Unreadable files are left out and named in `problems`."""
        with self._lock:
            self.problems = []
            found = []
            for folder, shipped in ((self.shipped, True), (self.own, False)):
                part = [self._entry(path, shipped) for path in sorted(folder.glob(f"*{SUFFIX}"))]
                found += sorted((e for e in part if e), key=lambda e: e.vector.name.lower())
            return found

    def get(self, name_or_file: str, *, files: bool = True) -> SteeringVector:
        """A vector by slug, by name (case does not matter), or by the path of a file.

        `files=False` knows the shelf only; requests from outside must not reach into the file system.
        """
        wanted = name_or_file.strip()
        entries = self.entries()
        for entry in entries:
            if wanted == entry.slug:
                return entry.vector
        for entry in entries:
            if wanted.lower() == entry.vector.name.lower():
                return entry.vector
        path = Path(wanted)
        if files and (wanted.endswith(SUFFIX) or len(path.parts) > 1):
            with self._lock:
                return self._read(path.absolute())
        names = [entry.slug for entry in entries]
        near = difflib.get_close_matches(wanted, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names) or 'none yet'}."
        raise SteeringError(f"There is no vector {wanted[:80]!r} on the shelf; {hint}")

    def add(self, vector: SteeringVector) -> Entry:
        """Put a vector on the shelf. If its name is taken, the vector gets a number behind it."""
        with self._lock:
            wanted = vector.name or "vector"
            taken = {e.slug for e in self.entries()} | {e.vector.name.lower() for e in self.entries()}
            self._make(self.own)
            for number in range(1, 10_000):
                name = wanted if number == 1 else f"{wanted[:70]} {number}"
                slug = slug_of(name)
                path = self.own / f"{slug}{SUFFIX}"
                if slug in taken or name.lower() in taken or not _reserve(path):
                    continue
                vector.name = name
                try:
                    vector.save(path)
                except SteeringError:
                    path.unlink(missing_ok=True)
                    raise
                return self._entry(path, shipped=False)
            raise SteeringError(f"There are too many vectors named {wanted!r}; choose another name.")

    def delete(self, slug: str) -> str:
        """Take one of the user's vectors off the shelf; returns the token with which `restore` puts it back."""
        with self._lock:
            entry = next((e for e in self.entries() if e.slug == slug), None)
            if entry is None:
                raise SteeringError(f"There is no vector {slug[:80]!r} on the shelf; it may have been deleted already.")
            if entry.shipped:
                raise SteeringError(f"{entry.vector.name!r} ships with the playground and cannot be deleted.")
            self._make(self.own / TRASH)
            os.replace(entry.path, self.own / TRASH / entry.path.name)
            return slug

    def restore(self, token: str) -> Entry:
        """Undo `delete`."""
        path = self.own / TRASH / f"{slug_of(token)}{SUFFIX}"
        vector = SteeringVector.load(path)
        entry = self.add(vector)
        path.unlink()
        return entry

    def _entry(self, path: Path, shipped: bool) -> Entry | None:
        try:
            return Entry(path.stem, path, shipped, self._read(path))
        except SteeringError as error:
            self.problems.append(str(error))
            return None

    def _read(self, path: Path) -> SteeringVector:
        try:
            status = path.stat()
        except OSError as error:
            raise SteeringError(f"{path}: there is no such vector file.") from error
        stamp = (status.st_mtime_ns, status.st_size)
        if self._loaded.get(path, (None,))[0] != stamp:
            vector = SteeringVector.load(path)
            vector.name = vector.name or path.stem
            self._loaded[path] = (stamp, vector)
        return self._loaded[path][1]

    @staticmethod
    def _make(folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SteeringError(f"{folder}: cannot be made ({error.strerror}); set STEERING_DATA_DIR.") from error


def _reserve(path: Path) -> bool:
    """Make the empty file, unless it exists: two processes never take the same name."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    except FileExistsError:
        return False
    except OSError as error:
        raise SteeringError(f"{path}: cannot be written ({error.strerror}).") from error
    return True
