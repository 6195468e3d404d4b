"""Look at a source of pairs before reading it: its columns, and the first pair as it would be read."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from steering.errors import SteeringError
from steering.limits import NO_LIMITS, Limits
from steering.pairs.cells import paths_in
from steering.pairs.hub import download, is_hub_id
from steering.pairs.layout import Layout, find_layout
from steering.pairs.readers import RawTable, folder_tables, open_table, pasted_table
from steering.pairs.row_notes import RowNotes
from steering.pairs.rows import pair_of
from steering.pairs.schema import BadRow, PreferencePair, check, shortened

LONGEST_VALUE = 80
"""Characters of a value that is shown."""
FIRST_ROWS = 20
"""Rows among which the first pair is looked for."""


@dataclass(frozen=True)
class PairsPreview:
    """What a source holds.

    Attributes:
        paths: column, or dotted path into one -> its first value, shortened.
        mapping: field of a pair -> column or path in use, perhaps incomplete.
        layout: name of the layout that was recognised; empty if none was.
        pair: the first pair, as it would be read.
        problem: one sentence on what stands in the way; empty if nothing does.
    """

    paths: dict[str, str]
    mapping: dict[str, str]
    layout: str
    pair: PreferencePair | None
    problem: str


@dataclass
class _Finder:
    """Finds a layout as reading does, and keeps what it was shown."""

    names: list[str] = field(default_factory=list)
    sample: list[Mapping[str, Any]] = field(default_factory=list)

    def __call__(
        self, names: Iterable[str], columns: Mapping[str, str], source: str, sample: Sequence[Mapping[str, Any]] = ()
    ) -> Layout:
        if sample:  # delimiters are tried in turn; the header with the most columns is most likely the file's
            names = list(names)
            if len(names) >= len(self.names):
                self.names, self.sample = names, list(sample)
        return find_layout(names, columns, source, sample)

    def paths(self) -> dict[str, str]:
        """List the columns and the paths into them with their first values."""
        found: dict[str, Any] = {}
        for name in self.names:
            value = next((row[name] for row in self.sample if row.get(name) not in (None, "")), None)
            found |= paths_in(name, value)
        return {path: shortened(" ".join(_text(value).split()), LONGEST_VALUE) for path, value in found.items()}


def preview_pairs(
    source: str | Path | bytes, *, columns: Mapping[str, str] | None = None, limits: Limits = NO_LIMITS
) -> PairsPreview:
    """Look at a file, a folder, a data set of the Hub, or pasted text given as bytes; arguments as of `read_pairs`.

    Raises nothing for bad input: `problem` says what is wrong.
    """
    finder = _Finder()
    try:
        table = _table(source, dict(columns or {}), finder, limits)
    except SteeringError as error:
        return PairsPreview(finder.paths(), dict(columns or {}), "", None, str(error))
    paths, layout = finder.paths(), table.layout
    mapping = dict(layout.paths) | ({"label": layout.winner.columns[0]} if layout.winner else {})
    mapping |= {"label": layout.label} if layout.label else {}
    pair, problem = _first_pair(table)
    name = layout.name or ("columns named by hand" if columns else "prompt, chosen, rejected")
    return PairsPreview(paths, mapping, name, pair, problem)


def _table(source: str | Path | bytes, columns: Mapping[str, str], finder: _Finder, limits: Limits) -> RawTable:
    if isinstance(source, bytes):
        limits.check_upload(len(source))
        return pasted_table(source.decode("utf-8", "replace"), "pasted text", columns, finder)
    if is_hub_id(source):
        path = download(str(source), limits).path
    else:
        path = Path(source)
        limits.check_file(path)
    if path.is_dir():
        return next(folder_tables(path, columns, FIRST_ROWS, finder))[1]
    return open_table(path, columns, FIRST_ROWS, finder)


def _first_pair(table: RawTable) -> tuple[PreferencePair | None, str]:
    """Return (the first row that makes a pair, what is wrong if there is none among the first ones)."""
    first = ""
    try:
        for line, row in islice(table.layout.rows(table.records), FIRST_ROWS):
            try:
                pair = pair_of(line, row, RowNotes())
                check(pair)
                return pair, ""
            except BadRow as problem:
                first = first or f"The first row is left out: {problem}."
    except SteeringError as error:
        return None, str(error)
    return None, first or "There are no rows."


def _text(value: Any) -> str:
    return "" if value is None else str(value)
