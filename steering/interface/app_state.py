"""What the tabs share: the model, the visitors with their shelves, the queue of trainings."""

import logging
import threading
import weakref
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
import torch

from steering.errors import SteeringError
from steering.generation.next_token import Preview
from steering.generation.precision import PrecisionReport, precision_report
from steering.generation.server import DecodeServer
from steering.interface.api_access import visitor_of_program
from steering.interface.listeners import Listeners
from steering.interface.model_in_use import ModelInUse
from steering.interface.public_visitors import Visitors
from steering.interface.runs import Runs, session_of
from steering.interface.starter_job import StarterJob
from steering.interface.training_queue import TrainingQueue
from steering.interface.visitors import OneVisitor, Visitor
from steering.interface.zero_gpu.page import GpuPreview, GpuServer, ZeroGpu
from steering.limits import Limits
from steering.models.loading import LanguageModel
from steering.training import pipeline
from steering.training.progress import Progress
from steering.vectors.library import Library

logger = logging.getLogger(__name__)


class AppState:
    """One per page.

    Args:
        model: the one that the page opens with; `source`: what `load_model` was given for it.
        visitors: who comes by, with their shelves and limits; a library is the shelf of the page's only user.
        load_options: arguments of `load_model` that also hold for models chosen later, such as `device`.
        gpu: where trainings, and perhaps answers, are sent on a ZeroGPU Space.

    Attributes:
        in_use: the model in use; handlers read it late, since it may be changed while the page is open.
        limits: what a visitor may ask for.
        cpu_threads: that torch was given; while some work is under way, it reports fewer.
        listeners: tells whether anybody waits for a request's answers.
        training: held by the one training run, or measurement of the machine's speed, that may work at a time.
        starters: makes the shipped behaviors for the model.
    """

    def __init__(
        self,
        model: LanguageModel,
        visitors: Library | OneVisitor | Visitors,
        *,
        source: str | None = None,
        load_options: Mapping[str, Any] | None = None,
        gpu: ZeroGpu | None = None,
    ) -> None:
        self.gpu = gpu
        self.visitors = OneVisitor(visitors) if isinstance(visitors, Library) else visitors
        self.limits: Limits = self.visitors.limits
        self.load_options = dict(load_options or {})
        self.cpu_threads = torch.get_num_threads()
        self.listeners = Listeners()
        self.runs, self.training_runs = Runs(self.listeners), Runs(self.listeners)
        self.training = TrainingQueue(self.limits)
        self.starters = StarterJob(self.visitors.owner, self.training)
        self._in_use: ModelInUse | None = ModelInUse(model, source=source, limits=self.limits)
        self._generation = 0

    @property
    def is_public(self) -> bool:
        """Whether strangers come by."""
        return self.visitors.is_public

    def visit(self, request: gr.Request | None = None) -> "Visit":
        """Return the visit that a request of the page belongs to; without a request, one that keeps nothing.

        Raises SteeringError for a browser that did not enter since the server was started.
        """
        if request is None:
            return Visit(self, self.visitors.nobody())
        try:
            return Visit(self, self.visitors.of_session(session_of(request)))
        except SteeringError as error:
            raise NotEntered(str(error)) from error

    def program_visit(self, request: gr.Request | None) -> "Visit":
        """Return the visit of a program or an agent that calls an endpoint, see `api_access`."""
        return Visit(self, visitor_of_program(self.visitors, request))

    def visit_with_ticket(self, ticket: object) -> "Visit":
        """Return the visit of a request that carries no session; SteeringError for a ticket that nobody was given."""
        return Visit(self, self.visitors.of_ticket(ticket))

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
        self._in_use = ModelInUse(model, self._generation, source, self.limits)
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
    def writes_on_gpu(self) -> bool:
        """Whether the model lies on a ZeroGPU, where only workers reach it."""
        return self.gpu is not None and self.gpu.writes

    @property
    def run_training(self) -> Callable[..., Generator[Progress, None, None]]:
        """What trains, measures and saves, as `pipeline.run` does."""
        return self.gpu.run_training if self.gpu else pipeline.run

    def decode_server(self, weights: str) -> DecodeServer | GpuServer:
        """Return the decode server that all visitors share; it is made at the first call."""
        if self.writes_on_gpu:
            return GpuServer(self.limits)
        return self.in_use.made(DecodeServer, weights)

    def preview(self, weights: str) -> Preview | GpuPreview:
        """Return what computes next-token probabilities for all visitors; it is made at the first call."""
        if self.writes_on_gpu:
            return GpuPreview(self.limits)
        return self.in_use.made(Preview, weights)

    def warm_up(self) -> None:
        """Make, beside the opening of the page, what the first visitor would wait for."""
        if self.writes_on_gpu:
            return
        in_use = self.in_use
        make = lambda: (in_use.made(DecodeServer, "float16"), in_use.made(Preview, "float16"))  # noqa: E731
        threading.Thread(target=make, daemon=True).start()

    def precision(self) -> PrecisionReport:
        """Report what float16 weights cost, or why they are not in use, and how answers are decoded."""
        if self.writes_on_gpu:
            return PrecisionReport(kl=0.0, why_full="the model lies on a GPU", way="transformers' forward")
        return precision_report(self.model, "float16")

    def decoding_summary(self) -> str:
        """Say which way answers are decoded, in a few words; waits for the decoder if it is still being made."""
        try:
            return self.precision().summary
        except Exception:  # an architecture may fail in any way; what a visitor asks for then says how
            logger.warning("the decoder could not be made, so the page does not say which way decodes", exc_info=True)
            return ""


class NotEntered(SteeringError, gr.Error):
    """A request of the page from a browser that did not enter; shown as it is, without a traceback in the log."""

    def __init__(self, sentence: str) -> None:
        gr.Error.__init__(self, sentence, print_exception=False)

    def __str__(self) -> str:
        return str(self.message)


@dataclass(frozen=True)
class Visit:
    """The page as one visitor sees it: what all share, and the shelf that is theirs."""

    app: AppState
    visitor: Visitor

    @property
    def library(self) -> Library:
        """The visitor's shelf."""
        return self.visitor.library

    @property
    def limits(self) -> Limits:
        """What the visitor may ask for."""
        return self.app.limits

    @property
    def in_use(self) -> ModelInUse:
        """See `AppState.in_use`."""
        return self.app.in_use

    @property
    def model(self) -> LanguageModel:
        """See `AppState.model`."""
        return self.app.model

    @property
    def generation(self) -> int:
        """See `AppState.generation`."""
        return self.app.generation
