"""What a vector does to generated text: behavior by a judge, fluency, relevance, their composite, and KL divergence."""

from collections.abc import Callable, Sequence

from steering.evaluation.answers import UNTOUCHED, Arm
from steering.evaluation.judges.checks import keeps_script
from steering.evaluation.measures.registry import Measure, MeasureContext
from steering.evaluation.points import Point


def _points(context: MeasureContext) -> list[Point]:
    points, name = context.generated.points(), context.generated.name
    return [points[Arm(name, float(m)) if m else UNTOUCHED] for m in context.multipliers]


def _numbers(read: Callable[[Point], dict[str, float]]) -> Callable[[MeasureContext], Sequence[dict[str, float]]]:
    return lambda context: [read(point) for point in _points(context)]


def _behavior(point: Point) -> dict[str, float]:
    score = point.scores["behavior"]
    return {
        "behavior_score": score.mean,
        "behavior_low": score.low,
        "behavior_high": score.high,
        "behavior_missing": point.missing,
    }


def _fluency(point: Point) -> dict[str, float]:
    nothing = float("nan")
    return {
        "fluency": point.mean("fluency"),
        "broken": point.broken,
        "perplexity": nothing if point.perplexity is None else point.perplexity,
        "repeated": nothing if point.repeated is None else point.repeated,
        "compression": nothing if point.compression is None else point.compression,
        "answer_tokens": point.tokens,
    }


def _fluency_of(context: MeasureContext) -> Sequence[dict[str, float]]:
    """Return the numbers of `_fluency`, and the share of answers in the script of their prompts."""
    rows, evaluation = [], context.generated
    for point in _points(context):
        answers = evaluation.writer.of(point.arm)
        kept = [keeps_script(answer.text, evaluation.settings.prompts[answer.prompt]) for answer in answers]
        rows.append({**_fluency(point), "language_kept": sum(kept) / len(kept)})
    return rows


def _kl(point: Point) -> dict[str, float]:
    if point.arm == UNTOUCHED:
        return {"kl": 0.0, "kl_p95": 0.0}
    return {"kl": point.mean("kl"), "kl_p95": float("nan") if point.kl_p95 is None else point.kl_p95}


MEASURES = (
    Measure(
        name="behavior",
        label="Behavior score",
        description="How much of the behavior a judge finds in what the model writes, 0 to 1, with the 95 % interval.",
        unit="",
        run=_numbers(_behavior),
    ),
    Measure(
        name="fluency",
        label="Fluency",
        description="How well the text reads, from 0 to 1; share of answers that broke down, the untouched model's "
        "perplexity, share of repeated 4-grams, compression ratio, length, and share in the script of the prompt.",
        unit="",
        run=_fluency_of,
    ),
    Measure(
        name="relevance",
        label="Relevance",
        description="How far the text belongs to its prompt, from 0 to 1 (as much as the untouched model's answers).",
        unit="",
        run=_numbers(lambda point: {"relevance": point.mean("relevance")}),
    ),
    Measure(
        name="composite",
        label="Composite",
        description="Harmonic mean of behavior, relevance and fluency, 0 to 2; below 0 the opposite is wanted.",
        unit="",
        run=_numbers(lambda point: {"composite": point.mean("composite")}),
    ),
    Measure(
        name="kl",
        label="KL divergence",
        description="Of the steered from the untouched model at each token written: mean and 95th percentile.",
        unit="nats",
        run=_numbers(_kl),
    ),
)
