"""What the answers of one arm add up to: means over prompts with their intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steering.evaluation.answers import Answer, Arm
from steering.evaluation.statistics import Estimate, estimate

SCORES = ("behavior", "fluency", "relevance", "composite", "kl")
"""What a point estimates with an interval."""


@dataclass(frozen=True)
class Point:
    """One arm's answers in numbers.

    Attributes:
        arm: whose they are; answers: how many; missing: how many of them the judge gave no score.
        scores: name among `SCORES` -> estimate over the prompts; `kl` in nats a token.
        kl_p95: 95th percentile of the KL divergence over all tokens, in nats; None where nothing steers.
        broken: share of answers that have broken down.
        perplexity: median, None where not traced; repeated, compression: means, None likewise; tokens: mean.
        utility: share of the multiple-choice questions answered right; None where they were not asked.
        dose: abs(multiplier) * norm of the vector / norm of the residual stream at its first layer; None if not known.
    """

    arm: Arm
    answers: int
    missing: int
    scores: Mapping[str, Estimate]
    kl_p95: float | None
    broken: float
    perplexity: float | None
    repeated: float | None
    compression: float | None
    tokens: float
    dose: float | None = None
    utility: float | None = None

    def mean(self, score: str) -> float:
        """Return the mean of a score; NaN where there is none."""
        return self.scores[score].mean

    def as_json(self) -> dict[str, Any]:
        """Return what it says, in JSON's types."""
        numbers = {
            key: getattr(self, key)
            for key in (
                "answers",
                "missing",
                "kl_p95",
                "broken",
                "perplexity",
                "repeated",
                "compression",
                "tokens",
                "dose",
                "utility",
            )
        }
        scores = {name: score.as_json() for name, score in self.scores.items()}
        return {"arm": self.arm.name, "multiplier": self.arm.multiplier, **scores, **numbers}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Point":
        """Make a point of what `as_json` returned."""
        names = ("answers", "missing", "kl_p95", "broken", "perplexity", "repeated", "compression", "tokens", "dose")
        numbers = {key: row[key] for key in names} | {"utility": row.get("utility")}  # not in earlier folders
        scores = {name: Estimate.from_json(row[name]) for name in SCORES}
        return cls(Arm(str(row["arm"]), float(row["multiplier"])), scores=scores, **numbers)


def point_of(arm: Arm, answers: Sequence[Answer], dose: float | None = None, seed: int = 0) -> Point:
    """Sum answers up; at least one."""
    kls = [answer.mean_kl for answer in answers]
    tokens = [kl for answer in answers for kl in answer.kl]
    scores = {
        name: estimate(kls if name == "kl" else [getattr(answer, name) for answer in answers], seed) for name in SCORES
    }
    return Point(
        arm=arm,
        answers=len(answers),
        missing=sum(answer.behavior is None for answer in answers),
        scores=scores,
        kl_p95=float(np.quantile(tokens, 0.95)) if len(tokens) else None,
        broken=float(np.mean([bool(answer.broken) for answer in answers])),
        perplexity=_of(np.median, [answer.perplexity for answer in answers]),
        repeated=_of(np.mean, [answer.repeated for answer in answers]),
        compression=_of(np.mean, [answer.compression for answer in answers]),
        tokens=float(np.mean([answer.tokens for answer in answers])),
        dose=dose,
    )


def _of(average: Callable[[list[float]], np.floating], values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(average(known)) if known else None
