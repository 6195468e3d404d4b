"""Checkpoints: what a run has come to, on disk every few seconds, so that a crash or a stop costs next to nothing.

A run goes on from its checkpoint by itself when the same is asked for again: same model, pairs, held-out pairs and
settings. The file is safetensors with JSON, never pickle; whatever is unsound in it is told and left aside.
"""

import contextlib
import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from steering import paths
from steering.errors import SteeringError
from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs
from steering.training.methods.bipo.state import RunState
from steering.vectors.native_file import MAX_FILE_BYTES, SUFFIX, read_limited, write_whole

EVERY = 5.0
"""Seconds between two writes."""
MOST_CHECKPOINTS = 10
FORMAT = 1
"""Raised when a run's steps change, so that no run goes on otherwise than it began."""


def run_key(model: LanguageModel, pairs: Pairs, held_out: Pairs, method: str, settings: Any) -> str:
    """Hex digest of all that decides what a run comes to."""
    facts = [
        FORMAT,
        model.fingerprint,
        str(model.network.dtype),
        pairs.sha256,
        held_out.sha256,
        method,
        asdict(settings),
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def checkpoint_path(key: str) -> Path:
    """Where the run with this key keeps its checkpoint: in the user's data folder."""
    return paths.data_dir() / "checkpoints" / f"{key[:32]}{SUFFIX}"


class Checkpoint:
    """The checkpoint of one run, at `path`."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self.problem = ""
        self._written = time.monotonic()

    def load(self, hidden_size: int) -> tuple[RunState | None, str]:
        """What the run had come to, if there is such a file, and what to tell the user if it is of no use."""
        if not self.path.is_file():
            return None, ""
        try:
            state = RunState.from_bytes(read_limited(self.path, MAX_FILE_BYTES), self.key, hidden_size)
        except Exception:  # a damaged file fails in many ways
            return None, f"The checkpoint {self.path.name} is damaged, so the training begins anew."
        if state is None:
            return None, f"The checkpoint {self.path.name} is of another run, so the training begins anew."
        return state, ""

    @property
    def due(self) -> bool:
        return time.monotonic() - self._written >= EVERY

    def save(self, state: RunState) -> None:
        """Write it, whole or not at all. Training does not end because a disk is full; `problem` says so then."""
        self._written = time.monotonic()
        try:
            write_whole(self.path, state.to_bytes(self.key))
        except SteeringError as error:
            self.problem = f"No checkpoint could be kept: {error}"
        else:
            _prune(self.path.parent)

    def discard(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def _prune(folder: Path) -> None:
    """Only the newest few stay. Nothing is touched but what the names show to be checkpoints of the data folder."""
    if folder.name != "checkpoints":
        return
    with contextlib.suppress(OSError):
        files = sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in files[MOST_CHECKPOINTS:]:
            path.unlink(missing_ok=True)
