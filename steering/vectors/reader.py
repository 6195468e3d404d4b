"""Vector files, each read once for as long as it stays the same."""

import threading
from pathlib import Path

from steering.errors import SteeringError
from steering.vectors.formats.registry import read_any
from steering.vectors.vector import SteeringVector


class VectorReader:
    """Reads vector files; one that is unchanged on disk comes back as the same object.

    Shelves of several visitors share one reader, so that all of them steer by the same object for the same file. May be
    used by several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read: dict[Path, tuple[tuple[int, ...], SteeringVector | str]] = {}

    def read(self, path: Path) -> SteeringVector:
        """Read a file, unless its inode, time and size are as when it was read last.

        Raises SteeringError for a file that is gone or damaged, the second time from memory, too.
        """
        try:
            status = path.stat()
        except (OSError, ValueError) as error:
            self.forget(path)
            raise SteeringError(f"{path.name[:80]}: there is no such file; check the path.") from error
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        with self._lock:
            known, result = self._read.get(path, ((), ""))
            if known != stamp:
                try:
                    result = read_any(path)
                except SteeringError as error:
                    result = str(error)
                self._read[path] = (stamp, result)
        if isinstance(result, str):
            raise SteeringError(result)
        return result

    def forget(self, path: Path) -> None:
        """Let go of what was read of a file, or of all files in a folder."""
        with self._lock:
            for known in [known for known in self._read if known == path or path in known.parents]:
                del self._read[known]
