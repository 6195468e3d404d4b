"""ZeroGPU as the page sees it: the same calls as on its own machine, each done by a worker that has a GPU for a while.

The bundled model is small enough to write on a Space's CPU, without a queue and without a visitor's quota; there only
trainings go to the GPU. A larger model (STEERING_DEVICE=cuda) lies on the GPU, and everything that touches it does.
"""

import copy
import dataclasses
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from torch import nn

from steering.drafting import DraftProgress
from steering.errors import SteeringError
from steering.generation.next_token import NextToken
from steering.generation.results import Column
from steering.generation.sampling import Sampling
from steering.interface.zero_gpu import workers
from steering.interface.zero_gpu.workers import Failure, GpuModel
from steering.intervention.additions import Setting
from steering.limits import NO_LIMITS, Limits
from steering.models.chat_template import DEFAULT_SYSTEM_PROMPT, Conversation
from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs
from steering.training.pipeline import NothingTrained
from steering.training.progress import Progress
from steering.vectors.vector import SteeringVector

TRAINING_SECONDS = workers.MOST_SECONDS - workers.FIRST_SECONDS
"""Of one training: what fits into one request for a GPU."""

Update = TypeVar("Update")


class ZeroGpu:
    """The page's door to the GPU.

    Args:
        model: loaded on the CPU. transformers' loading threads do not see the CUDA that ZeroGPU emulates, so it is
            moved afterwards.
        writes: whether answers are written on the GPU, too; else the model stays on the CPU, and trainings use a copy.
        device: where the GPU's model goes; another one than `cuda` for tests.

    Attributes:
        model: what the page is to use.
    """

    def __init__(self, model: LanguageModel, *, writes: bool, device: str = "cuda") -> None:
        self.writes = writes
        self.model = model if not writes else _moved(model, device)
        GpuModel.model = self.model if writes else _moved(_copied(model), device)

    def run_training(
        self,
        model: LanguageModel,
        pairs: Pairs,
        held_out: Pairs,
        method: str = "bipo",
        *,
        name: str = "",
        behavior: str = "",
        save: Callable[[SteeringVector], object] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        checkpoint: Path | None = None,
        fresh: bool = False,
        limits: Limits = NO_LIMITS,
        **settings: Any,
    ) -> Generator[Progress, None, None]:
        """As `pipeline.run`, in a worker; the vector is saved here, and `model` is the worker's own."""
        seconds = min(TRAINING_SECONDS, limits.training_seconds or TRAINING_SECONDS)
        limits = dataclasses.replace(limits, training_seconds=seconds)
        last = Progress("preparing")
        with _stop_file() as stop_file:
            job = workers.TrainingJob(
                pairs, held_out, method, name, behavior, settings, checkpoint, fresh, limits, stop_file
            )
            try:
                for last in _results(workers.train(job), lambda: _stop(stop_file, should_stop)):
                    if save and last.vector and last.stage in ("trained", "done"):
                        save(last.vector)
                    yield last
            except SteeringError:
                if last.stage == "preparing" and stop_file.exists():
                    raise NothingTrained(dataclasses.replace(last, stopped="asked")) from None
                raise

    def draft(
        self, behavior: str, *, should_stop: Callable[[], bool] = lambda: False, **options: Any
    ) -> Iterator[DraftProgress]:
        """As `draft_pairs` with the GPU's model, in a worker."""
        with _stop_file() as stop_file:
            job = workers.DraftJob(behavior, options, stop_file)
            yield from _results(workers.draft(job), lambda: _stop(stop_file, should_stop))


class GpuServer:
    """Answers by a model on the GPU: as `DecodeServer`, each request in a worker of its own."""

    def __init__(self, limits: Limits = NO_LIMITS) -> None:
        self.limits = limits

    def stream(
        self,
        prompt: str,
        columns: Sequence[Setting] = ({},),
        *,
        should_stop: Callable[[], bool] = lambda: False,
        sampling: Sampling | None = None,
        system: str = DEFAULT_SYSTEM_PROMPT,
        before: Conversation = (),
        histories: Sequence[Conversation] | None = None,
        trace: bool = False,
        **sampling_options: Any,
    ) -> Iterator[list[Column] | int]:
        """Yield all columns as they are written; see `DecodeServer.stream`."""
        sampling = sampling or Sampling(**sampling_options)
        befores = [before] * len(columns) if histories is None else list(histories)
        for each in befores:
            texts = (text for _, text in each)
            self.limits.check_request(len(columns), sampling.max_new_tokens, prompt, system, texts)
        items = [list(setting.items()) for setting in columns]
        job = workers.GenerationJob(prompt, items, system, befores, sampling, trace)
        return self._written(job, columns, should_stop)

    def _written(
        self, job: workers.GenerationJob, settings: Sequence[Setting], should_stop: Callable[[], bool]
    ) -> Iterator[list[Column]]:
        with closing(_results(workers.generate(job), lambda: None)) as shots:
            for shot in shots:
                if should_stop():
                    return
                yield [dataclasses.replace(c, setting=setting) for c, setting in zip(shot, settings, strict=True)]


class GpuPreview:
    """Next tokens by a model on the GPU: as `Preview`, each question in a worker of its own."""

    def __init__(self, limits: Limits = NO_LIMITS) -> None:
        self.limits = limits

    def next_token(
        self,
        prompt: str,
        setting: Setting,
        *,
        system: str = DEFAULT_SYSTEM_PROMPT,
        before: Conversation = (),
        top: int = 10,
    ) -> NextToken:
        """Return the most probable next tokens; see `Preview.next_token`."""
        self.limits.check_request(1, 1, prompt, system, (text for _, text in before))
        job = workers.PreviewJob(prompt, list(setting.items()), system, tuple(before), top)
        (answer,) = _results(workers.preview(job), lambda: None)
        return answer


def _results(updates: Iterator[Update | Failure], between: Callable[[], None]) -> Generator[Update, None, None]:
    """Pass on what a worker yields, and call `between` after each; a failure is raised as SteeringError."""
    try:
        for update in updates:
            if isinstance(update, Failure):
                raise SteeringError(update.sentence)
            yield update
            between()
    finally:
        if isinstance(updates, Generator):
            updates.close()


@contextmanager
def _stop_file() -> Iterator[Path]:
    """Yield a path where nothing is yet."""
    with tempfile.TemporaryDirectory(prefix="steering-gpu-") as folder:
        yield Path(folder) / "stop"


def _stop(stop_file: Path, should_stop: Callable[[], bool]) -> None:
    if not stop_file.exists() and should_stop():
        stop_file.touch()


def _copied(model: LanguageModel) -> LanguageModel:
    network = copy.deepcopy(model.network)
    blocks = cast(nn.ModuleList, network.get_submodule(model.blocks_path))
    return dataclasses.replace(model, network=network, blocks=blocks)


def _moved(model: LanguageModel, device: str) -> LanguageModel:
    model.network.to(device)  # type: ignore[arg-type]
    return model
