"""What the tabs share: the model, the shelf, who is running what."""

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import gradio as gr

from steering.library import Library
from steering.models import LanguageModel

TURN = """
(...values) => { values[values.length - 1] = performance.timeOrigin + performance.now(); return values; }
"""  # sent as the last input: requests may overtake each other on their way, and the browser knows their order


class Runs:
    """Each visitor's latest run. Starting a new one ends the one before; so does stopping."""

    def __init__(self) -> None:
        self._latest: dict[str, float] = defaultdict(float)
        self._stopped: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def begin(self, request: gr.Request | None, turn: float | None = None) -> "Run":
        """A new run; `turn` is its place in the browser's order, by default after all that came before."""
        visitor = visitor_of(request)
        with self._lock:
            mine = self._latest[visitor] + 1 if turn is None else float(turn)
            self._latest[visitor] = max(self._latest[visitor], mine)
        return Run(
            superseded=lambda: self._latest.get(visitor) != mine,
            stopped=lambda: self._stopped.get(visitor, 0) >= mine,
        )

    def stop(self, request: gr.Request) -> None:
        """End the visitor's run within one token."""
        visitor = visitor_of(request)
        with self._lock:
            self._stopped[visitor] = self._latest[visitor]

    def forget(self, request: gr.Request) -> None:
        """The visitor closed the page."""
        with self._lock:
            self._latest.pop(visitor_of(request), None)
            self._stopped.pop(visitor_of(request), None)


@dataclass(frozen=True)
class Run:
    """`superseded`: a newer run took its place, say nothing more; `stopped`: the visitor pressed Stop."""

    superseded: Callable[[], bool]
    stopped: Callable[[], bool]

    def over(self) -> bool:
        return self.superseded() or self.stopped()


def visitor_of(request: gr.Request | None) -> str:
    return getattr(request, "session_hash", None) or "local"


@dataclass
class Studio:
    """One per page. `training` is held by the one training run that may work at a time."""

    model: LanguageModel
    library: Library
    runs: Runs = field(default_factory=Runs)
    training_runs: Runs = field(default_factory=Runs)
    training: threading.Lock = field(default_factory=threading.Lock)
    training_news: str = ""  # how far the running training is, for those who wait
