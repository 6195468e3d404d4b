"""Checkpoints: a run's state on disk every few seconds, so that a crash or a stop costs next to nothing.

A run goes on from its checkpoint when the same is asked for again: same model, pairs, held-out pairs, method and
settings. What the file holds is the method's own (`RunState`), safetensors with JSON and never pickle; an unsound or
foreign file is reported and ignored.
"""

import contextlib
import hashlib
import json
import logging
import time
from pathlib import Path
from typing import Protocol, Self, TypeVar

from steering import paths
from steering.errors import SteeringError
from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs
from steering.training.config import MethodConfig
from steering.vectors.native_file import MAX_FILE_BYTES, SUFFIX, read_limited, write_atomically

logger = logging.getLogger(__name__)

EVERY = 5.0
"""Seconds between two writes: what a crash may cost. A checkpoint of the bundled model has some 10 kB a layer."""
MOST_CHECKPOINTS = 10
"""Older ones in the data folder are deleted: so many interrupted runs can still go on."""
FORMAT = 1
"""Raised when a run's steps change, so that no run goes on otherwise than it began."""


class Resumable(Protocol):
    """The state of a run, as a method that writes checkpoints defines it."""

    def to_bytes(self, run: str) -> bytes:
        """Serialise the state, marked as that of the run with this key."""
        ...

    @classmethod
    def from_bytes(cls, data: bytes, run: str, hidden_size: int) -> Self | None:
        """Read what `to_bytes` wrote; None if it is of another run; any exception if the data are damaged."""
        ...


State = TypeVar("State", bound=Resumable)


def run_key(model: LanguageModel, pairs: Pairs, held_out: Pairs, method: str, config: MethodConfig) -> str:
    """Hash all that decides the outcome of a run: a hex digest."""
    facts = [
        FORMAT,
        model.fingerprint,
        str(model.network.dtype),
        pairs.sha256,
        held_out.sha256,
        method,
        config.as_json(),
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def checkpoint_path(key: str, folder: Path | None = None) -> Path:
    """Where the run with this key writes its checkpoint: in `folder`, by default that of the user's data folder."""
    return (folder or paths.data_dir() / "checkpoints") / f"{key[:32]}{SUFFIX}"


class Checkpoint:
    """The checkpoint of one run.

    Args:
        path: its file, whether it is there yet or not.
        key: the run's, see `run_key`.

    Attributes:
        problem: why the last write failed, one sentence; empty if it did not.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self.problem = ""
        self._written = time.monotonic()

    def load(self, state_class: type[State], hidden_size: int) -> tuple[State | None, str]:
        """Read the state, None if there is no file or it is of no use; and then one sentence for the user."""
        if not self.path.is_file():
            return None, ""
        try:
            state = state_class.from_bytes(read_limited(self.path, MAX_FILE_BYTES), self.key, hidden_size)
        except Exception as error:  # noqa: BLE001 - a damaged file fails in many ways
            logger.info("%s cannot be read: %r", self.path, error)  # the sentence below warns the user
            return None, f"The checkpoint {self.path.name} is damaged, so the training starts from scratch."
        if state is None:
            return None, f"The checkpoint {self.path.name} is of another run, so the training starts from scratch."
        return state, ""

    @property
    def due(self) -> bool:
        """Whether `EVERY` seconds have passed since the last write."""
        return time.monotonic() - self._written >= EVERY

    def save(self, state: Resumable) -> None:
        """Write the state, whole or not at all. A full disk does not end the training: it is said in `problem`."""
        self._written = time.monotonic()
        try:
            write_atomically(self.path, state.to_bytes(self.key))
        except SteeringError as error:
            self.problem = f"No checkpoint could be written: {error}"
            logger.info("%s", self.problem)  # every report of the run repeats it to the user
        else:
            self.problem = ""
            _delete_oldest(self.path.parent)

    def discard(self) -> None:
        """Delete the file, if it is there."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("The checkpoint %s cannot be deleted: %s", self.path, error)


def _delete_oldest(folder: Path) -> None:
    """Leave only the newest `MOST_CHECKPOINTS` in the data folder's `checkpoints`; touch no other folder."""
    if folder.name != "checkpoints":
        return
    with contextlib.suppress(OSError):  # another process may be at the same
        files = sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in files[MOST_CHECKPOINTS:]:
            path.unlink(missing_ok=True)
