"""How an evaluation looks: verdict, table of points, the answers by score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Self

import plotly.graph_objects as go

from steering.evaluation.answers import UNTOUCHED, Answer
from steering.evaluation.baselines import RANDOM, is_random
from steering.evaluation.curve_chart import curve_chart, curve_of, prompting_lines
from steering.evaluation.judges import JudgeCard
from steering.evaluation.points import Point
from steering.evaluation.progress import EvaluationProgress
from steering.evaluation.run import RANDOM_TOKENS
from steering.evaluation.settings import EvaluationSettings
from steering.evaluation.store import Answers, RunFolder
from steering.interface import html
from steering.vectors.vector import SteeringVector

MULTIPLIER, KL_UNITS = "multiplier", "KL units"
"""What the chart's axis counts."""
TOKENS_A_SECOND = 250
"""Of an evaluation with the bundled model on two cores of an AMD EPYC, judging included: 25,000 in 100 seconds."""
ANSWER_HEADS = ["behavior", "who", "multiplier", "fluency", "prompt", "answer"]
WHO = {
    "system prompt": "asked in the system prompt",
    "few-shot": "shown examples",
    "mean difference": "mean difference (CAA) at the same KL",
    UNTOUCHED.name: "untouched",
}
"""Words for arms; a vector has its own name."""
LEGEND = html.note(
    "Behavior: 0 the opposite, 1 the behavior, as a judge finds it in what is written. Fluency: 1 reads like the "
    "untouched model's text. KL: how far the next-token probabilities moved (at 1 KL unit its 95th percentile is 1 "
    "nat). Bands are 95 % intervals over the prompts."
)


@dataclass(frozen=True)
class Found:
    """What an evaluation has found, running or read from its folder.

    Attributes:
        name: of the vector; points: of all arms.
        judge: None before it is ready.
        sentences, useful_range, recommended, unit: of the summary; empty and None before there is one.
    """

    name: str
    points: Sequence[Point]
    judge: JudgeCard | None
    sentences: Sequence[str] = ()
    useful_range: tuple[float, float] = (0.0, 0.0)
    recommended: float | None = None
    unit: float | None = None

    @classmethod
    def so_far(cls, progress: EvaluationProgress, name: str) -> Self:
        """Take it from a report of a running evaluation."""
        points, summary = list(progress.points.values()), progress.summary
        if summary is None:
            return cls(name, points, progress.judge)
        ends, best, unit = summary.useful_range, summary.recommended, summary.unit_multiplier
        return cls(name, points, progress.judge, summary.sentences, ends, best, unit)

    @classmethod
    def kept(cls, folder: RunFolder) -> Self:
        """Read it from the folder of a finished evaluation; SteeringError for another."""
        results, facts = folder.results(), folder.facts()
        summary, judge = results["summary"], results["judge"]
        card = JudgeCard(str(judge["name"]), judge["accuracy"], int(judge["answers"]), tuple(judge["notes"]))
        low, high = summary["useful_range"]
        points = [Point.from_json(row) for row in results["points"]]
        unit, best = summary["unit_multiplier"], summary["recommended"]
        return cls(str(facts["vector"]["name"]), points, card, summary["sentences"], (low, high), best, unit)


def verdict(found: Found) -> str:
    """Render what was found so far, and how far the judge can be trusted."""
    if not found.sentences:
        return ""
    low, high = found.useful_range
    lines = "".join(f"<li>{escape(text)}</li>" for text in found.sentences)
    facts = ""
    if low or high:
        best = f", best at {html.signed(found.recommended)}" if found.recommended else ""
        facts = f"<p><b>Useful range {html.signed(low)} to {html.signed(high)}</b>{best}.</p>"
    return f"<div class='verdict'>{facts}<ul>{lines}</ul>{_judge(found.judge)}</div>"


def _judge(judge: JudgeCard | None) -> str:
    if judge is None:
        return ""
    known = (
        ""
        if judge.accuracy is None
        else f" It is right on {judge.accuracy:.0%} of {judge.answers} answers it had not seen."
    )
    return html.note(" ".join([f"Judge: {judge.name}.{known}", *judge.notes]))


def chart(found: Found) -> go.Figure:
    """Draw the curve so far."""
    rows = [point.as_json() for point in found.points]
    return curve_chart(
        {found.name: curve_of(rows, found.name)},
        prompting_lines(rows),
        found.useful_range,
        found.recommended if any(found.useful_range) else None,
    )


@dataclass(frozen=True)
class Curve:
    """A curve that can be drawn beside others.

    Attributes:
        name: of the vector; rows: its points, as `curve_chart` takes them.
        unit: multiplier at which the 95th percentile of the KL divergence is 1 nat; None if it is not known.
        alone: the chart of this curve by itself, with useful range and baselines.
    """

    name: str
    rows: Sequence[Mapping[str, Any]]
    unit: float | None
    alone: go.Figure | None


def curve_found(found: Found) -> Curve:
    """Return the curve of an evaluation."""
    rows = [point.as_json() for point in found.points]
    return Curve(found.name, curve_of(rows, found.name), found.unit, chart(found))


