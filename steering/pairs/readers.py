"""Parse files of preference pairs: CSV, TSV, JSON, JSONL and Parquet become records, one for each row.

Nothing here judges what a row says; `schema.py` does. A reader finds the columns first, so that it can refuse a file
it does not understand before reading it, and then yields its records one by one.
"""

import codecs
import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from steering.errors import SteeringError
from steering.pairs.schema import Layout, Record, find_layout, quoted_list, type_in_words

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

MAX_ROWS = 50_000
"""Rows of one file; five times the largest set of published steering work (10,000 pairs, CAST)."""

MAX_BYTES = 100_000_000
"""Of one file: `MAX_ROWS` pairs of 2,000 bytes."""

MAX_UNPACKED_BYTES = 512_000_000
"""Of a Parquet file's columns, unpacked: a laptop holds it in memory beside the model."""

MAX_JSON_VALUES = 5_000_000
"""A parsed value takes up to 70 bytes of memory, however short it was in the file: 350 MB in all."""


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
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PairFile:
    """The bytes of one file, and how the caller wants them read.

    Attributes:
        name, data: of the file; `data` with more than `MAX_BYTES` bytes is refused.
        columns: field of a pair -> column, where the caller says so.
        max_rows: more rows than this are refused.
    """

    name: str
    data: bytes
    columns: Mapping[str, str]
    max_rows: int

    @classmethod
    def open(cls, path: Path, columns: Mapping[str, str] | None, max_rows: int) -> "PairFile":
        """Read a file's bytes; raise SteeringError for an unknown suffix or a file that cannot be read."""
        if path.suffix.lower() not in SUFFIXES:
            raise SteeringError(f"{path.name}: cannot read this kind of file; bring one of {', '.join(SUFFIXES)}.")
        try:
            if not path.is_file():
                raise SteeringError(f"{path.name}: there is no such file; check the path.")
            with path.open("rb") as file:
                data = file.read(min(path.stat().st_size, MAX_BYTES) + 1)
                return cls(path.name, data, columns or {}, max_rows)
        except OSError as error:
            raise SteeringError(f"{path.name}: cannot open the file ({error}); check the path.") from error

    def table(self, layout: str) -> RawTable:
        """Parse the file.

        Args:
            layout: one of `SUFFIXES`, or "pasted": text that is JSON if it begins with a bracket, else CSV.

        Raises:
            SteeringError: too large, not UTF-8, empty, or not of this layout.
        """
        if len(self.data) > MAX_BYTES:
            raise SteeringError(f"{self.name}: larger than {MAX_BYTES // 10**6} MB; keep fewer pairs.")
        data = self.data if layout == ".parquet" else _utf8(self.data, self.name)
        if not data.strip():
            raise SteeringError(f"{self.name}: there is nothing in it; give it one row for each preference pair.")
        if layout == "pasted":
            layout = ".json" if data.lstrip().startswith((b"{", b"[")) else ".csv"
        return READERS[layout](replace(self, data=data))

    def layout(self, names: Iterable[str], *, conversations: bool = True) -> Layout:
        """Find the columns of prompt, chosen and rejected among `names` (see `find_layout`)."""
        return find_layout(names, self.columns, self.name, conversations=conversations)


def too_many(source: str, max_rows: int, rows: int | None = None) -> SteeringError:
    """Make the error for a source with more than `max_rows` rows; `rows` is their number, where it is known."""
    amount = f"{rows:,} rows, more than the {max_rows:,} that can be read" if rows else f"more than {max_rows:,} rows"
    return SteeringError(f"{source}: there are {amount}; keep fewer.")


def limited(rows: Iterable[Record], source: str, max_rows: int) -> Iterator[Record]:
    """Yield the rows; raise SteeringError at the first one beyond `max_rows`."""
    rows = iter(rows)
    yield from islice(rows, max_rows)
    if next(rows, None) is not None:
        raise too_many(source, max_rows)


