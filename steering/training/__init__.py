"""Training steering vectors: one file per method, one way to start them all."""

from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from steering.errors import SteeringError
from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs
from steering.runtime.distributed import ALONE, Processes
from steering.training.checkpoints import Checkpoint, checkpoint_path, run_key
from steering.training.methods.bipo import train as bipo
from steering.training.methods.bipo.config import BiPOSettings
from steering.training.progress import Progress
from steering.vectors.vector import SteeringVector

METHODS = {"bipo": (bipo.run, BiPOSettings)}
STEPWISE = {"bipo"}
"""Methods that take many steps: they keep checkpoints and share their work out over processes."""

__all__ = ["METHODS", "Progress", "default_checkpoint", "train", "training_run"]


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
    **settings: Any,
) -> Iterator[Progress]:
    """Train step by step: yields a report after each; the last one is `done` and carries the vector.

    Args:
        should_stop: once True, training ends with the best vector so far.
        checkpoint: file that keeps what the run has come to (see `default_checkpoint`). If it is there, the run goes on
            from it, to the vector that it would have reached without the interruption; a finished run deletes it.
        fresh: begin anew even so.
        processes: those that train this vector together; each must make the same call.

    Raises SteeringError for an unknown method or setting, or a setting out of range.
    """
    chosen = _settings(method, settings)
    run = METHODS[method][0]
    if method not in STEPWISE:
        return run(model, pairs, held_out, chosen, should_stop)
    kept = Checkpoint(checkpoint, run_key(model, pairs, held_out, method, chosen)) if checkpoint else None
    if kept and fresh and processes.is_main:
        kept.discard()
    return run(model, pairs, held_out, chosen, should_stop, kept, processes)


def default_checkpoint(
    model: LanguageModel, pairs: Pairs, held_out: Pairs, method: str = "bipo", **settings: Any
) -> Path | None:
    """Where a run with these arguments keeps its checkpoint, in the user's data folder; None if it needs none.

    The same arguments give the same file, so that asking for the same again goes on where the last attempt ended.
    """
    chosen = _settings(method, settings)
    return checkpoint_path(run_key(model, pairs, held_out, method, chosen)) if method in STEPWISE else None


def _settings(method: str, settings: dict[str, Any]) -> Any:
    if method not in METHODS:
        raise SteeringError(f"There is no method {method!r}; choose one of: {', '.join(METHODS)}.")
    settings_class = METHODS[method][1]
    known = {field.name for field in fields(settings_class)}
    if unknown := sorted(set(settings) - known):
        raise SteeringError(f"{method} has no setting {unknown[0]!r}; it has: {', '.join(sorted(known))}.")
    return settings_class(**settings)


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
    """Train a steering vector.

    Args:
        pairs: preference pairs; without `held_out`, the share `holdout` of their prompts is kept aside to pick the best
            vector and to measure it.
        method: see `METHODS`; `settings` are that method's (for bipo: `BiPOSettings`, such as layer=14), and
            `checkpoint`, `fresh` and `processes` as `training_run` takes them.
        on_progress: hears every report; `should_stop`: once True, training ends with the best vector so far.
    """
    if held_out is None:
        pairs, held_out = pairs.split(holdout, settings.get("seed", 0))
    vector = None
    for progress in training_run(model, pairs, held_out, method, should_stop=should_stop, **settings):
        if on_progress:
            on_progress(progress)
        vector = progress.vector or vector
    return vector
