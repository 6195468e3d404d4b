"""What runs in ZeroGPU's forked workers: module-level generator functions; arguments and results can be pickled.

`spaces.GPU` runs such a function in a process forked from the page's, in which alone CUDA is there; what the function
yields reaches the page through a pipe. So the model is a global that a worker inherits, nothing that a worker changes
reaches the page, and a worker is told to stop through a file. Off ZeroGPU the functions run where they are called.
"""

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from steering.drafting import draft_pairs
from steering.errors import SteeringError
from steering.generation.next_token import NextToken, Preview
from steering.generation.results import Column
from steering.generation.sampling import Sampling
from steering.generation.stream import stream
from steering.limits import Limits
from steering.models.chat_template import Conversation
from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs
from steering.training import pipeline
from steering.vectors.vector import SteeringVector

UPDATES_PER_SECOND = 10
"""Of an answer that is being written: what a person can follow; each is pickled and sent."""
FIRST_SECONDS = 10.0
"""Of every request for a GPU: until the model has arrived on it."""
SECONDS_PER_TOKEN = 0.15
"""Of the longest answer, for a model of some 8 billion parameters; asking for more costs a visitor's quota."""
MOST_SECONDS = 60.0
"""Asked for at a time: half of what ZeroGPU gives an anonymous visitor a day (2 minutes, 2026)."""

Function = TypeVar("Function", bound=Callable[..., Any])
SettingItems = Sequence[tuple[SteeringVector, float]]
"""A setting as it can be pickled: a dictionary with vectors as keys would come out with other objects."""


def is_zero_gpu() -> bool:
    """Tell whether this is a ZeroGPU Space."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def gpu(seconds: Callable[..., float]) -> Callable[[Function], Function]:
    """Decorate a generator function to run on ZeroGPU; `seconds` says for how long, from the same arguments."""
    if not is_zero_gpu():
        return lambda function: function
    import spaces

    return spaces.GPU(duration=seconds)


@dataclass(frozen=True)
class Failure:
    """What went wrong in a worker, one sentence: an exception would come out without its words."""

    sentence: str


class GpuModel:
    """The model that workers inherit.

    Attributes:
        model: set by the page before it opens; its weights are on the GPU.
    """

    model: LanguageModel | None = None

    @classmethod
    def get(cls) -> LanguageModel:
        """Return the model; SteeringError if the page has none on a GPU."""
        if cls.model is None:
            raise SteeringError("This page has no model on a GPU.")
        return cls.model


@dataclass(frozen=True)
class GenerationJob:
    """A request for answers, as `generation.stream` takes it."""

    prompt: str
    columns: Sequence[SettingItems]
    system: str
    histories: Sequence[Conversation]
    sampling: Sampling
    trace: bool


def _generation_seconds(job: GenerationJob) -> float:
    return min(MOST_SECONDS, FIRST_SECONDS + SECONDS_PER_TOKEN * job.sampling.max_new_tokens)


@gpu(_generation_seconds)
def generate(job: GenerationJob) -> Iterator[list[Column] | Failure]:
    """Yield the columns as they are written, without their settings; the last time complete."""
    try:
        shots = stream(
            GpuModel.get(),
            job.prompt,
            [dict(items) for items in job.columns],
            system=job.system,
            histories=job.histories,
            sampling=job.sampling,
            trace=job.trace,
        )
        sent, shot = 0.0, None
        for shot in shots:
            if time.monotonic() - sent >= 1 / UPDATES_PER_SECOND:
                sent = time.monotonic()
                yield _without_settings(shot)
        if shot is not None:
            yield _without_settings(shot)
    except SteeringError as error:
        yield Failure(str(error))


def _without_settings(columns: Sequence[Column]) -> list[Column]:
    return [dataclasses.replace(column, setting={}) for column in columns]


@dataclass(frozen=True)
class PreviewJob:
    """A question for the next token, as `Preview.next_token` takes it."""

    prompt: str
    setting: SettingItems
    system: str
    before: Conversation
    top: int


@gpu(lambda job: FIRST_SECONDS)
def preview(job: PreviewJob) -> Iterator[NextToken | Failure]:
    """Yield the answer."""
    try:
        asked = Preview(GpuModel.get())
        yield asked.next_token(job.prompt, dict(job.setting), system=job.system, before=job.before, top=job.top)
    except SteeringError as error:
        yield Failure(str(error))


@dataclass(frozen=True)
class TrainingJob:
    """A training, as `pipeline.run` takes it.

    Attributes:
        stop_file: once it is there, the training ends with the best vector so far.
    """

    pairs: Pairs
    held_out: Pairs
    method: str
    name: str
    behavior: str
    settings: dict[str, Any]
    checkpoint: Path | None
    fresh: bool
    limits: Limits
    stop_file: Path


def _training_seconds(job: TrainingJob) -> float:
    return min(MOST_SECONDS, FIRST_SECONDS + (job.limits.training_seconds or MOST_SECONDS))


@gpu(_training_seconds)
def train(job: TrainingJob) -> Iterator[pipeline.Progress | Failure]:
    """Yield the reports of `pipeline.run`, their vectors with them; nothing is saved but the checkpoint."""
    try:
        reports = pipeline.run(
            GpuModel.get(),
            job.pairs,
            job.held_out,
            job.method,
            name=job.name,
            behavior=job.behavior,
            should_stop=job.stop_file.exists,
            checkpoint=job.checkpoint,
            fresh=job.fresh,
            limits=job.limits,
            **job.settings,
        )
        for progress in reports:
            yield dataclasses.replace(progress, held_out_scorer=None)
    except SteeringError as error:
        yield Failure(str(error))


@dataclass(frozen=True)
class DraftJob:
    """A draft, as `draft_pairs` takes it."""

    behavior: str
    options: dict[str, Any]
    stop_file: Path


@gpu(lambda job: MOST_SECONDS)
def draft(job: DraftJob) -> Iterator[Any]:
    """Yield the reports of `draft_pairs`."""
    try:
        yield from draft_pairs(GpuModel.get(), job.behavior, should_stop=job.stop_file.exists, **job.options)
    except SteeringError as error:
        yield Failure(str(error))
