"""Make the shipped behaviors for a model that no vector fits: mean-difference drafts at once, then trained vectors.

A draft takes seconds, so that there is something to steer with; training (BiPO, its default preset) then makes a better
vector of the same pairs and puts it in the draft's place. Both lie on the shelf under one name.
"""

import logging
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from steering.evaluation.preference import evaluate
from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs, read_pairs
from steering.pairs.tokenization import readable_pairs
from steering.training.pipeline import run
from steering.training.progress import Progress
from steering.training.registry import method_named
from steering.training.starter_drafts import Starter, draft_vector, starter_of, starters, vector_texts
from steering.vectors.entry import Entry
from steering.vectors.library import Library, NotOnShelf
from steering.vectors.vector import SteeringVector

HOLDOUT = 0.2
"""Share of the pairs that a trained vector is measured on, as the command line's default."""
BETWEEN_SECONDS = 1.0
"""Between two trainings, in which the lock is free: twice the time after which a waiting visitor's training asks again
(`interface.train.run_step.POLL_SECONDS`)."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StarterProgress:
    """One report of `make_starters`.

    Attributes:
        stage: `drafting`, `waiting` for another training to end, `training`, or `done`.
        key: of the behavior at work; empty when done.
        finished, total: behaviors done in this stage, and in all.
        share: how far the behavior at work is, from 0 to 1.
        seconds_left: estimated to the end of all trainings; None while nothing is known.
        saved: the vector that was just put on the shelf.
        note: something the user should know, in a sentence.
    """

    stage: Literal["drafting", "waiting", "training", "done"]
    key: str = ""
    finished: int = 0
    total: int = 0
    share: float = 0.0
    seconds_left: float | None = None
    saved: Entry | None = None
    note: str = ""


class MachineLock(Protocol):
    """What lets one training work at a time, such as a `threading.Lock`."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it; return whether it was free in time (seconds)."""
        ...

    def release(self) -> None:
        """Give it back."""
        ...


def make_starters(
    model: LanguageModel,
    library: Library,
    *,
    lock: MachineLock | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[StarterProgress]:
    """Put drafts of all shipped behaviors on the shelf, then train one after the other in their place.

    What is on the shelf for this model already is not made again, so that a stopped run goes on where it was. A draft
    that was deleted meanwhile is not trained.

    Args:
        lock: held during each training, so that two trainings do not slow each other down.

    Raises SteeringError for an example set or a shelf that cannot be used.
    """
    behaviors = starters()
    on_shelf = {key: entry for entry in library.entries() if (key := _key_for(model, entry.vector))}
    missing = [starter for starter in behaviors if starter.key not in on_shelf]
    for place, starter in enumerate(missing):
        yield StarterProgress("drafting", starter.key, place, len(missing))
        vector = draft_vector(model, starter, should_stop)
        if vector is None:
            return
        on_shelf[starter.key] = library.add(vector)
        yield StarterProgress("drafting", starter.key, place + 1, len(missing), saved=on_shelf[starter.key])
    drafts = [s for s in behaviors if starter_of(on_shelf[s.key].vector)[1] == "draft"]
    run_seconds: float | None = None  # of one behavior; the sets are alike
    for place, starter in enumerate(drafts):
        report = StarterProgress("waiting", starter.key, place, len(drafts))
        while lock is not None and not lock.acquire(timeout=0.5):
            if should_stop():
                return
            yield report
        try:
            if should_stop():
                return
            began = time.monotonic()
            yield from _train(model, library, starter, on_shelf[starter.key], report, run_seconds, should_stop)
            run_seconds = time.monotonic() - began
        finally:
            if lock is not None:
                lock.release()
        if should_stop():
            return
        time.sleep(BETWEEN_SECONDS if lock is not None else 0)
    yield StarterProgress("done", finished=len(drafts), total=len(drafts))


def _train(
    model: LanguageModel,
    library: Library,
    starter: Starter,
    draft: Entry,
    report: StarterProgress,
    run_seconds: float | None,
    should_stop: Callable[[], bool],
) -> Generator[StarterProgress, None, None]:
    """Train one behavior and put its vector in the draft's place, unless it does not move the held-out pairs.

    Args:
        report: what the reports have in common; run_seconds: what the behavior before took.
    """
    method = method_named("bipo")
    settings = method.preset_settings(method.default_preset)
    pairs, held_out = readable_pairs(model, read_pairs(starter.pairs_file)).split(HOLDOUT, 0)
    later = report.total - report.finished - 1  # behaviors after this one
    if run_seconds is None and method.estimate is not None:
        run_seconds = method.estimate(model, pairs, held_out, method.config(settings))
    report = replace(report, stage="training", seconds_left=run_seconds and run_seconds * (later + 1))
    yield report
    progress = Progress("preparing")
    with closing(run(model, pairs, held_out, "bipo", should_stop=should_stop, **settings)) as reports:
        for progress in reports:
            if progress.stage == "training" and progress.total_steps:
                share, left = progress.step / progress.total_steps, progress.seconds_left
                if left is not None and share > 0:
                    total = (run_seconds or progress.seconds + left) * later + left
                    yield replace(report, share=share, seconds_left=total)
            if should_stop():
                return  # half a training is no better than the draft
    vector = progress.vector
    done = replace(report, finished=report.finished + 1, share=0.0)
    if vector is None or not _moves(vector):
        logger.info("%s: training did not move the held-out pairs, so the draft stays", starter.key)
        yield replace(done, note=f"The draft of {starter.key} stays: training did not improve on it.")
        return
    vector = _as_strong_as(draft.vector, vector, model, held_out)
    vector = replace(vector, **vector_texts(model, starter, "trained"))
    try:
        yield replace(done, saved=library.replace(draft.slug, vector))
    except NotOnShelf:
        logger.info("%s was taken off the shelf while it was trained", draft.slug)
        yield done


def _as_strong_as(
    draft: SteeringVector, trained: SteeringVector, model: LanguageModel, held_out: Pairs
) -> SteeringVector:
    """Scale the trained vector up until it moves the held-out pairs as far as the draft, and measure it again.

    A short training may end far below the dose that the model bears (Qwen2.5-Coder-0.5B: 40 % of the draft's norm), and
    the slider would do less than before. It is scaled to no more than the draft's norm, and never down.
    """
    results = evaluate(model, draft, held_out, (-1.0, 1.0))
    reached = [r for r in trained.metrics.get("held_out", []) if abs(r["multiplier"]) == 1]
    wanted = sum(result.multiplier * result.preference_margin for result in results)
    span = sum(result["multiplier"] * result["preference_margin"] for result in reached)
    scale = min(wanted / span, draft.norm / trained.norm) if span > 0 and trained.norm > 0 else 1.0
    if scale <= 1:
        return trained
    directions = {layer: scale * direction for layer, direction in trained.directions.items()}
    scaled = replace(trained, directions=directions, method={**trained.method, "scale": scale})
    measured = [result.as_dict() for result in evaluate(model, scaled, held_out)]
    return replace(scaled, metrics={**trained.metrics, "held_out": measured})


def _moves(vector: SteeringVector) -> bool:
    """Tell whether the vector makes chosen answers likelier on held-out pairs at +1, as far as that was measured."""
    margins = [r["preference_margin"] for r in vector.metrics.get("held_out", []) if r["multiplier"] == 1]
    return all(margin > 0 for margin in margins)


def _key_for(model: LanguageModel, vector: SteeringVector) -> str:
    """Return the key of a starter vector made for exactly this model; empty for any other vector."""
    return starter_of(vector)[0] if vector.model_fingerprint == model.fingerprint else ""
