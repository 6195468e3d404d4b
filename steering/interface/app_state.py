"""What the tabs share: the model, the shelf, and each visitor's latest run."""

import logging
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import gradio as gr
import torch

from steering.errors import SteeringError
from steering.generation.next_token import Preview
from steering.generation.precision import PrecisionReport, precision_report
from steering.generation.server import DecodeServer
from steering.interface.html import duration
from steering.interface.starter_job import StarterJob
from steering.models.loading import LanguageModel
from steering.training.progress import Progress
from steering.vectors.library import Library

logger = logging.getLogger(__name__)

Made = TypeVar("Made")


class Runs:
    """Each visitor's latest run. Starting a new one ends the one before; so does stopping.

    Runs are ordered by when the browser sent them (in ms since 1970), since requests may overtake each other.
    """

    def __init__(self) -> None:
        self._latest: dict[str, float] = defaultdict(float)
        self._stopped: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def begin(self, request: gr.Request | None, sent_at: float | None = None) -> "Run":
        """Begin a run; without `sent_at` it counts as sent after all that came before."""
        visitor = visitor_of(request)
        with self._lock:
            own = self._latest[visitor] + 1 if sent_at is None else float(sent_at)
            self._latest[visitor] = max(self._latest[visitor], own)
        return Run(
            superseded=lambda: self._latest.get(visitor) != own,
            stopped=lambda: self._stopped.get(visitor, 0) >= own,
        )

    def stop(self, request: gr.Request, sent_at: float = 0) -> None:
        """End the visitor's run within one token; with `sent_at`, also one sent before that has not come in yet."""
        visitor = visitor_of(request)
        with self._lock:
            self._stopped[visitor] = max(self._latest[visitor], float(sent_at))

    def forget(self, request: gr.Request) -> None:
        """End the run of a visitor who closed the page."""
        with self._lock:
            self._latest.pop(visitor_of(request), None)
            self._stopped.pop(visitor_of(request), None)


@dataclass(frozen=True)
class Run:
    """A visitor's run, asked while it works.

    Attributes:
        superseded: whether a newer run took its place, so that it must yield nothing more.
        stopped: whether the visitor pressed Stop.
    """

    superseded: Callable[[], bool]
    stopped: Callable[[], bool]

    def over(self) -> bool:
        """Whether to stop working."""
        return self.superseded() or self.stopped()


def visitor_of(request: gr.Request | None) -> str:
    """Name the browser tab that a request came from; `local` outside a server."""
    return getattr(request, "session_hash", None) or "local"


@dataclass(frozen=True)
class TrainingStatus:
    """How far the running training is; all zero before its first step.

    Attributes:
        step, total_steps: steps taken, and in all.
        seconds_left: estimated to the end; None while nothing is known.
    """

    step: int = 0
    total_steps: int = 0
    seconds_left: float | None = None

    @classmethod
    def of(cls, progress: Progress) -> Self:
        """Take the figures from a report of the training."""
        return cls(progress.step, progress.total_steps, progress.seconds_left)

    def words(self) -> str:
        """Say it as `step 3 of 24, about 40 s left`, or `just begun`."""
        if not self.step:
            return "just begun"
        left = "" if self.seconds_left is None else f", about {duration(self.seconds_left)} left"
        return f"step {self.step} of {self.total_steps}{left}"


class ModelInUse:
    """The model that the page runs, with what was made for it.

    Attributes:
        generation: counts the changes of the page's model, from 0.
        source: what `load_model` was given; None where that is not known.
        replaced_by: name of the model that took its place; empty while it is in use.
    """

    def __init__(self, model: LanguageModel, generation: int = 0, source: str | None = None) -> None:
        self.model, self.generation, self.source = model, generation, source
        self.replaced_by = ""
        self._made: dict[tuple[Callable[..., Any], str], Any] = {}
        self._making = threading.Lock()

    def made(self, kind: Callable[..., Made], weights: str) -> Made:
        """Return `kind(model, weights=weights)`, made at the first call."""
        with self._making:
            if (kind, weights) not in self._made:
                self._made[kind, weights] = kind(self.model, weights=weights)
            return self._made[kind, weights]

    def check(self) -> None:
        """Raise `ModelChanged` if another model took its place."""
        if self.replaced_by:
            raise ModelChanged(f"The model was changed to {self.replaced_by}; ask again.")

    def until_changed(self, over: Callable[[], bool]) -> Callable[[], bool]:
        """Return a `should_stop` that says what `over` says, and raises `ModelChanged` once the model was changed."""

        def should_stop() -> bool:
            self.check()
            return over()

        return should_stop


