"""What an evaluation shows, in numbers and in plain sentences: useful range, recommendation, comparisons."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from steering.evaluation import baselines
from steering.evaluation.answers import UNTOUCHED, Arm
from steering.evaluation.points import Point
from steering.evaluation.statistics import Difference, paired

SOUND_FLUENCY = 0.8
"""Share of the untouched model's fluency that sound text keeps."""
SOUND_RELEVANCE = 0.25
"""Share of the untouched model's relevance below which an answer has little to do with its prompt."""
MOST_BROKEN = 0.2
"""Share of answers that may have broken down."""
FALL = 0.02
"""By which the behavior may fall from one multiplier to the next within the useful range: less is seen by nobody."""
UNIT_KL = 1.0
"""Nats: at a multiplier of this 95th percentile of the KL divergence vectors of all methods are comparable."""


@dataclass(frozen=True)
class Comparison:
    """The vector against a baseline, on the same prompts.

    Attributes:
        with_whom: the baseline's arm; ours: the vector's.
        behavior, composite: what the vector has more, in the direction that is wanted.
    """

    with_whom: Arm
    ours: Arm
    behavior: Difference
    composite: Difference


@dataclass(frozen=True)
class Summary:
    """What an evaluation shows.

    Attributes:
        useful_range: multipliers between which the behavior moves and the text stays sound.
        broke_at: the first measured multipliers beyond it, below and above; None where nothing broke.
        recommended: the multiplier above 0 with the best composite; compared is there, and at its like below 0.
        unit_multiplier: where the 95th percentile of the KL divergence is `UNIT_KL`; None if that is not reached.
        effect: behavior at the ends of the useful range, above less below; p_value as `Difference` has it.
        random_rank: (random directions with a smaller effect, all of them); None if none were tried.
        effective: whether the effect is clear and greater than that of nearly all random directions; None before both
            are known.
        comparisons: with each baseline.
        sentences: all of that, for people.
    """

    useful_range: tuple[float, float]
    broke_at: tuple[float | None, float | None]
    recommended: float
    unit_multiplier: float | None
    effect: Difference
    random_rank: tuple[int, int] | None
    effective: bool | None
    comparisons: tuple[Comparison, ...]
    sentences: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return what it says, in JSON's types."""
        return {
            "useful_range": list(self.useful_range),
            "broke_at": list(self.broke_at),
            "recommended": self.recommended,
            "unit_multiplier": self.unit_multiplier,
            "effect": self.effect.gap.as_json() | {"p_value": self.effect.p_value},
            "random_rank": list(self.random_rank) if self.random_rank else None,
            "effective": self.effective,
            "comparisons": [
                {
                    "with": each.with_whom.name,
                    "multiplier": each.with_whom.multiplier,
                    "own_multiplier": each.ours.multiplier,
                    "behavior": each.behavior.gap.as_json() | {"p_value": each.behavior.p_value},
                    "composite": each.composite.gap.as_json() | {"p_value": each.composite.p_value},
                }
                for each in self.comparisons
            ],
            "sentences": list(self.sentences),
        }


def useful_range(points: Mapping[Arm, Point], name: str) -> tuple[float, float]:
    """Return the multipliers of a vector between which the behavior moves its way and the text stays sound.

    From 0 outwards, as far as every measured multiplier keeps the text fluent and about its prompt, breaks few
    answers and does not take back what the one before had reached. (0, 0) if not even the first does.
    """
    return _end(points, name, -1.0)[0], _end(points, name, 1.0)[0]


def _end(points: Mapping[Arm, Point], name: str, sign: float) -> tuple[float, float | None]:
    """Return the last good multiplier on one side, and the first that is not; None if all are good."""
    base = points.get(UNTOUCHED)
    fluent, related = (base.mean("fluency"), base.mean("relevance")) if base else (1.0, 1.0)
    reached, good = (sign * base.mean("behavior") if base else np.nan), 0.0
    for arm in sorted(
        (a for a in points if a.name == name and a.multiplier * sign > 0), key=lambda a: abs(a.multiplier)
    ):
        point = points[arm]
        moved = sign * point.mean("behavior")
        takes_back = moved < reached - FALL  # False where either is not known
        unsound = point.mean("fluency") < SOUND_FLUENCY * fluent or point.broken > MOST_BROKEN
        if unsound or point.mean("relevance") < SOUND_RELEVANCE * related or takes_back:
            return good, arm.multiplier
        good, reached = arm.multiplier, np.fmax(reached, moved)
    return good, None


Scores = Callable[[Arm, str], Sequence[float | None]]
"""(arm, name of a score) -> that score of the arm's answers in the order of the prompts; None where there is none."""


def summarize(
    name: str, points: Mapping[Arm, Point], scores: Scores, own_span: float | None, random_spans: Sequence[float]
) -> Summary:
    """Sum an evaluation up, as far as it is.

    Args:
        name: of the vector.
        own_span: its behavior above less that below, measured like `random_spans`, those of random directions; None and
            empty where that was not done.
    """
    (low, below), (high, above) = _end(points, name, -1.0), _end(points, name, 1.0)
    effect = paired(scores(_arm(name, high), "behavior"), scores(_arm(name, low), "behavior"))
    rank = _random_rank(own_span, random_spans)
    work = working_points(points, name)
    comparisons = tuple(_compared(name, scores, arm, *work) for arm in points if arm.name not in (name, UNTOUCHED.name))
    effective = None
    if rank is not None:
        rare = (1 + rank[1] - rank[0]) / (1 + rank[1]) <= 0.05
        effective = bool(effect.is_clear and effect.gap.mean > 0 and rare)
    summary = Summary(
        (low, high),
        (below, above),
        work[1] or 1.0,
        _unit_multiplier(points, name),
        effect,
        rank,
        effective,
        tuple(each for each in comparisons if each is not None),
        (),
    )
    return replace(summary, sentences=tuple(_sentences(summary, points, name)))


