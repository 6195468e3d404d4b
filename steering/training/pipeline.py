"""From preference pairs to a saved, measured vector: the one place that trains, measures and saves.

The page, the command line and the API iterate over `run`; Python programs that want a vector only call `train`.
"""

import logging
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from steering.errors import SteeringError
from steering.evaluation.pair_margins import PairMargin, pair_margins
from steering.evaluation.preference import (
    BATCH,
    DEFAULT_MULTIPLIERS,
    PreferenceResult,
    additions_at,
    answer_lengths,
    preference_logps,
    preference_results,
)
from steering.limits import NO_LIMITS, Limits
from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs, PreferencePair
from steering.pairs.tokenization import encode_pairs, readable_pairs
from steering.runtime.distributed import ALONE, Processes
from steering.scoring.scorer import PairScorer
from steering.training.checkpoints import Checkpoint, checkpoint_path, run_key
from steering.training.progress import HeldOutScorer, Progress
from steering.training.registry import RunContext, method_named
from steering.vectors.vector import SteeringVector

logger = logging.getLogger(__name__)


class NothingTrained(SteeringError):
    """A run ended before its first step, so there is no vector.

    Attributes:
        stopped: why, as in `Progress.stopped`.
    """

    def __init__(self, progress: Progress) -> None:
        super().__init__(progress.note or "The training was stopped before its first step, so there is no vector.")
        self.stopped = progress.stopped


def run(
    model: LanguageModel,
    pairs: Pairs,
    held_out: Pairs,
    method: str = "bipo",
    *,
    name: str = "",
    behavior: str = "",
    save: Callable[[SteeringVector], object] | None = None,
    multipliers: Sequence[float] = DEFAULT_MULTIPLIERS,
    should_stop: Callable[[], bool] = lambda: False,
    checkpoint: Path | None = None,
    fresh: bool = False,
    processes: Processes = ALONE,
    limits: Limits = NO_LIMITS,
    **settings: Any,
) -> Generator[Progress, None, None]:
    """Train a vector, save it, measure it on the held-out pairs and save it again; report each step of that.

    Yields, by `Progress.stage`:
        `preparing` and `training` as the method reports them, see `training_run`;
        `trained` once: its vector has its name and was saved, so that it is not lost, whatever happens from here on;
        `measuring` after each batch of held-out pairs;
        `done` at last, with the steps, seconds and note of the training. Its vector, the same object, has
        `metrics["held_out"]` if there were held-out pairs.

    Args:
        name, behavior: of the vector.
        save: called with the vector before `trained`, and again once its held-out results are in it; of several
            processes, on the main one only.
        multipliers: those at which it is measured.
        should_stop, checkpoint, fresh, processes, limits, settings: as `training_run` takes them.

    Raises `NothingTrained` if it ended before its first step; SteeringError for settings or pairs that cannot be
    trained on, and whatever `save` raises.
    """
    reports = training_run(
        model,
        pairs,
        held_out,
        method,
        should_stop=should_stop,
        checkpoint=checkpoint,
        fresh=fresh,
        processes=processes,
        limits=limits,
        **settings,
    )

    def save_on_main(vector: SteeringVector) -> None:
        if save and processes.is_main:
            save(vector)

    with closing(reports):
        for progress in reports:
            if progress.stage == "done":
                break
            yield progress
    if not progress.step or progress.vector is None:
        raise NothingTrained(progress)
    vector = replace(progress.vector, name=name or progress.vector.name, behavior=behavior or progress.vector.behavior)
    scorer = progress.held_out_scorer
    progress = replace(progress, stage="trained", vector=vector, held_out_scorer=None)
    processes.together(lambda: save_on_main(vector))
    yield progress
    margins: tuple[PairMargin, ...] = ()
    if held_out:
        results, margins = yield from _measured(model, vector, held_out, multipliers, scorer, processes)
        vector.metrics = {**vector.metrics, "held_out": [result.as_dict() for result in results]}
        processes.together(lambda: save_on_main(vector))
    yield replace(progress, stage="done", pair_margins=margins)


def _measured(
    model: LanguageModel,
    vector: SteeringVector,
    held_out: Pairs,
    multipliers: Sequence[float],
    own: HeldOutScorer | None,
    processes: Processes,
) -> Generator[Progress, None, tuple[list[PreferenceResult], tuple[PairMargin, ...]]]:
    """Measure the vector, a report after each batch; return the results on all held-out pairs, and on each."""
    if own is None:
        logger.info("The method offers no scorer, so the held-out pairs are scored by a new one.")
        held_out, encoded = encode_pairs(model, held_out)
        scorer = PairScorer(model, encoded, min(vector.layers), scope=vector.token_scope)
        own = HeldOutScorer(scorer, range(len(encoded)))
    size = BATCH * processes.count
    groups = [own.indices[start : start + size] for start in range(0, len(own.indices), size)]
    additions = additions_at(model, vector, multipliers)
    rows = list(additions.values())
    logps = []
    for done, group in enumerate(groups, start=1):
        logps.append(preference_logps(own.scorer, rows, indices=group, processes=processes))
        yield Progress("measuring", step=done, total_steps=len(groups), vector=vector)
    together = torch.cat(logps, dim=1)
    lengths = answer_lengths(own.scorer, own.indices)
    return preference_results(together, list(additions), lengths), pair_margins(together, list(additions), held_out)


