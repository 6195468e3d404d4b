"""How sure a mean over prompts is: bootstrap intervals, and paired tests where two things are compared."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
"""Of a bootstrap or a permutation test: ends of a 95 % interval move by less than 1 % of its width with more."""
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean, and the interval in which it lies with 95 % confidence.

    Attributes:
        mean, low, high: NaN without values.
        count: values that it is the mean of; those that are missing do not count.
    """

    mean: float
    low: float
    high: float
    count: int

    def as_json(self) -> dict[str, float | int | None]:
        """Return the attributes by name; a number that is not defined is None."""
        numbers = {"mean": self.mean, "low": self.low, "high": self.high}
        return {**{key: None if np.isnan(value) else value for key, value in numbers.items()}, "count": self.count}

    @classmethod
    def from_json(cls, fields: dict) -> "Estimate":
        """Make one of what `as_json` returned."""
        mean, low, high = (
            float("nan") if fields[key] is None else float(fields[key]) for key in ("mean", "low", "high")
        )
        return cls(mean, low, high, int(fields["count"]))


def estimate(values: Sequence[float | None], seed: int = 0) -> Estimate:
    """Estimate a mean with its 95 % percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13).

    Args:
        values: one a prompt; None and NaN are left out.
        seed: of the resampling.
    """
    known = _known(values)
    if not len(known):
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    drawn = np.random.default_rng(seed).integers(len(known), size=(RESAMPLES, len(known)))
    low, high = np.quantile(known[drawn].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(known.mean()), float(low), float(high), len(known))


@dataclass(frozen=True)
class Difference:
    """What one thing does more than another on the same prompts.

    Attributes:
        gap: mean of first minus second, with its interval.
        p_value: of a two-sided sign-flip permutation test that the mean difference is 0; 1 without values.
    """

    gap: Estimate
    p_value: float

    @property
    def is_clear(self) -> bool:
        """Whether the difference is told apart from 0 at the 5 % level."""
        return self.p_value < 1 - LEVEL


def paired(first: Sequence[float | None], second: Sequence[float | None], seed: int = 0) -> Difference:
    """Compare two things measured on the same prompts, in one order; a prompt that one lacks is left out."""
    both = [
        (a, b)
        for a, b in zip(first, second, strict=True)
        if a is not None and b is not None and not np.isnan([a, b]).any()
    ]
    if not both:
        return Difference(estimate([]), 1.0)
    gaps = np.array([a - b for a, b in both])
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(RESAMPLES, len(gaps)))
    as_far = np.abs((signs * gaps).mean(axis=1)) >= abs(gaps.mean()) - 1e-12
    return Difference(estimate(list(gaps), seed), float((as_far.sum() + 1) / (RESAMPLES + 1)))


def _known(values: Sequence[float | None]) -> np.ndarray:
    numbers = np.array([np.nan if value is None else value for value in values], dtype=float)
    return numbers[~np.isnan(numbers)]