def _arm(name: str, multiplier: float) -> Arm:
    return Arm(name, multiplier) if multiplier else UNTOUCHED


def _compared(name: str, scores: Scores, arm: Arm, low: float, high: float) -> Comparison | None:
    """Compare the vector with another arm that goes the same way; None without a multiplier on that side."""
    end = high if arm.multiplier > 0 else low
    if not end or not arm.multiplier:
        return None
    ours, sign = Arm(name, end), float(np.sign(arm.multiplier))
    toward = [[None if value is None else sign * value for value in scores(a, "behavior")] for a in (ours, arm)]
    behavior = paired(toward[0], toward[1])
    return Comparison(arm, ours, behavior, paired(scores(ours, "composite"), scores(arm, "composite")))


def working_points(points: Mapping[Arm, Point], name: str) -> tuple[float, float]:
    """Return the multipliers below and above 0 with the best composite within the useful range.

    On a side where nothing is useful, the smallest one that was measured; 0 on a side where nothing was measured.
    """
    ends = useful_range(points, name)
    chosen = []
    for sign, end in zip((-1.0, 1.0), ends, strict=True):
        side = {a.multiplier: points[a].mean("composite") for a in points if a.name == name and a.multiplier * sign > 0}
        inside = {m: value for m, value in side.items() if abs(m) <= abs(end) and not np.isnan(value)}
        chosen.append(max(inside, key=lambda m: inside[m]) if inside else min(side, key=abs, default=0.0))
    return chosen[0], chosen[1]


def _unit_multiplier(points: Mapping[Arm, Point], name: str) -> float | None:
    """Interpolate the positive multiplier at which the 95th percentile of the KL divergence is `UNIT_KL`."""
    known = sorted((a.multiplier, points[a].kl_p95 or 0.0) for a in points if a.name == name and a.multiplier > 0)
    places, values = [0.0, *(m for m, _ in known)], [0.0, *(kl for _, kl in known)]
    if len(places) < 2 or max(values) < UNIT_KL:
        return None
    first = next(number for number, value in enumerate(values) if value >= UNIT_KL)
    share = (UNIT_KL - values[first - 1]) / (values[first] - values[first - 1])
    return round(places[first - 1] + share * (places[first] - places[first - 1]), 3)


def _random_rank(own: float | None, spans: Sequence[float]) -> tuple[int, int] | None:
    """Count random directions with a smaller effect; which way a random one points means nothing."""
    return None if own is None or not spans else (sum(abs(span) < own for span in spans), len(spans))


def _sentences(summary: Summary, points: Mapping[Arm, Point], name: str) -> list[str]:
    low, high = summary.useful_range
    base = points.get(UNTOUCHED)
    said: list[str] = []
    if base is None or np.isnan(base.mean("behavior")):
        return said
    if not low and not high:
        said.append("There is no multiplier at which the behavior moves and the text stays sound.")
    else:
        ends = " and ".join(f"{points[Arm(name, end)].mean('behavior'):.2f} at {end:+g}" for end in (low, high) if end)
        said.append(f"Behavior score: {base.mean('behavior'):.2f} without steering, {ends}.")
    if summary.random_rank:
        below, count = summary.random_rank
        said.append(f"Its effect is greater than that of {below} of {count} random directions of the same norm.")
    if summary.effective is False:
        said.append("So the vector is ineffective here: its effect cannot be told from chance.")
    elif summary.effective:
        said.append("So the vector is effective.")
    said += [_comparison_sentence(each, points) for each in summary.comparisons if each.with_whom.multiplier > 0]
    prompted = (baselines.SYSTEM_PROMPT, baselines.FEW_SHOT)  # below 0 only other vectors are worth a sentence each
    opposite = [each for each in summary.comparisons if each.with_whom.multiplier < 0]
    said += [_comparison_sentence(each, points) for each in opposite if each.with_whom.name not in prompted]
    return said


def _comparison_sentence(each: Comparison, points: Mapping[Arm, Point]) -> str:
    theirs, ours = points[each.with_whom].mean("behavior"), points[each.ours].mean("behavior")
    what = {
        baselines.SYSTEM_PROMPT: "Asking in the system prompt",
        baselines.FEW_SHOT: "Showing examples",
        baselines.MEAN_DIFFERENCE: "The mean difference at the same KL divergence",
    }.get(each.with_whom.name, f"{each.with_whom.name} at the same KL divergence")
    figures = f"{theirs:.2f} against {ours:.2f}"
    if each.with_whom.multiplier < 0:
        what = f"For the opposite, {what[:1].lower()}{what[1:]}"
    if not each.behavior.is_clear:
        return f"{what} does as well: behavior {figures}, not told apart."
    if each.behavior.gap.mean < 0:
        return f"{what} wins: behavior {figures}."
    return f"{what} does less: behavior {figures}."