def training_run(
    model: LanguageModel,
    pairs: Pairs,
    held_out: Pairs,
    method: str = "bipo",
    *,
    should_stop: Callable[[], bool] = lambda: False,
    checkpoint: Path | None = None,
    fresh: bool = False,
    processes: Processes = ALONE,
    limits: Limits = NO_LIMITS,
    **settings: Any,
) -> Generator[Progress, None, None]:
    """Train step by step, without saving or measuring: a report after each step; `done` is last and has the vector.

    Args:
        should_stop: once True, training ends with the best vector so far.
        checkpoint: file for the run's state (see `default_checkpoint`). If it is there, the run goes on from it, to the
            vector that it would have reached without the interruption; a finished run deletes it.
        fresh: start from scratch even if the file is there.
        processes: those that train this vector together; each must make the same call.
        limits: what may be asked for. When `training_seconds` have passed, training ends with the best vector so far.
        settings: the method's, such as layer=14.

    Raises SteeringError for an unknown method or setting, a setting out of range, or more than the limits allow.
    """
    chosen = method_named(method)
    config = chosen.config(settings)
    limits.check_pairs(len(pairs) + len(held_out), max(map(_characters, (*pairs, *held_out)), default=0))
    limits.check_batch_size(getattr(config, "batch_size", None))
    file = None
    if checkpoint and chosen.resumes:
        file = Checkpoint(checkpoint, run_key(model, pairs, held_out, method, config))
        if fresh and processes.is_main:
            file.discard()
    deadline = Deadline(should_stop, limits.training_seconds)
    return _with_deadline(chosen.run(model, pairs, held_out, config, RunContext(deadline, file, processes)), deadline)


class Deadline:
    """A `should_stop` that also says stop once the seconds of a run are over, counted from its first report.

    Attributes:
        passed: whether it was the time that ended the run.
    """

    def __init__(self, should_stop: Callable[[], bool], seconds: float | None) -> None:
        self._should_stop, self.seconds = should_stop, seconds
        self.began = time.monotonic()
        self.passed = False

    def __call__(self) -> bool:
        """Tell whether to stop."""
        if self._should_stop():
            return True
        self.passed = self.seconds is not None and time.monotonic() - self.began >= self.seconds
        return self.passed


def _with_deadline(reports: Generator[Progress, None, None], deadline: Deadline) -> Generator[Progress, None, None]:
    """Pass the reports of a run on; one that the time ended says so."""
    deadline.began = time.monotonic()
    with closing(reports):
        for progress in reports:
            if deadline.passed and progress.stopped == "asked":
                note = f"The time limit of {deadline.seconds:.0f} seconds was reached; the best vector so far was kept."
                if not progress.step:
                    note = f"The time limit of {deadline.seconds:.0f} seconds was reached before the first step."
                progress = replace(progress, stopped="time", note=" ".join(filter(None, [progress.note, note])))
            yield progress


def _characters(pair: PreferencePair) -> int:
    """Count the characters of a pair's texts."""
    texts = (pair.prompt, pair.chosen, pair.rejected, *(turn.content for turn in pair.before))
    return sum(map(len, texts))


def default_checkpoint(
    model: LanguageModel,
    pairs: Pairs,
    held_out: Pairs,
    method: str = "bipo",
    *,
    folder: Path | None = None,
    **settings: Any,
) -> Path | None:
    """Where a run with these arguments writes its checkpoint; None if it needs none.

    In `folder`, by default the one of the user's data folder.

    The same arguments give the same file, so that asking for the same again goes on where the last attempt ended.
    """
    chosen = method_named(method)
    config = chosen.config(settings)
    key = run_key(model, pairs, held_out, method, config)
    return checkpoint_path(key, folder) if chosen.resumes else None


def train(
    model: LanguageModel,
    pairs: Pairs,
    method: str = "bipo",
    *,
    held_out: Pairs | None = None,
    holdout: float = 0.2,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    **settings: Any,
) -> SteeringVector:
    """Train a steering vector, without saving or measuring it.

    Args:
        pairs: preference pairs; without `held_out`, the share `holdout` of their prompts is set aside to pick the best
            vector.
        method: a name among `registry.methods()`; `settings` are that method's (for bipo: `BiPOConfig`, such as
            layer=14), and `checkpoint`, `fresh` and `processes` as `training_run` takes them.
        on_progress: called with every report; `should_stop`: once True, training ends with the best vector so far.

    Raises `NothingTrained` if it was stopped before there was any vector, and what `training_run` raises.

    Example:
        vector = train(model, read_pairs("pairs.csv"), layer=14, on_progress=lambda report: print(report.loss))
    """
    if held_out is None:
        pairs, held_out = readable_pairs(model, pairs).split(holdout, settings.get("seed", 0))
    vector = None
    for progress in training_run(model, pairs, held_out, method, should_stop=should_stop, **settings):
        if on_progress:
            on_progress(progress)
        vector = progress.vector or vector
    if vector is None:
        raise NothingTrained(progress)
    return vector