class ModelChanged(SteeringError):
    """The page's model was changed while a visitor's request was under way."""


class AppState:
    """One per page.

    Args:
        model: the one that the page opens with; `source`: what `load_model` was given for it.
        library: the shelf.
        load_options: arguments of `load_model` that also hold for models chosen later, such as `device`.

    Attributes:
        in_use: the model in use; handlers read it late, since it may be changed while the page is open.
        cpu_threads: that torch was given; while some work is under way, it reports fewer.
        training: held by the one training run, or measurement of the machine's speed, that may work at a time.
        training_status: how far the running training is; None where none runs.
        starters: makes the shipped behaviors for the model.
    """

    def __init__(
        self,
        model: LanguageModel,
        library: Library,
        *,
        source: str | None = None,
        load_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.library = library
        self.load_options = dict(load_options or {})
        self.cpu_threads = torch.get_num_threads()
        self.runs, self.training_runs = Runs(), Runs()
        self.training = threading.Lock()
        self.training_status: TrainingStatus | None = None
        self.starters = StarterJob(library, self.training)
        self._in_use: ModelInUse | None = ModelInUse(model, source=source)
        self._generation = 0

    @property
    def in_use(self) -> ModelInUse:
        """The model in use with what was made for it; SteeringError while there is none (see `release_model`)."""
        if self._in_use is None:
            raise SteeringError("Another model is being loaded; ask again in a moment.")
        return self._in_use

    @property
    def model(self) -> LanguageModel:
        """The language model in use; SteeringError while there is none."""
        return self.in_use.model

    @property
    def generation(self) -> int:
        """How often the model was changed."""
        return self._generation

    def use_model(self, model: LanguageModel, source: str | None = None) -> None:
        """Put another model in the place of the present one, whose running requests end with `ModelChanged`."""
        old, self._generation = self._in_use, self._generation + 1
        self._in_use = ModelInUse(model, self._generation, source)
        if old is not None:
            old.replaced_by = model.name
        self.warm_up()

    def release_model(self, successor: str) -> "weakref.ref[LanguageModel]":
        """Let go of the model, to make room for its successor of this name.

        Until `use_model`, whatever asks for a model is told to ask again. Returns a reference that is dead once the
        model has left memory.
        """
        old, self._in_use = self.in_use, None
        old.replaced_by = successor
        return weakref.ref(old.model)

    @property
    def how_far_training(self) -> str:
        """`training_status` as the end of a sentence, such as ` (step 3 of 24)`; empty where no training runs."""
        return f" ({self.training_status.words()})" if self.training_status else ""

    def decode_server(self, weights: str) -> DecodeServer:
        """Return the decode server that all visitors share; it is made at the first call."""
        return self.in_use.made(DecodeServer, weights)

    def preview(self, weights: str) -> Preview:
        """Return what computes next-token probabilities for all visitors; it is made at the first call."""
        return self.in_use.made(Preview, weights)

    def warm_up(self) -> None:
        """Make, beside the opening of the page, what the first visitor would wait for."""
        in_use = self.in_use
        make = lambda: (in_use.made(DecodeServer, "float16"), in_use.made(Preview, "float16"))  # noqa: E731
        threading.Thread(target=make, daemon=True).start()

    def precision(self) -> PrecisionReport:
        """Report what float16 weights cost, or why they are not in use, and how answers are decoded."""
        return precision_report(self.model, "float16")

    def decoding_summary(self) -> str:
        """Say which way answers are decoded, in a few words; waits for the decoder if it is still being made."""
        try:
            return self.precision().summary
        except Exception:  # an architecture may fail in any way; what a visitor asks for then says how
            logger.warning("the decoder could not be made, so the page does not say which way decodes", exc_info=True)
            return ""
