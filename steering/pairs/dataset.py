"""Preference pairs: read from a file, a pasted text or a table, checked row by row, split for training."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self, overload

from steering.errors import SteeringError
from steering.pairs.readers import MAX_BYTES, MAX_ROWS, PairFile, Table, limited
from steering.pairs.schema import MAX_CHARACTERS, BadRow, Fields, Message, PreferencePair, Row, check, pair_of

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

REMEDIES = {  # words of a reason -> what to do when no row is left
    "is empty": "fill in prompt, chosen and rejected",
    "not text": "write text in prompt, chosen and rejected, or name other columns with --columns prompt=Q",
    "equals": "give each row two different answers",
    "number of fields": "put texts that hold the separator in quotes",
    "JSON": "write one JSON object in each line",
    "too long": "shorten the texts",
    "prompt also in": "bring pairs with other prompts",
}


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row left out. What differs from row to row stands in brackets at the end of the reason."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class PairsReport:
    """How a source was read: `columns` maps role to the column used, `unit` is what `line` counts, lines or rows."""

    source: str
    read: int
    kept: int
    dropped: tuple[Dropped, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)
    unit: str = "row"

    def summary(self) -> str:
        """One sentence, such as "Read 9 rows of a.csv: 7 pairs kept, 2 dropped (duplicate: 1, prompt is empty: 1)."."""
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in _reasons(self.dropped).most_common())
        dropped = f"{len(self.dropped):,} dropped ({reasons})" if self.dropped else "none dropped"
        return f"Read {_count(self.read, 'row')} of {self.source}: {_count(self.kept, 'pair')} kept, {dropped}."


@dataclass(frozen=True, repr=False)
class Pairs(Sequence[PreferencePair]):
    """Preference pairs that were checked, all different, and the report of how they were read. Immutable.

    Make them with `read_pairs`, `parse_pairs`, `Pairs.of` or `Pairs.from_rows`. A slice and a part of a split keep the
    report of the whole. Two `Pairs` are equal if their pairs are, wherever these came from.
    """

    pairs: tuple[PreferencePair, ...]
    report: PairsReport = field(compare=False)

    @classmethod
    def of(cls, pairs: Iterable[PreferencePair], source: str = "memory") -> Self:
        """Check pairs made by hand like those of a file. Pairs without a `line` are counted from 1. May be empty."""
        counted = [pair if pair.line else replace(pair, line=number) for number, pair in enumerate(pairs, 1)]
        if not counted:
            return cls((), PairsReport(source, 0, 0))
        return cls._checked(source, ((pair.line, pair) for pair in counted), {}, "row")

    @classmethod
    def from_rows(cls, rows: Iterable[Sequence[str]], source: str = "table") -> Self:
        """Pairs from (prompt, chosen, rejected), the inverse of `to_rows` for pairs with nothing `before`.

        SteeringError if there are too many rows, or no usable one.
        """
        numbered = ((number, _table_row(row)) for number, row in enumerate(rows, 1))
        return cls._checked(source, limited(numbered, source, MAX_ROWS), {}, "row")

    @classmethod
    def _checked(
        cls, source: str, rows: Iterable[Row | tuple[int, PreferencePair]], columns: dict[str, str], unit: str
    ) -> Self:
        kept: dict[PreferencePair, int] = {}
        dropped: list[Dropped] = []
        for line, row in rows:
            try:
                pair = row if isinstance(row, PreferencePair) else pair_of(line, row)
                check(pair)
                if pair in kept:
                    raise BadRow(f"duplicate (same as {unit} {kept[pair]:,})")
                kept[pair] = line
            except BadRow as problem:
                dropped.append(Dropped(line, str(problem)))
        if not kept:
            raise _nothing_left(source, dropped, unit)
        report = PairsReport(source, len(kept) + len(dropped), len(kept), tuple(dropped), columns, unit)
        return cls(tuple(kept), report)

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
        """Hex digest of the pairs in their order; the same whatever kind of file they came from."""
        return _digest([[pair.before, pair.prompt, pair.chosen, pair.rejected] for pair in self])

    def drop(self, reasons: Mapping[int, str]) -> Self:
        """Without the pairs at these indices, each reported with its reason. SteeringError if that leaves none."""
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
        """(training, held-out), in the order of the file; all pairs of one conversation are in the same part.

        `holdout` in [0, 1) is the share of conversations held out: none if 0, else at least one, and at least one stays
        for training. Chance is drawn per conversation, so that adding rows to a file hardly moves the others.
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
        """Prompt, chosen and rejected for a table; what stands `before` the prompt is not shown."""
        return [[pair.prompt, pair.chosen, pair.rejected] for pair in self]


def read_pairs(source: str | Path, *, columns: Mapping[str, str] | None = None, max_rows: int = MAX_ROWS) -> Pairs:
    """Read preference pairs from a CSV, TSV, JSON, JSONL or Parquet file, told apart by its suffix.

    Columns are known by the names that BiPO (question, matching, not_matching), TRL (prompt, chosen, rejected; texts or
    lists of messages) and CAA (question, answer_matching_behavior, answer_not_matching_behavior) give them, any others
    through `columns`, such as `{"prompt": "my question"}`. Rows that cannot be used are dropped and reported.
    SteeringError if the file cannot be read, has more than `max_rows` rows, or no usable one.
    """
    path = Path(source)
    file = PairFile.open(path, columns, max_rows)
    return _from_table(file.name, file.table(path.suffix.lower()))


def parse_pairs(
    text: str,
    *,
    source: str = "pasted text",
    columns: Mapping[str, str] | None = None,
    max_rows: int = MAX_ROWS,
) -> Pairs:
    """Like `read_pairs`, from a text in CSV, TSV, JSON or JSONL; which of them is found by looking at it."""
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise SteeringError(f"{source}: character {error.start + 1:,} is broken; copy the text again.") from error
    return _from_table(source, PairFile(source, data, columns or {}, max_rows).table("pasted"))


def without_prompts(pairs: Pairs, others: Pairs) -> Pairs:
    """Those of `pairs` whose conversation is not in `others`, the rest reported: test pairs not trained on.

    SteeringError if that leaves none.
    """
    known = {pair.conversation for pair in others}
    reason = f"prompt also in {others.report.source}"
    return pairs.drop({index: reason for index, pair in enumerate(pairs) if pair.conversation in known})


def _from_table(source: str, table: Table) -> Pairs:
    return Pairs._checked(source, table.rows, table.layout.columns(), table.unit)


def _table_row(row: Sequence[str]) -> Fields | str:
    return Fields(*row) if len(row) == 3 else f"the number of fields is not 3 ({len(row)})"


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
