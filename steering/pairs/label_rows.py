"""Rows of one answer with a label (KTO's unpaired preferences): paired where a prompt has both a good and a bad one."""

import json
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from steering.pairs.rows import RawFields, RawRow

GOOD = ("true", "1", "good", "desirable", "chosen", "yes", "positive", "1.0")
BAD = ("false", "0", "bad", "undesirable", "rejected", "no", "negative", "-1", "0.0", "-1.0")
"""Labels of good and bad answers, in lower case."""
UNPAIRED = "a label row without a partner: no row of its prompt has the other label"


def paired(rows: Iterable[RawRow], labels: Mapping[int, Any]) -> Iterator[RawRow]:
    """Yield a row for each good and bad answer of one prompt, in their order, and then the reason for all the others.

    Args:
        rows: their one answer stands in `chosen`.
        labels: number of a row -> its label, filled by the time that the row is read.
    """
    waiting: dict[str, dict[bool, deque[tuple[int, RawFields]]]] = defaultdict(lambda: {True: deque(), False: deque()})
    for number, fields in rows:
        if isinstance(fields, str):
            yield number, fields
            continue
        word = str(labels.get(number)).strip().casefold()
        if word not in (*GOOD, *BAD):
            yield number, f"the label is neither true nor false ({word[:40]!r})"
            continue
        good = word in GOOD
        sides = waiting[json.dumps([fields.prompt, fields.input, fields.system, fields.history], default=str)]
        if sides[not good]:
            other_number, other = sides[not good].popleft()
            chosen, rejected = (fields.chosen, other.chosen) if good else (other.chosen, fields.chosen)
            yield min(number, other_number), replace(fields, chosen=chosen, rejected=rejected)
        else:
            sides[good].append((number, fields))
    left = [number for sides in waiting.values() for side in sides.values() for number, _ in side]
    yield from ((number, UNPAIRED) for number in sorted(left))
