"""Look at a source of pairs before reading it: its columns, and the first pair as it would be read. Interim version."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steering.errors import SteeringError
from steering.pairs.dataset import MAX_ROWS
from steering.pairs.readers import PairFile
from steering.pairs.schema import PAIR_FIELDS, BadRow, Layout, PreferencePair, check, pair_of

LONGEST_VALUE = 80


@dataclass(frozen=True)
class PairsPreview:
    """What a source holds.

    Attributes:
        paths: column -> its first value, shortened.
        mapping: field of a pair -> column in use, perhaps incomplete.
        layout: name of the layout that was recognised; empty if none was.
        pair: the first pair, as it would be read.
        problem: one sentence on what stands in the way; empty if nothing does.
    """

    paths: dict[str, str]
    mapping: dict[str, str]
    layout: str
    pair: PreferencePair | None
    problem: str


@dataclass(frozen=True, slots=True)
class _AllColumns(Layout):
    names: tuple[str, ...] = ()

    def used(self) -> list[str]:
        return [*self.names]


class _AnyFile(PairFile):
    """A file whose columns are all read, whatever they are called."""

    __slots__ = ()

    def layout(self, names: Iterable[str], *, conversations: bool = True) -> Layout:
        return _AllColumns(names=tuple(names))


def preview_pairs(source: str | Path | bytes, *, columns: Mapping[str, str] | None = None) -> PairsPreview:
    """Look at a file, or at pasted text given as bytes; `columns` as in `read_pairs`. Raises nothing for bad input."""
    try:
        paths = _paths(source)
    except SteeringError as error:
        return PairsPreview({}, dict(columns or {}), "", None, str(error))
    try:
        file, kind = _opened(PairFile, source, columns or {})
        table = file.table(kind)
        mapping = {field: name for field, name in table.layout.columns().items() if name in paths}
        layout = "" if columns else "prompt, chosen, rejected"
        line, row = next(iter(table.layout.rows(table.records)), (0, "there is none"))
        pair = pair_of(line, row)
        check(pair)
    except SteeringError as error:
        known = {name: name for name in PAIR_FIELDS if name in paths}
        return PairsPreview(paths, dict(columns or known), "", None, str(error))
    except BadRow as error:
        return PairsPreview(paths, mapping, layout, None, f"The first row is left out: {error}.")
    return PairsPreview(paths, mapping, layout, pair, "")


def _paths(source: str | Path | bytes) -> dict[str, str]:
    """Map the columns to their first values."""
    file, kind = _opened(_AnyFile, source, {})
    table = file.table(kind)
    if not isinstance(table.layout, _AllColumns):  # there was no row to have columns
        return {}
    first: Any = next((cells for _, cells in table.records if isinstance(cells, Mapping)), {})
    return {name: _short(first.get(name)) for name in table.layout.names}


def _opened(kind: type[PairFile], source: str | Path | bytes, columns: Mapping[str, str]) -> tuple[PairFile, str]:
    if isinstance(source, bytes):
        return kind("pasted text", source, columns, MAX_ROWS), "pasted"
    path = Path(source)
    return kind.open(path, columns, MAX_ROWS), path.suffix.lower()


def _short(value: Any) -> str:
    text = " ".join(str("" if value is None else value).split())
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
