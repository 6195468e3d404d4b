"""Preference pairs: read from a file, a pasted text or a table, checked row by row, split for training."""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self, overload

from steering.errors import SteeringError
from steering.limits import NO_LIMITS, Limits
from steering.pairs.hub import download, hub_name, is_hub_id
from steering.pairs.readers import MAX_BYTES, MAX_ROWS, FolderRows, RawTable, open_table, pasted_table
from steering.pairs.readers.table import PairFile, at_most
from steering.pairs.report import Dropped, PairsReport, counted, nothing_left
from steering.pairs.row_notes import RowNotes
from steering.pairs.rows import RawRow, pair_of
from steering.pairs.schema import MAX_CHARACTERS, BadRow, Message, PreferencePair, Record, check

__all__ = [
    "MAX_BYTES",
    "MAX_CHARACTERS",
    "MAX_ROWS",
    "Dropped",
    "Message",
    "Pairs",
    "PairsReport",
    "PreferencePair",
    "pairs_of_records",
    "parse_pairs",
    "read_pairs",
    "without_prompts",
]


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
        notes: Callable[[], Sequence[str]] = tuple,
        left_out: tuple[str, ...] = (),
        read: Callable[[], int] | None = None,
    ) -> Self:
        """Check rows one by one: good ones become pairs, the others are dropped and reported.

        Args:
            source: what they come from, for the report.
            rows: (number, fields of a file's row, the reason why it has none, or a pair).
            columns: field of a pair -> column, for the report; `left_out`: columns with text that were not read.
            unit: what the numbers count, "line" or "row".
            notes: sentences for the report; asked once all rows are read.
            read: number of rows, where it is not that of `rows`; asked then, too.

        Raises:
            SteeringError: no row is left.
        """
        line_of: dict[PreferencePair, int] = {}
        dropped: list[Dropped] = []
        happened = RowNotes(unit)
        for line, row in rows:
            try:
                pair = row if isinstance(row, PreferencePair) else pair_of(line, row, happened)
                check(pair)
                if pair in line_of:
                    raise BadRow(f"duplicate (same as {unit} {line_of[pair]:,})")
                line_of[pair] = line
            except BadRow as problem:
                dropped.append(Dropped(line, str(problem)))
        if not line_of:
            raise nothing_left(source, dropped, unit)
        count = read() if read else len(line_of) + len(dropped)
        said = (*notes(), *happened.sentences())
        report = PairsReport(source, count, len(line_of), tuple(dropped), columns, unit, said, left_out)
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
        return f"<{counted(len(self), 'preference pair')} of {self.report.source}>"

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
            raise nothing_left(self.report.source, dropped, self.report.unit)
        both = sorted((*self.report.dropped, *dropped), key=lambda one: one.line)
        report = replace(self.report, kept=self.report.kept - len(dropped), dropped=tuple(both))
        return replace(self, pairs=left, report=report)

    def flip(self, indices: Iterable[int]) -> Self:
        """Swap the two answers of the pairs at these indices: they were labelled the wrong way round."""
        wrong = set(indices)
        turned = (
            replace(pair, chosen=pair.rejected, rejected=pair.chosen) if index in wrong else pair
            for index, pair in enumerate(self)
        )
        return replace(self, pairs=tuple(turned))

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
    max_pairs: int | None = None,
    draw_seed: int | None = None,
    limits: Limits = NO_LIMITS,
) -> Pairs:
    """Read preference pairs from a file, a folder of files, or a data set of the Hugging Face Hub.

    Files are CSV, TSV, JSON, JSONL or Parquet, packed or not. `layouts` knows the columns of many public data sets;
    conversations may be lists of messages, transcripts, or text in a chat template. Rows that cannot be used are
    dropped and listed in the `report`, and so is whatever else was left out or taken apart.

    Args:
        source: a path, or a data set as `owner/name` or `hf://owner/name/file`.
        columns: field of a pair -> column or dotted path, where the names are others (see `layouts.MAPPING_FIELDS`).
        max_pairs: rows that are read at most, up to `MAX_ROWS`, which is the default.
        draw_seed: draw those rows from all of them by this seed, instead of taking the first.
        limits: how large the file may be, and how many pairs are read of it at most.

    Raises:
        SteeringError: the source cannot be read, or has no usable row.

    Example:
        >>> pairs = read_pairs("pairs.csv", columns={"prompt": "my question"})
        >>> print(pairs.report.summary())
        Read 9 rows of pairs.csv: 7 pairs kept, 2 dropped (duplicate: 1, prompt is empty: 1).
        >>> training, held_out = pairs.split(holdout=0.2)
    """
    most = _limit(max_pairs, limits)
    # To draw from a file, all of it has to be looked at.
    reach = most if draw_seed is None else 10**9
    path, name, note = Path(source), Path(source).name, ""
    if is_hub_id(source):
        file = download(str(source), limits)
        path, name, note = file.path, hub_name(str(source)), file.note
    else:
        limits.check_file(path)
    if path.is_dir():
        return _from_folder(path, columns or {}, most, draw_seed)
    table = open_table(path, columns or {}, reach)
    table.notes.extend([note] if note else [])
    return _from_table(name, table, most, draw_seed)


