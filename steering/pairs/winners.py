"""Which of two answers is the chosen one: read from a label or from two scores."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from steering.pairs.cells import value_at

TIES = ("ties", "both", "both bad", "bothbad", "equal", "same", "draw", "neither", "[[c]]", "none")
"""Labels of pairs in which neither answer is better, in lower case."""
FIRST = ("a", "first", "left", "model_a", "model a", "[[a]]", "answer a", "response a", "1st")
SECOND = ("b", "second", "right", "model_b", "model b", "[[b]]", "answer b", "response b", "2nd")
"""Labels that mean the first and the second answer whatever the columns are called, in lower case."""


@dataclass(frozen=True, slots=True)
class Winner:
    """Reads from a row which of its two answers is better.

    Attributes:
        columns: the label, or the scores of the first and the second answer.
        meanings: label in lower case -> 0 for the first answer, 1 for the second.
    """

    columns: tuple[str, ...]
    meanings: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of_label(
        cls, label: str, first: str, second: str, sample: Sequence[Mapping[str, Any]], numbers: Mapping[str, int]
    ) -> Self:
        """Read a label column.

        Args:
            label: the column; `first`, `second`: those of the answers, which a label may name by what they end with.
            sample: rows that tell whether numbers are counted from 0 or from 1.
            numbers: what numbers mean, where the layout says so.
        """
        meanings = dict.fromkeys(FIRST, 0) | dict.fromkeys(SECOND, 1)
        meanings |= {first.strip().casefold(): 0, second.strip().casefold(): 1}
        return cls((label,), meanings | (dict(numbers) or _numbers(label, first, second, sample)))

    @classmethod
    def of_scores(cls, first: str, second: str) -> Self:
        """Compare two score columns."""
        return cls((first, second))

    def first_wins(self, cells: Mapping[str, Any]) -> bool | str:
        """Say whether the first answer is better, or why that cannot be told."""
        if len(self.columns) == 2:
            return self._by_scores(cells)
        (label,) = self.columns
        value = value_at(cells, label)
        if value is None or (isinstance(value, str) and not value.strip()):
            return f"{label} is missing"
        word = _word(value)
        if word in TIES or word.startswith("tie") or (word == "0" and self.meanings.get("-1") == 0):
            return "a tie: neither answer is better"
        if word in self.meanings:
            return self.meanings[word] == 0
        if not isinstance(value, str | int | float):
            return f"{label} does not say which answer is better"
        return f"{label} does not say which answer is better ({str(value)[:40]!r})"

    def _by_scores(self, cells: Mapping[str, Any]) -> bool | str:
        scores = [_number(value_at(cells, column)) for column in self.columns]
        if None in scores:
            return f"{' or '.join(self.columns)} is not a number"
        if scores[0] == scores[1]:
            return "a tie: neither answer is better"
        return scores[0] > scores[1]  # type: ignore[operator]


def _numbers(label: str, first: str, second: str, sample: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Tell what a label's numbers mean; nothing where they could mean either answer.

    They are the numbers in the answers' own column names, unless the labels seen contradict that; else, for columns
    called a and b, 1 and 2 are unmistakable, while 0 and 1 are not: data sets use them both ways.
    """
    if label.strip().casefold() == "overall_preference":  # HelpSteer's scale: below 0 the first answer is better
        return {f"{sign}{size}": place for place, sign in enumerate(("-", "")) for size in (1, 2, 3)}
    seen = {_word(value_at(row, label)) for row in sample}
    ends = [match.group() if (match := re.search(r"\d+$", name)) else "" for name in (first, second)]
    if all(ends):
        return {ends[0]: 0, ends[1]: 1} if not (seen & {"0", "1", "2"}) - {*ends} else {}
    return {"1": 0, "2": 1} if "2" in seen and "0" not in seen else {}


def _word(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip().casefold()


def _number(value: Any) -> float | None:
    try:
        return None if value is None or isinstance(value, list | dict) else float(value)
    except ValueError:
        return None
