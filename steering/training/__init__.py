"""Training steering vectors: one file per method, one way to start them all."""

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

from steering.errors import SteeringError
from steering.models import LanguageModel
from steering.pairs import Pairs
from steering.training import bipo
from steering.training.progress import Progress
from steering.vectors import SteeringVector

METHODS = {"bipo": (bipo.run, bipo.BiPOSettings)}

__all__ = ["METHODS", "Progress", "train", "training_run"]


def training_run(
    model: LanguageModel,
    pairs: Pairs,
    held_out: Pairs,
    method: str = "bipo",
    *,
    should_stop: Callable[[], bool] = lambda: False,
    **settings: Any,
) -> Iterator[Progress]:
    """Train step by step: yields a report after each; the last one is `done` and carries the vector.

    Raises SteeringError for an unknown method or setting, or a setting out of range.
    """
    if method not in METHODS:
        raise SteeringError(f"There is no method {method!r}; choose one of: {', '.join(METHODS)}.")
    run, settings_class = METHODS[method]
    known = {field.name for field in fields(settings_class)}
    if unknown := sorted(set(settings) - known):
        raise SteeringError(f"{method} has no setting {unknown[0]!r}; it has: {', '.join(sorted(known))}.")
    return run(model, pairs, held_out, settings_class(**settings), should_stop)


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
        method: see `METHODS`; `settings` are that method's (for bipo: `BiPOSettings`, such as layer=14).
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