def stored_curve(vector: SteeringVector) -> Curve | None:
    """Return the curve in a vector's file; None where there is none, or one that cannot be read."""
    rows, unit = _stored(vector), vector.metrics.get("unit_multiplier")
    try:
        low, high = (float(end) for end in vector.metrics["useful_range"])
    except (KeyError, TypeError, ValueError):  # a file of somebody else's making
        return None
    if not rows:
        return None
    alone = curve_chart({vector.name: rows}, None, (low, high), vector.default_multiplier)
    return Curve(vector.name, rows, float(unit) if isinstance(unit, int | float) else None, alone)


def comparison(curves: Sequence[Curve], axis: str) -> go.Figure:
    """Draw curves together, over multipliers or over KL units; on the latter those without a unit are left out."""
    if axis != KL_UNITS:
        return curve_chart({curve.name: curve.rows for curve in curves})
    drawn = {
        curve.name: [{**row, "multiplier": float(row["multiplier"]) / curve.unit} for row in curve.rows]
        for curve in curves
        if curve.unit and curve.unit > 0
    }
    return curve_chart(drawn, x_title="multiplier in KL units")


def _stored(vector: SteeringVector) -> list[dict[str, Any]] | None:
    """Read the curve in a vector's file; None where there is none, or one that cannot be read."""
    scores = ("behavior", "fluency", "relevance", "kl")
    try:
        return [
            {"multiplier": float(point["multiplier"]), "utility": point.get("utility")}
            | {score: _estimate(point, score) for score in scores}
            for point in vector.metrics["curve"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError):  # a file of somebody else's making
        return None


def _estimate(point: Mapping[str, Any], score: str) -> dict[str, float | None]:
    """Return a score of a stored point with its interval, which files of earlier versions lack."""
    mean = point.get(score)
    if mean is None:
        return dict.fromkeys(("mean", "low", "high"))
    ends = {end: point.get(f"{score}_{end}") for end in ("low", "high")}
    return {"mean": float(mean), **{end: float(mean if value is None else value) for end, value in ends.items()}}


def cost(count: int, tokens: int, random_directions: int, compared: Sequence[str]) -> str:
    """Say how much an evaluation writes and about how long that takes."""
    wanted = EvaluationSettings(("", ""), baselines=tuple(compared), random_directions=random_directions)
    directions = 2 * random_directions * ((count + 1) // 2) if RANDOM in compared else 0
    answers = wanted.answers_wanted(1) - (2 * random_directions if RANDOM in compared else 0)
    total = answers * count // 2 * tokens + directions * min(tokens, RANDOM_TOKENS)
    number = answers * count // 2 + directions
    return html.note(f"{number:,} answers: about {html.duration(total / TOKENS_A_SECOND)} on two CPU cores.")


def points_table(found: Found) -> str:
    """Render the points, a line each: the vector's by multiplier, then the baselines."""
    name = found.name
    points = sorted(
        found.points,
        key=lambda p: (
            p.arm.name not in (name, UNTOUCHED.name),
            p.arm.name if p.arm != UNTOUCHED else name,
            p.arm.multiplier,
        ),
    )
    lines = []
    for point in points:
        own = point.arm.name == name or point.arm == UNTOUCHED
        who = (
            html.signed(point.arm.multiplier)
            if own
            else f"{WHO.get(point.arm.name, point.arm.name)}{_side(point.arm.multiplier)}"
        )
        cells = "".join(
            f"<td>{_number(point.mean(score))}</td>"
            for score in ("behavior", "fluency", "relevance", "composite", "kl")
        )
        missing = f" ({point.missing} not judged)" if point.missing else ""
        lines.append(f"<tr><th scope='row'>{escape(who)}{missing}</th>{cells}<td>{point.broken:.0%}</td></tr>")
    heads = "".join(f"<th>{head}</th>" for head in ("behavior", "fluency", "relevance", "composite", "KL", "broken"))
    count = max((point.answers for point in points), default=0)
    return (
        f"<table class='results'><caption>{escape(name)} by multiplier, and what it is compared with ({count} prompts)"
        f"</caption><thead><tr><th></th>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )


def _side(multiplier: float) -> str:
    return " for the opposite" if multiplier < 0 else ""


def _number(value: float) -> str:
    return f"{value:.2f}" if value == value else "–"


def answer_rows(answers: Answers, prompts: Sequence[str]) -> list[list[Any]]:
    """List every answer but those of random directions, those with the highest behavior score first."""
    shown = [a for (arm, _), a in answers.items() if not is_random(arm)]
    shown.sort(key=lambda a: (-1.0 if a.behavior is None else -a.behavior, a.prompt))
    return [_row(answer, prompts) for answer in shown]


def _row(answer: Answer, prompts: Sequence[str]) -> list[Any]:
    broken = f" [{answer.broken}]" if answer.broken else ""
    return [
        None if answer.behavior is None else round(answer.behavior, 2),
        WHO.get(answer.arm.name, answer.arm.name),
        answer.arm.multiplier,
        None if answer.fluency is None else round(answer.fluency, 2),
        prompts[answer.prompt],
        answer.text + broken,
    ]