def parse_pairs(
    text: str,
    *,
    source: str = "pasted text",
    columns: Mapping[str, str] | None = None,
    max_pairs: int | None = None,
    limits: Limits = NO_LIMITS,
) -> Pairs:
    r"""Read preference pairs from a text: JSON or JSONL if it begins with a bracket, else CSV or TSV; see `read_pairs`.

    Example:
        >>> parse_pairs("prompt,chosen,rejected\nHi,Good day.,Yo!")
        <1 preference pair of pasted text>
    """
    limits.check_upload(len(text))
    return _from_table(source, pasted_table(text, source, columns or {}), _limit(max_pairs, limits), None)


def pairs_of_records(
    records: Iterable[Mapping[str, Any]], source: str, *, columns: Mapping[str, str] | None = None
) -> Pairs:
    """Read preference pairs from rows in memory, by the names of their keys as from a file; see `read_pairs`."""
    rows: list[Record] = list(enumerate(records, 1))
    names = list(dict.fromkeys(str(name) for _, row in rows if isinstance(row, Mapping) for name in row))
    if not names:
        raise SteeringError(f"{source}: there are no rows; give at least one prompt with two answers.")
    table = PairFile(source, b"", columns or {}).table(names, iter(rows), "row")
    return _from_table(source, table, MAX_ROWS, None)


def without_prompts(pairs: Pairs, others: Pairs) -> Pairs:
    """Leave out the pairs whose conversation is also in `others`, so that no test pair was trained on.

    They are listed in the report; SteeringError if none is left.
    """
    known = {pair.conversation for pair in others}
    reason = f"prompt also in {others.report.source}"
    return pairs.drop({index: reason for index, pair in enumerate(pairs) if pair.conversation in known})


def _limit(max_pairs: int | None, limits: Limits) -> int:
    if max_pairs is not None and max_pairs < 1:
        raise SteeringError(f"max_pairs is {max_pairs}; give a number from 1 to {MAX_ROWS:,}.")
    return min(max_pairs or MAX_ROWS, limits.pairs or MAX_ROWS, MAX_ROWS)


def _from_table(source: str, table: RawTable, most: int, draw_seed: int | None) -> Pairs:
    counter = itertools.count()
    records = _counted(at_most(table.records, most, draw_seed, source, table.notes), counter)
    layout = table.layout
    return Pairs.of_rows(
        source,
        layout.rows(records),
        layout.columns(),
        table.unit,
        lambda: table.notes,
        layout.left_out,
        lambda: next(counter),
    )


def _counted(records: Iterable[Record], counter: "itertools.count[int]") -> Iterator[Record]:
    for record in records:
        next(counter)
        yield record


def _from_folder(folder: Path, columns: Mapping[str, str], most: int, draw_seed: int | None) -> Pairs:
    """Read all files of a folder as one source, its rows counted through."""
    inside, notes = FolderRows(folder, columns, MAX_ROWS if draw_seed is None else 10**9), list[str]()
    rows = at_most(iter(inside), most, draw_seed, folder.name, notes)
    pairs = Pairs.of_rows(folder.name, rows, {}, "row", lambda: notes)
    return replace(pairs, report=inside.report(pairs.report, (pair.line for pair in pairs)))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()
