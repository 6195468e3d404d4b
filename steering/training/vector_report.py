"""One vector's evaluation as people ask for it: on prompts that it was not trained on, with all baselines."""

from collections.abc import Callable
from dataclasses import replace
from math import isnan
from typing import Any

from steering.errors import SteeringError
from steering.evaluation.answers import UNTOUCHED, Arm
from steering.evaluation.baselines import MEAN_DIFFERENCE
from steering.evaluation.measures.dose import residual_norm
from steering.evaluation.progress import EvaluationProgress
from steering.evaluation.prompts import OPEN, distinct_prompts, evenly, open_prompts
from steering.evaluation.run import Evaluation
from steering.evaluation.settings import PROMPTS, EvaluationSettings
from steering.evaluation.store import RunFolder
from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs
from steering.training.pipeline import train
from steering.vectors.vector import SteeringVector

CONTRAST_PAIRS = 48
"""Of the mean difference. Directions from 12 pairs and 12 others have a cosine of 0.85 to 0.98, so more change
little."""


def trained_and_held_out(vector: SteeringVector, pairs: Pairs) -> tuple[Pairs, Pairs]:
    """Find out which of the pairs the vector was trained on: (those, the others).

    The split is drawn again and compared with the hash in the vector's file. Where it is not found, all pairs count as
    held out: they are not those that the vector was trained on, or were changed since.
    """
    known, held = vector.pairs.get("sha256"), vector.pairs.get("held_out")
    trained = vector.pairs.get("train")
    if isinstance(held, int) and isinstance(trained, int) and held + trained > 0:
        seed = vector.method.get("seed", 0)
        for share in dict.fromkeys((held / (held + trained), round(held / (held + trained), 1), 0.2)):
            try:
                training, rest = pairs.split(share, seed if isinstance(seed, int) else 0)
            except SteeringError:
                continue
            if rest and training.sha256 == known:
                return training, rest
    if pairs.sha256 == known:
        return pairs, pairs[:0]
    return pairs[:0], pairs


def prompts_for(vector: SteeringVector, pairs: Pairs, prompt_set: str, count: int = PROMPTS) -> list[str]:
    """Choose prompts that the vector was not trained on.

    Args:
        prompt_set: `pairs` takes those of held-out pairs, filled up with open prompts; `open` the shipped open prompts.

    Raises SteeringError for another set.
    """
    if prompt_set not in ("pairs", OPEN):
        raise SteeringError(f"There is no prompt set {prompt_set!r}; choose one of: pairs, {OPEN}.")
    _, held_out = trained_and_held_out(vector, pairs)
    own = evenly(distinct_prompts(held_out), count) if prompt_set == "pairs" else []
    trained_on = {pair.prompt for pair in pairs} - set(own)
    rest = [prompt for prompt in open_prompts() if prompt not in trained_on and prompt not in own]
    return [*own, *rest[: count - len(own)]]


def evaluation_of(
    model: LanguageModel,
    vector: SteeringVector,
    pairs: Pairs,
    settings: EvaluationSettings,
    *,
    folder: RunFolder | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Prepare an evaluation with the mean difference of the same pairs among its baselines.

    Args:
        folder: where it is kept, to go on there if it is stopped; None keeps nothing.
    """
    training, _ = trained_and_held_out(vector, pairs)
    contrast = (training or pairs)[:CONTRAST_PAIRS]

    def mean_difference() -> SteeringVector:
        layers = list(vector.layers)
        return train(
            model,
            contrast,
            method="caa",
            held_out=Pairs.of([]),
            layer=layers if len(layers) > 1 else layers[0],
            token_scope=vector.token_scope,
            should_stop=should_stop,
        )

    return Evaluation(
        model,
        vector,
        pairs,
        settings,
        folder=folder,
        comparisons={MEAN_DIFFERENCE: mean_difference},
        residual_norm=residual_norm(model, vector, pairs),
        should_stop=should_stop,
    )


def with_findings(vector: SteeringVector, last: EvaluationProgress, name: str) -> SteeringVector:
    """Return a copy of the vector that carries what was found: useful range, judge, curve and verdict.

    The recommended multiplier becomes its default. A vector without a useful range keeps its default.
    """
    summary, judge = last.summary, last.judge
    if summary is None or judge is None:
        raise SteeringError("The evaluation has not come far enough to say anything of the vector.")
    low, high = summary.useful_range
    curve = [
        _curve_point(last, arm)
        for arm in sorted(last.points, key=lambda a: a.multiplier)
        if arm.name == name or arm == UNTOUCHED
    ]
    found: dict[str, Any] = {
        "useful_range": [low, high],
        "broke_at": list(summary.broke_at),
        "judge": {"name": judge.name, "accuracy": judge.accuracy},
        "recommended": summary.recommended,
        "unit_multiplier": summary.unit_multiplier,
        "random_rank": list(summary.random_rank) if summary.random_rank else None,
        "effective": summary.effective,
        "curve": curve,
    }
    default = summary.recommended if high else vector.default_multiplier
    return replace(vector, metrics={**vector.metrics, **found}, default_multiplier=default)


def _curve_point(last: EvaluationProgress, arm: Arm) -> dict[str, float | None]:
    point = last.points[arm]
    numbers = {"multiplier": arm.multiplier, "broken": point.broken, "kl_p95": point.kl_p95}
    if point.utility is not None:
        numbers["utility"] = point.utility
    for score, estimate in point.scores.items():
        numbers |= {score: estimate.mean, f"{score}_low": estimate.low, f"{score}_high": estimate.high}
    return {key: None if value is None or isnan(value) else round(float(value), 4) for key, value in numbers.items()}
