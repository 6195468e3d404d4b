"""Preference pairs: read from a file, a pasted text or a table, checked row by row, split for training."""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self, overload

from steering.errors import SteeringError
from steering.pairs.readers import MAX_BYTES, MAX_ROWS, PairFile, RawTable
from steering.pairs.schema import MAX_CHARACTERS, BadRow, Message, PreferencePair, RawRow, check, pair_of

__all__ = [
    "MAX_BYTES",
    "MAX_CHARACTERS",
    "MAX_ROWS",
    "Dropped",
    "Message",
    "Pairs",
    "PairsReport",
    "PreferencePair",
    "parse_pairs",
    "read_pairs",
    "without_prompts",
]

REMEDIES = {
    "is empty": "fill in prompt, chosen and rejected",
    "not text": "write text in prompt, chosen and rejected, or name other columns with --columns prompt=Q",
    "equals": "give each row two different answers",
    "number of fields": "put texts that hold the separator in quotes",
    "JSON": "write one JSON object in each line",
    "too long": "shorten the texts",
    "prompt also in": "bring pairs with other prompts",
}
"""Words of a reason for dropping rows -> what to do about it when no row is left."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row left out: its number, and the reason, with what differs from row to row in brackets at its end."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class PairsReport:
    """How a source was read.

    Attributes:
        source: name of the file, or what else the pairs came from.
        read: rows in all.
        kept: rows that became pairs.
        dropped: the others, in order.
        columns: field of a pair -> column it was read from; empty for pairs made in memory.
        unit: what `Dropped.line` counts, "line" or "row".
        notes: whole sentences about how it was read: the encoding, rows past the limit, a text taken apart.
    """

    source: str
    read: int
    kept: int
    dropped: tuple[Dropped, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)
    unit: str = "row"
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """Describe it in one sentence, as in "Read 9 rows of a.csv: 7 pairs kept, 2 dropped (duplicate: 2)."."""
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in _reasons(self.dropped).most_common())
        dropped = f"{len(self.dropped):,} dropped ({reasons})" if self.dropped else "none dropped"
        return f"Read {_count(self.read, 'row')} of {self.source}: {_count(self.kept, 'pair')} kept, {dropped}."


@dataclass(frozen=True, repr=False)
class Pairs(Sequence[PreferencePair]):
    """Preference pairs that were checked, all different, and the report of how they were read. Immutable.

    Make them with `read_pairs`, `parse_pairs` or `Pairs.of`. A slice and a part of a split carry the report of the
    whole. Two `Pairs` are equal if their pairs are, wherever these came from.
    """

    pairs: tuple[PreferencePair, ...]
    report: PairsReport = field(compare=False)

    @classmethod
    def of(cls, pairs: Iterable[PreferencePair], source: str = "memory") -> Self:
        """Check pairs made by hand like those of a file. Pairs without a `line` are counted from 1. May be empty."""
        counted = [pair if pair.line else replace(pair, line=number) for number, pair in enumerate(pairs, 1)]
        if not counted:
            return cls((), PairsReport(source, 0, 0))
        return cls.of_rows(source, ((pair.line, pair) for pair in counted), {}, "row")

    @classmethod
    def of_rows(
        cls,
        source: str,
        rows: Iterable[RawRow | tuple[int, PreferencePair]],
        columns: dict[str, str],
        unit: str,
        notes: tuple[str, ...] = (),
    ) -> Self:
        """Check rows one by one: good ones become pairs, the others are dropped and reported.

        Args:
            source: what they come from, for the report.
            rows: (number, fields of a file's row, the reason why it has none, or a pair).
            columns: field of a pair -> column, for the report.
            unit: what the numbers count, "line" or "row".
            notes: sentences for the report.

        Raises:
            SteeringError: no row is left.
        """
        line_of: dict[PreferencePair, int] = {}
        dropped: list[Dropped] = []
        for line, row in rows:
            try:
                pair = row if isinstance(row, PreferencePair) else pair_of(line, row)
                check(pair)
                if pair in line_of:
                    raise BadRow(f"duplicate (same as {unit} {line_of[pair]:,})")
                line_of[pair] = line
            except BadRow as problem:
                dropped.append(Dropped(line, str(problem)))
        if not line_of:
            raise _nothing_left(source, dropped, unit)
        report = PairsReport(source, len(line_of) + len(dropped), len(line_of), tuple(dropped), columns, unit, notes)
        return cls(tuple(line_of), report)

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[PreferencePair]:
        return iter(self.pairs)

    @overload
    def __getitem__(self, index: int) -> PreferencePair: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> PreferencePair | Self:
        return replace(self, pairs=self.pairs[index]) if isinstance(index, slice) else self.pairs[index]

    def __repr__(self) -> str:
        return f"<{_count(len(self), 'preference pair')} of {self.report.source}>"

    @cached_property
    def sha256(self) -> str:
        """Hex SHA-256 of the pairs in their order; the same whatever kind of file they came from."""
        return _digest([[pair.before, pair.prompt, pair.chosen, pair.rejected] for pair in self])

    def drop(self, reasons: Mapping[int, str]) -> Self:
        """Leave out the pairs at these indices, each reported with its reason; SteeringError if that leaves none."""
        if not reasons:
            return self
        dropped = [Dropped(self[index].line, reason) for index, reason in reasons.items()]
        left = tuple(pair for index, pair in enumerate(self) if index not in reasons)
        if not left:
            raise _nothing_left(self.report.source, dropped, self.report.unit)
        both = sorted((*self.report.dropped, *dropped), key=lambda one: one.line)
        report = replace(self.report, kept=self.report.kept - len(dropped), dropped=tuple(both))
        return replace(self, pairs=left, report=report)

    def split(self, holdout: float = 0.2, seed: int = 0) -> tuple[Self, Self]:
        """Split into (training, held-out), in the order of the file; pairs of one conversation stay together.

        Args:
            holdout: share of the conversations held out, in [0, 1): none if 0, else at least one, and at least one
                stays for training.
            seed: conversations are drawn by a hash of seed and text, so that rows added to a file hardly move others.
        """
        if not 0 <= holdout < 1:
            raise SteeringError(f"The held-out share is {holdout}; give a number from 0 up to, but below, 1.")
        drawn = sorted({pair.conversation for pair in self}, key=lambda conversation: _digest([seed, conversation]))
        size = min(max(round(holdout * len(drawn)), 1), len(drawn) - 1) if holdout and drawn else 0
        held_out = set(drawn[:size])
        return (
            replace(self, pairs=tuple(pair for pair in self if pair.conversation not in held_out)),
            replace(self, pairs=tuple(pair for pair in self if pair.conversation in held_out)),
        )

    def to_rows(self) -> list[list[str]]:
        """List [prompt, chosen, rejected] for a table; the turns `before` the prompt are left out."""
        return [[pair.prompt, pair.chosen, pair.rejected] for pair in self]


def read_pairs(
    source: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    max_rows: int = MAX_ROWS,
    max_pairs: int | None = None,
    draw_seed: int | None = None,
) -> Pairs:
    """Read preference pairs from a CSV, TSV, JSON, JSONL or Parquet file, chosen by its suffix.

    Columns are known by the names that BiPO (question, matching, not_matching), TRL (prompt, chosen, rejected; texts or
    lists of messages) and CAA (question, answer_matching_behavior, answer_not_matching_behavior) give them. Rows that
    cannot be used are dropped and listed in the `report`.

    Args:
        source: the file.
        columns: field of a pair -> column, where the names are others.
        max_rows: a file with more rows is refused.
        max_pairs, draw_seed: keep the first `max_pairs`, or with a seed a drawn `max_pairs` (interim).

    Raises:
        SteeringError: the file cannot be read, has more than `max_rows` rows, or no usable one.

    Example:
        >>> pairs = read_pairs("pairs.csv", columns={"prompt": "my question"})
        >>> print(pairs.report.summary())
        Read 9 rows of pairs.csv: 7 pairs kept, 2 dropped (duplicate: 1, prompt is empty: 1).
        >>> training, held_out = pairs.split(holdout=0.2)
    """
    path = Path(source)
    file = PairFile.open(path, columns, max_rows)
    return _at_most(_from_table(file.name, file.table(path.suffix.lower())), max_pairs, draw_seed)


def _at_most(pairs: Pairs, most: int | None, draw_seed: int | None) -> Pairs:
    if most is None or most >= len(pairs):
        return pairs
    places = range(most) if draw_seed is None else sorted(random.Random(draw_seed).sample(range(len(pairs)), most))
    notes = (*pairs.report.notes, f"{most:,} of the {len(pairs):,} pairs were taken.")
    kept = tuple(pairs[place] for place in places)
    return replace(pairs, pairs=kept, report=replace(pairs.report, kept=most, notes=notes))


def parse_pairs(
    text: str,
    *,
    source: str = "pasted text",
    columns: Mapping[str, str] | None = None,
    max_rows: int = MAX_ROWS,
    max_pairs: int | None = None,
) -> Pairs:
    r"""Read preference pairs from a text: JSON or JSONL if it begins with a bracket, else CSV or TSV; see `read_pairs`.

    Example:
        >>> parse_pairs("prompt,chosen,rejected\nHi,Good day.,Yo!")
        <1 preference pair of pasted text>
    """
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise SteeringError(f"{source}: character {error.start + 1:,} is broken; copy the text again.") from error
    return _at_most(
        _from_table(source, PairFile(source, data, columns or {}, max_rows).table("pasted")), max_pairs, None
    )


def without_prompts(pairs: Pairs, others: Pairs) -> Pairs:
    """Leave out the pairs whose conversation is also in `others`, so that no test pair was trained on.

    They are listed in the report; SteeringError if none is left.
    """
    known = {pair.conversation for pair in others}
    reason = f"prompt also in {others.report.source}"
    return pairs.drop({index: reason for index, pair in enumerate(pairs) if pair.conversation in known})


def _from_table(source: str, table: RawTable) -> Pairs:
    return Pairs.of_rows(source, table.layout.rows(table.records), table.layout.columns(), table.unit, table.notes)


def _nothing_left(source: str, dropped: Sequence[Dropped], unit: str) -> SteeringError:
    if not dropped:
        return SteeringError(f"{source}: there are no rows; give at least one prompt with two answers.")
    reason, count = _reasons(dropped).most_common(1)[0]
    line = next(one.line for one in dropped if one.reason.startswith(reason))
    remedy = next((remedy for words, remedy in REMEDIES.items() if words in reason), "correct the rows")
    whole = f"all {len(dropped):,} rows were dropped, {count:,}" if len(dropped) > 1 else "the only row was dropped"
    return SteeringError(f"{source}: {whole} because {reason} (first: {unit} {line:,}); {remedy}.")


def _reasons(dropped: Iterable[Dropped]) -> Counter[str]:
    return Counter(one.reason.partition(" (")[0] for one in dropped)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()
