"""What a column's fluency comes to, in the few words that stand under it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from steering.generation import Column


@dataclass(frozen=True)
class Verdict:
    foot: str = ""
    broken: str = ""


def judge(column: Column | None, baseline: Column | None = None) -> Verdict:
    if column is None or not column.trace:
        return Verdict()
    perplexity = math.exp(-sum(math.log(max(c.untouched, 1e-12)) for c in column.trace) / len(column.trace))
    return Verdict(f" · perplexity {perplexity:.3g}")


def warning(verdict: Verdict) -> str:
    return f"This column has broken down: it {verdict.broken}." if verdict.broken else ""


def last_sound(text: str, sound: Mapping[float, bool], multiplier: float) -> str:
    return text