def _utf8(data: bytes, name: str) -> bytes:
    """Return the bytes without byte order mark; raise SteeringError unless they are text in UTF-8."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise SteeringError(f"{name}: the text is in UTF-16, not UTF-8; save it as UTF-8 (in Excel: 'CSV UTF-8').")
    if (nul := data.find(0)) >= 0:
        raise SteeringError(f"{name}: the file looks binary (NUL at byte {nul:,}); bring a text file in UTF-8.")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SteeringError(
            f"{name}, line {line:,}: the text is not UTF-8 at byte {error.start:,}; save it as UTF-8."
        ) from error
    return data.removeprefix(codecs.BOM_UTF8)


# CSV and TSV ---------------------------------------------------------------------------------------------------------


def _csv(file: PairFile, delimiters: str = ",;\t") -> RawTable:
    """Parse CSV by the first delimiter whose header fits; Excel writes `;` where `,` is the decimal point."""
    failures: list[tuple[int, SteeringError]] = []
    for delimiter in delimiters:
        records = _csv_records(file, delimiter)
        header: list[str] = []
        try:
            _, header = next(records)
            layout = file.layout(header, conversations=False)
        except SteeringError as error:
            failures.append((len(header), error))
            continue
        return RawTable(layout, limited(_csv_rows(header, records), file.name, file.max_rows), "line")
    raise max(failures, key=lambda failure: failure[0])[1]


def _csv_rows(header: list[str], records: Iterable[tuple[int, list[str]]]) -> Iterator[Record]:
    for line, cells in records:
        if len(cells) == len(header):
            yield line, dict(zip(header, cells, strict=True))
        else:
            yield line, f"the number of fields differs from the header's ({len(cells)} instead of {len(header)})"


def _csv_records(file: PairFile, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (the line of the file on which a record starts, its cells), leaving blank lines out."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_BYTES))  # a field too long must cost its row, not the file
    lines = io.TextIOWrapper(io.BytesIO(file.data), encoding="utf-8", newline="")
    reader = csv.reader(lines, delimiter=delimiter, strict=True)  # else an unclosed quote eats the rows below it
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise SteeringError(
            f'{file.name}, line {line:,}: in the row that starts here, a field opens with a quote (") that is not '
            'closed before the next field; close it, and write quotes inside of the field twice ("").'
        ) from error


# JSON and JSONL ------------------------------------------------------------------------------------------------------


def _json(file: PairFile) -> RawTable:
    """Parse a list of objects; the same under "data" or "rows"; an object of columns; one single object."""
    _check_json_size(file)
    try:
        value = _parsed(file.data)
    except RecursionError:
        raise SteeringError(f"{file.name}: the JSON is nested too deeply; give a list of flat objects.") from None
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and file.data.lstrip().startswith(b"{"):
            return _jsonl(file)  # many a .json file holds one object a line
        where = f"{file.name}, line {error.lineno:,}, column {error.colno:,}"
        raise SteeringError(f"{where}: this is not valid JSON ({error.msg}); correct it.") from error

    if isinstance(value, dict):
        value = next((value[key] for key in ("data", "rows") if isinstance(value.get(key), list)), value)
    rows = value if isinstance(value, list) else _rows_of_columns(value, file)
    if len(rows) > file.max_rows:
        raise too_many(file.name, file.max_rows, len(rows))
    return _json_table(file, [(number, _object(row)) for number, row in enumerate(rows, 1)], "row")


def _rows_of_columns(value: Any, file: PairFile) -> list[Any]:
    if not isinstance(value, dict):
        raise SteeringError(
            f"{file.name}: the JSON is {type_in_words(value)}; give a list of objects, one for each pair."
        )
    used = file.layout(value).used()
    if not all(isinstance(value[name], list) for name in used):
        return [value]  # not columns, but one pair
    if len({len(value[name]) for name in used}) > 1:
        raise SteeringError(
            f"{file.name}: the columns {quoted_list(used)} differ in length; give each one value a pair."
        )
    return [dict(zip(used, cells, strict=True)) for cells in zip(*(value[name] for name in used), strict=True)]


def _jsonl(file: PairFile) -> RawTable:
    _check_json_size(file)
    rows: list[Record] = []
    for number, line in enumerate(io.BytesIO(file.data), 1):
        if not line.strip():
            continue
        if len(rows) == file.max_rows:
            raise too_many(file.name, file.max_rows)
        try:
            rows.append((number, _object(_parsed(line))))
        except RecursionError:
            rows.append((number, "the JSON is nested too deeply"))
        except json.JSONDecodeError as error:
            rows.append((number, f"the line is not valid JSON ({error.msg}, column {error.colno})"))
    return _json_table(file, rows, "line")


def _json_table(file: PairFile, rows: list[Record], unit: str) -> RawTable:
    names = list(dict.fromkeys(name for _, row in rows if isinstance(row, dict) for name in row))
    # With no object at all there are no columns to miss: each row then carries its own reason.
    layout = file.layout(names) if names else Layout()
    return RawTable(layout, iter(rows), unit)


def _parsed(text: bytes) -> Any:
    return json.loads(text.decode(), parse_int=float)  # int() refuses 5,000 digits with an error of its own


def _object(value: Any) -> dict[str, Any] | str:
    return value if isinstance(value, dict) else f"the row is not an object ({type_in_words(value)})"


def _check_json_size(file: PairFile) -> None:
    if sum(file.data.count(mark) for mark in (b",", b"[", b"{")) > MAX_JSON_VALUES:
        raise SteeringError(f"{file.name}: the JSON holds more than {MAX_JSON_VALUES:,} values; keep fewer pairs.")


# Parquet -------------------------------------------------------------------------------------------------------------


def _parquet(file: PairFile) -> RawTable:
    import pyarrow as pa  # slow to import, and few files need it
    import pyarrow.parquet as pq

    try:
        opened = pq.ParquetFile(pa.BufferReader(file.data))
        names, metadata = opened.schema_arrow.names, opened.metadata
        unpacked = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
        leaves = [opened.schema.column(index) for index in range(len(opened.schema))]
        # Texts stay dictionaries: one long text repeated in every row packs to next to nothing, and must not unpack.
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        opened = pq.ParquetFile(pa.BufferReader(file.data), read_dictionary=texts)
    except Exception as error:  # pyarrow reports a damaged file by a dozen kinds of exception
        raise _damaged(file) from error
    if metadata.num_rows > file.max_rows:
        raise too_many(file.name, file.max_rows, metadata.num_rows)
    if unpacked > MAX_UNPACKED_BYTES:
        raise SteeringError(f"{file.name}: larger than {MAX_UNPACKED_BYTES // 10**6} MB unpacked; keep fewer pairs.")
    layout = file.layout(names)
    return RawTable(layout, limited(_parquet_rows(file, layout, opened), file.name, file.max_rows), "row")


def _parquet_rows(file: PairFile, layout: Layout, opened: "ParquetFile") -> Iterator[Record]:
    number = 0
    try:
        for batch in opened.iter_batches(batch_size=64, columns=layout.used()):  # few: a text may be long
            batch.validate(full=True)
            for index in range(batch.num_rows):
                number += 1
                yield number, batch.slice(index, 1).to_pylist()[0]
    except Exception as error:
        raise _damaged(file) from error


def _damaged(file: PairFile) -> SteeringError:
    return SteeringError(f"{file.name}: the file is damaged or not Parquet; write or download it again.")


READERS = {
    ".csv": _csv,
    ".tsv": lambda file: _csv(file, "\t,;"),
    ".json": _json,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}

SUFFIXES = tuple(READERS)
"""Suffixes of the files that can be read, for file pickers and messages."""
