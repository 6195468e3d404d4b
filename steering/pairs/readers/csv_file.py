"""CSV and TSV, in the dialects that spreadsheets write."""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from steering.errors import SteeringError
from steering.pairs.readers.table import MAX_BYTES, PairFile, RawTable
from steering.pairs.schema import Record

SEPARATOR_LINE = re.compile(rb"\s*\"?sep=(.)\"?[ \t]*[,;\t]*\r?\n", re.IGNORECASE)
"""Excel's first line that names the separator."""
QUOTED_CELL = re.compile(r'"[^"]*(?:""[^"]*)+"')
"""A cell whose quotes are doubled inside of quotes, as only a writer that quotes would do."""


def csv_table(file: PairFile, delimiters: str = ",;\t|") -> RawTable:
    """Parse CSV by the first delimiter whose header fits; Excel writes `;` where `,` is the decimal point."""
    skipped = 0
    if named := SEPARATOR_LINE.match(file.data):
        delimiters, skipped = named.group(1).decode(errors="replace"), 1
        file = replace(file, data=file.data[named.end() :])
    failures: list[tuple[int, SteeringError]] = []
    for delimiter in delimiters:
        header: list[str] = []
        try:
            records = _records(file, delimiter, skipped, quoted=True)
            _, header = next(records, (0, []))
            table = file.table(header, _rows(header, records), "line")
            if delimiter == "\t" and not _quotes_are_quotes(file, skipped):
                _, header = next(records := _records(file, delimiter, skipped, quoted=False))
                file.notes.append("Quotes in it are part of the texts: they do not open and close the cells.")
                table = file.table(header, _rows(header, records), "line")
        except SteeringError as error:
            failures.append((len(header), error))
            continue
        return table
    raise max(failures, key=lambda failure: failure[0])[1]


def _quotes_are_quotes(file: PairFile, skipped: int) -> bool:
    """Whether the quotes of a tab-separated file are in pairs around cells, as far as its first lines tell.

    Many programs write tabs with no quoting at all; a quote at the beginning of a cell is then a letter like others.
    Without this, such a cell would swallow the lines up to the next quote.
    """
    width = None
    try:
        for _, cells in _records(file, "\t", skipped, quoted=True):
            if width is not None and len(cells) != width:
                break
            width = len(cells)
        else:
            return True
    except SteeringError:
        pass
    widths = set()
    for _, cells in _records(file, "\t", skipped, quoted=False):
        widths.add(len(cells))
        if len(widths) > 1 or any(QUOTED_CELL.fullmatch(cell) for cell in cells):
            return True
    return False


def _rows(header: list[str], records: Iterable[tuple[int, list[str]]]) -> Iterator[Record]:
    for line, cells in records:
        if cells == header or [cells[0].lstrip("\ufeff").strip('"'), *cells[1:]] == header:  # files put together
            yield line, "the header once more"
        elif len(cells) == len(header):
            yield line, dict(zip(header, cells, strict=True))
        elif not cells[len(header) :] or any(cells[len(header) :]):
            yield line, f"the number of fields differs from the header's ({len(cells)} instead of {len(header)})"
        else:  # a spreadsheet may add empty cells at the end
            yield line, dict(zip(header, cells, strict=False))


def _records(file: PairFile, delimiter: str, skipped: int, *, quoted: bool) -> Iterator[tuple[int, list[str]]]:
    """Yield (the line of the file on which a record starts, its cells), leaving blank lines out."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_BYTES))  # a field too long must cost its row, not the file
    lines = io.TextIOWrapper(io.BytesIO(file.data), encoding="utf-8", newline="")
    # strict: else an unclosed quote eats the rows below it
    reader = csv.reader(
        lines, delimiter=delimiter, strict=quoted, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    )
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line + skipped, cells
            line = reader.line_num + 1
    except csv.Error as error:
        if file.cut:  # in the middle of a field
            return
        raise SteeringError(
            f'{file.name}, line {line + skipped:,}: in the row that starts here, a field opens with a quote (") that '
            'is not closed before the next field; close it, and write quotes inside of the field twice ("").'
        ) from error
