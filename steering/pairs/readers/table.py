"""What every reader makes of a file: its layout and its records, within limits."""

import random
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from steering.pairs.layout import Layout, find_layout
from steering.pairs.schema import Record

MAX_ROWS = 50_000
"""Rows that are read of one source; five times the largest set of published steering work (10,000 pairs, CAST)."""

MAX_BYTES = 100_000_000
"""Of one file: `MAX_ROWS` pairs of 2,000 bytes."""

SPLITS = ("train", "validation", "valid", "val", "dev", "test", "eval")
"""Parts of a data set, of which the first one that is there is read; `train_prefs` is a part for training, too."""

SAMPLE_ROWS = 20
"""Rows that a layout is found by."""


class RawTable(NamedTuple):
    """A file's records, not yet checked.

    Attributes:
        layout: which column holds what.
        records: may raise SteeringError on the way.
        unit: what the records are counted in, "line" of the file or "row".
        notes: sentences for the reader of the report, such as which encoding the text is in.
    """

    layout: Layout
    records: Iterator[Record]
    unit: str
    notes: list[str]


@dataclass(frozen=True, slots=True)
class PairFile:
    """The bytes of one file, and how the caller wants them read.

    Attributes:
        name, data: of the file; text is in UTF-8.
        columns: field of a pair -> column, where the caller says so.
        path: the file itself, where it is one on this machine: Parquet is read from there.
        cut: whether `data` is only the beginning of a larger file.
        notes: what was found out on the way.
        find: how a layout is found; `preview` looks at files whose columns are not known.
    """

    name: str
    data: bytes
    columns: Mapping[str, str]
    path: Path | None = None
    cut: bool = False
    notes: list[str] = field(default_factory=list)
    find: Any = find_layout

    def table(self, names: Iterable[str], records: Iterator[Record], unit: str) -> RawTable:
        """Find the layout by the names and the first records, and make the table of it."""
        sample, records = peeked(records)
        return RawTable(self.find(names, self.columns, self.name, sample), records, unit, self.notes)


def split_rank(name: str) -> int | None:
    """Return the place among `SPLITS` of the part that a key or a path names, such as `test_prefs`; None if none."""
    words = re.split(r"[\W_]+", name.casefold())
    return next((rank for rank, split in enumerate(SPLITS) if split in words), None)


def peeked(records: Iterator[Record]) -> tuple[list[Mapping[str, Any]], Iterator[Record]]:
    """Return (the cells of the first records, all records); an error among the first is raised where it stands."""
    first: list[Record] = []
    failure: list[Exception] = []
    try:
        first.extend(islice(records, SAMPLE_ROWS))
    except Exception as error:  # noqa: BLE001 - raised below, when the reading comes to it
        failure.append(error)

    def rest() -> Iterator[Record]:
        if failure:
            raise failure[0]
        yield from records

    return [cells for _, cells in first if not isinstance(cells, str)], chain(first, rest())


Row = TypeVar("Row")


def at_most(rows: Iterator[Row], most: int, draw_seed: int | None, source: str, notes: list[str]) -> Iterator[Row]:
    """Yield the first `most` rows, or with a seed that many drawn ones in their order; note it if there are more."""
    if draw_seed is None:
        yield from islice(rows, most)
        if next(rows, None) is not None:
            notes.append(f"{source} has more than {most:,} rows; the first {most:,} were read.")
        return
    drawn, count = _drawn(rows, most, draw_seed)
    if count > most:
        notes.append(f"{most:,} of the {count:,} rows of {source} were drawn at random.")
    yield from drawn


def _drawn(rows: Iterator[Row], most: int, seed: int) -> tuple[list[Row], int]:
    """Draw rows evenly without knowing their number (reservoir sampling, Vitter 1985, algorithm R)."""
    draw = random.Random(seed)
    kept: list[tuple[int, Row]] = []
    count = 0
    for count, row in enumerate(rows, 1):
        if len(kept) < most:
            kept.append((count, row))
        elif (place := draw.randrange(count)) < most:
            kept[place] = (count, row)
    return [row for _, row in sorted(kept, key=lambda one: one[0])], count
