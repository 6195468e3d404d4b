"""What the tabs share: the model, the shelf, who is running what."""

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import gradio as gr

from steering.generation.next_token import Preview
from steering.generation.precision import PrecisionReport, precision_report
from steering.generation.server import DecodeServer
from steering.models.loading import LanguageModel
from steering.vectors.library import Library

Made = TypeVar("Made")


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

    def stop(self, request: gr.Request, turn: float = 0) -> None:
        """End the visitor's run within one token; with `turn`, also one that is still on its way here."""
        visitor = visitor_of(request)
        with self._lock:
            self._stopped[visitor] = max(self._latest[visitor], float(turn))

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
class AppState:
    """One per page. `training` is held by the one training run that may work at a time."""

    model: LanguageModel
    library: Library
    runs: Runs = field(default_factory=Runs)
    training_runs: Runs = field(default_factory=Runs)
    training: threading.Lock = field(default_factory=threading.Lock)
    training_news: str = ""  # how far the running training is, for those who wait
    _made: dict[tuple[type, str], Any] = field(default_factory=dict)
    _making: threading.Lock = field(default_factory=threading.Lock)

    def decode_server(self, weights: str) -> DecodeServer:
        """What decodes for all visitors; made when first asked for."""
        return self._once(DecodeServer, weights)

    def preview(self, weights: str) -> Preview:
        """What tells next words; made when first asked for."""
        return self._once(Preview, weights)

    def warm_up(self) -> None:
        """Make, beside the opening of the page, what the first visitor would wait for."""
        threading.Thread(target=lambda: (self.decode_server("float16"), self.preview("float16")), daemon=True).start()

    def precision(self) -> PrecisionReport:
        """What float16 weights cost, or why they are not in use, and which way answers are decoded."""
        return precision_report(self.model, "float16")

    def lightness(self) -> tuple[float, str]:
        """What float16 weights cost: their mean KL divergence in nats; or why they are not in use."""
        report = self.precision()
        return report.kl, report.why_full

    def _once(self, kind: Callable[..., Made], weights: str) -> Made:
        with self._making:
            if (kind, weights) not in self._made:
                self._made[kind, weights] = kind(self.model, weights=weights)
            return self._made[kind, weights]
