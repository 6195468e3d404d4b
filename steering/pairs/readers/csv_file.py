"""CSV and TSV, in the dialects that spreadsheets write."""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from steering.errors import SteeringError
from steering.pairs.readers.table import MAX_BYTES, PairFile, RawTable
from steering.pairs.schema import Record

SEPARATOR_LINE = re.compile(rb"\s*\"?sep=([^\r\n\"]?)\"?[ \t,;|]*(?:\r\n|\r|\n|\Z)", re.IGNORECASE)
"""Excel's first line that names the separator."""
DELIMITERS = ",;\t|"
UNQUOTED = "\t|"
"""Delimiters that many programs write without quoting anything."""
QUOTED_CELL = re.compile(r'"(?:[^"]|"")*"')
"""A cell as a writer that quotes makes it."""


def csv_table(file: PairFile, delimiters: str = DELIMITERS) -> RawTable:
    """Parse CSV by the first delimiter whose header fits; Excel writes `;` where `,` is the decimal point."""
    skipped = 0
    if named := SEPARATOR_LINE.match(file.data):
        separator = named.group(1).decode("ascii", "replace")
        delimiters = separator * (separator in DELIMITERS) + delimiters
        skipped = len(named.group().splitlines())
        file = replace(file, data=file.data[named.end() :])
    failures: list[tuple[int, SteeringError]] = []
    for delimiter in dict.fromkeys(delimiters):
        header: list[str] = []
        try:
            records = _records(file, delimiter, skipped, quoted=True)
            _, header = next(records, (0, []))
            table = file.table(header, _rows(header, records), "line")
            if delimiter in UNQUOTED and _quotes_are_letters(file, delimiter, len(header)):
                _, header = next(records := _records(file, delimiter, skipped, quoted=False))
                table = file.table(header, _rows(header, records), "line")
                file.notes.append("Quotes in it are part of the texts: they do not open and close the cells.")
        except SteeringError as error:
            failures.append((len(header), error))
            continue
        return table
    raise max(failures, key=lambda failure: failure[0])[1]


def _quotes_are_letters(file: PairFile, delimiter: str, width: int) -> bool:
    """Whether the quotes of a file are letters like others, as many programs write them that do not quote at all.

    Read as quotes, one at the beginning of a cell would then swallow all up to the next quote, other rows included.
    So quotes are letters if the file makes more rows of the header's `width` without them than with them; unless most
    cells that open with a quote are closed as well, or one has doubled quotes inside: then a quote is damaged. Where
    the quotes do not even close, every line must be a row of that width.
    """
    if b'"' not in file.data:
        return False
    rows = others = opened = closed = 0
    for _, cells in _records(file, delimiter, 0, quoted=False):
        rows, others = rows + (len(cells) == width), others + (len(cells) != width)
        for cell in cells:
            if cell.startswith('"'):
                opened += 1
                if QUOTED_CELL.fullmatch(cell):
                    closed += 1
                    if '""' in cell[1:-1]:
                        return False
    if opened < 2 * closed or opened == closed:
        return False
    quoted_rows = 0
    try:
        for _, cells in _records(file, delimiter, 0, quoted=True):
            quoted_rows += len(cells) == width
    except SteeringError:
        return not others
    return rows > quoted_rows


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
