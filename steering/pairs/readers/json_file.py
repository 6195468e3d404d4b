"""JSON and JSONL, in the containers that people and programs put rows into."""

import io
import json
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

from steering.errors import SteeringError
from steering.pairs.layout import Layout, find_layout
from steering.pairs.messages import is_message
from steering.pairs.readers.table import PairFile, RawTable, split_rank
from steering.pairs.schema import Record, quoted_list, type_in_words

MAX_JSON_VALUES = 5_000_000
"""A parsed value takes up to 70 bytes of memory, however short it was in the file: 350 MB in all."""

ROW_LISTS = ("data", "rows", "examples", "instances", "records", "items", "samples", "pairs", "dataset")
"""Keys under which an object keeps its list of rows, in the order in which they are looked for."""
MOST_WRAPPINGS = 8
"""Objects around the rows, one inside the other."""
TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*+(?:"|\Z))|,(?=\s*+[\]}])', re.DOTALL)
"""A string, which stays as it is, or a comma with nothing behind it."""
WRAPPED_ROW = {"row_idx", "row", "truncated_cells"}
"""Keys of a row as the Hub's dataset viewer gives it."""


def json_table(file: PairFile, *, lines: bool = False) -> RawTable:
    """Parse JSON, whichever way the rows are held: a list, an object around one, columns, one pair, an object a line.

    Args:
        lines: the file says that it is JSONL; a line that is not valid then costs its row only.
    """
    if sum(file.data.count(mark) for mark in (b",", b"[", b"{")) > MAX_JSON_VALUES:
        raise SteeringError(f"{file.name}: the JSON holds more than {MAX_JSON_VALUES:,} values; keep fewer pairs.")
    if lines and _begins_as_lines(file.data):
        return _lines(file)
    try:
        value = _parsed(file.data)
    except RecursionError:
        raise SteeringError(f"{file.name}: the JSON is nested too deeply; give a list of flat objects.") from None
    except json.JSONDecodeError as error:
        if values := _one_after_the_other(file.data):
            return _table(file, [(number, _object(each)) for number, each in enumerate(values, 1)], "row")
        if lines or (error.msg == "Extra data" and file.data.lstrip().startswith((b"{", b"["))):
            return _lines(file)
        where = f"{file.name}, line {error.lineno:,}, column {error.colno:,}"
        raise SteeringError(f"{where}: this is not valid JSON ({error.msg}); correct it.") from error
    rows = _rows_in(value, file)
    return _table(file, [(number, _object(row)) for number, row in enumerate(rows, 1)], "row")


def _begins_as_lines(data: bytes) -> bool:
    """Whether the first lines hold an object each: more than one value, or one that is a row."""
    first = list(islice((line for line in io.BytesIO(data) if line.strip()), 2))
    try:
        return len(first) == 2 and all(isinstance(_parsed(line), dict) for line in first[:1])
    except (ValueError, RecursionError):
        return False


def _lines(file: PairFile) -> RawTable:
    rows: list[Record] = []
    for number, line in enumerate(io.BytesIO(file.data), 1):
        if not line.strip():
            continue
        try:
            value = _parsed(line)
        except RecursionError:
            rows.append((number, "the JSON is nested too deeply"))
        except json.JSONDecodeError as error:
            rows.append((number, f"the line is not valid JSON ({error.msg}, column {error.colno})"))
        else:
            if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
                rows.extend((number, each) for each in value)  # a list of rows in each line
            else:
                rows.append((number, _object(value)))
    return _table(file, rows, "line")


def _one_after_the_other(data: bytes) -> list[Any]:
    """Parse objects that follow each other over several lines; nothing unless all of the text is such objects."""
    decoder, text, values = json.JSONDecoder(parse_int=float), data.decode(), []
    place = len(text) - len(text.lstrip())
    while place < len(text):
        try:
            value, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            return []
        if not isinstance(value, dict):
            return []
        values.append(value)
        rest = text[place:].lstrip().removeprefix(",").lstrip() if len(values) < 2 else None
        place = len(text) - len(rest) if rest is not None else _next(text, place)
    return values


def _next(text: str, place: int) -> int:
    """Find the next character that is neither white space nor a comma."""
    while place < len(text) and (text[place].isspace() or text[place] == ","):
        place += 1
    return place


def _rows_in(value: Any, file: PairFile, depth: int = 0) -> list[Any]:
    """Find the rows in a parsed file."""
    if isinstance(value, list):
        return _with_header(value)
    if not isinstance(value, dict):
        raise SteeringError(
            f"{file.name}: the JSON is {type_in_words(value)}; give a list of objects, one for each pair."
        )
    if {"columns", "data"} <= value.keys() and isinstance(value["columns"], list):  # pandas, orient="split"
        return [_zipped(value["columns"], cells) for cells in value["data"] if isinstance(value["data"], list)]
    if _is_wrapped(value):
        return [value]
    key = None if depth == MOST_WRAPPINGS or _known(value, file) else _key_of_rows(value, file)
    if key is None:
        return _columns(value, file)
    whole, rows = value.get("num_rows_total"), value[key]
    if isinstance(whole, int | float) and isinstance(rows, list) and len(rows) < whole:
        file.notes.append(f"{file.name} is a page of a data set: it holds {len(rows):,} of {int(whole):,} rows.")
    return _rows_in(rows, file, depth + 1)


def _key_of_rows(value: dict[str, Any], file: PairFile) -> str | None:
    """Find the key that holds the rows of an object that is no row and no set of columns itself."""
    inside = {key: each for key, each in value.items() if isinstance(each, dict | list) and each}
    parts = {key: number for key in inside if (number := split_rank(key)) is not None}
    if parts:
        key = min(parts, key=lambda key: parts[key])
        if others := [other for other in parts if other != key]:
            file.notes.append(f"{file.name} holds {quoted_list([key, *others])}; {key!r} was read.")
        return key
    holders = [key for key, each in inside.items() if isinstance(each, dict) or all(map(_is_row, each))]
    named = [key for key in ROW_LISTS if key in holders]
    lists = [
        key
        for key in holders
        if isinstance(inside[key], list) and isinstance(inside[key][0], dict) and _known(inside[key][0], file)
    ]
    if len(lists) > 1 and not named:
        raise SteeringError(
            f"{file.name}: the JSON holds several lists of rows ({quoted_list(lists)}); give one list of pairs."
        )
    return next(iter(named or lists or (holders if len(holders) == len(value) == 1 else [])), None)


def _is_row(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, dict) and not is_message(value))


def _known(row: Mapping[str, Any], file: PairFile) -> bool:
    """Whether an object is a row, or holds the columns of one, by its keys and its values or their first ones."""
    first = {name: each[0] if isinstance(each, list) and each else each for name, each in row.items()}
    for sample in (row, first):
        try:
            find_layout(row, file.columns, file.name, [sample])
            return True
        except SteeringError:
            continue
    return False


def _columns(value: dict[str, Any], file: PairFile) -> list[Any]:
    """Turn an object of columns into rows; an object of anything else is one row, or rows by number."""
    cells = list(value.values())
    if cells and all(isinstance(each, dict) for each in cells) and not any(map(is_message, cells)):
        keys, number = list(cells[0]), all(key.isdecimal() for key in cells[0])
        if all(each.keys() == cells[0].keys() for each in cells) and (number or _known(value, file)):
            return [{name: column[key] for name, column in value.items()} for key in keys]  # pandas, orient="columns"
        if all(key.isdecimal() for key in value) or _known(cells[0], file):
            return cells  # pandas, orient="index"
    lists = {name: each for name, each in value.items() if isinstance(each, list)}
    columns = {name: each for name, each in lists.items() if not _is_conversation(each)}
    if columns and all(len(each) == 1 for each in lists.values()):  # one row: what looks like messages is a column, too
        columns = lists
    first = {**value, **{name: each[0] for name, each in columns.items() if each}}
    layout = file.find(value, file.columns, file.name, [first])
    used = list(dict.fromkeys(path.partition(".")[0] for path in layout.used()))
    if not all(name in columns for name in used if name in value):
        return [value]  # not columns, but one pair
    lengths = {len(columns[name]) for name in used if name in columns}
    if len(lengths) > 1:
        raise SteeringError(
            f"{file.name}: the columns {quoted_list(used)} differ in length; give each one value a pair."
        )
    length = lengths.pop() if lengths else 0
    whole = {name: each for name, each in columns.items() if len(each) == length}
    return [_zipped(list(whole), row) for row in zip(*whole.values(), strict=True)]


def _is_conversation(value: Any) -> bool:
    """Whether a list is the messages of one conversation rather than a column of messages, one in each row."""
    if not isinstance(value, list) or not value or not all(is_message(item) for item in value):
        return False
    roles = {str(item.get("role", item.get("from"))) for item in value}
    return len(value) == 1 or len(roles) > 1


def _with_header(rows: list[Any]) -> list[Any]:
    """Read a list of lists whose first one names the columns; any other list as it is."""
    tabular = len(rows) > 1 and all(isinstance(row, list) and len(row) == len(rows[0]) for row in rows)
    if tabular and all(isinstance(name, str) for name in rows[0]):
        return [_zipped(rows[0], row) for row in rows[1:]]
    return rows


def _zipped(names: list[Any], cells: Any) -> Any:
    return dict(zip(map(str, names), cells, strict=False)) if isinstance(cells, list | tuple) else cells


def _table(file: PairFile, rows: list[Record], unit: str) -> RawTable:
    rows = [(number, _unwrapped(row)) for number, row in rows]
    names = list(dict.fromkeys(name for _, row in rows if isinstance(row, Mapping) for name in row))
    if names:
        return file.table(names, iter(rows), unit)
    # With no object at all there are no columns to miss: each row then carries its own reason.
    return RawTable(Layout(), iter(rows), unit, file.notes)


def _is_wrapped(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("row"), dict) and row.keys() <= WRAPPED_ROW


def _unwrapped(row: Mapping[str, Any] | str) -> Mapping[str, Any] | str:
    """Take a row of the Hub's dataset viewer out of its wrapping."""
    if isinstance(row, str) or not _is_wrapped(row):
        return row
    if cut := row.get("truncated_cells"):
        return f"the dataset viewer cut off some of its cells ({quoted_list([str(each) for each in cut])})"
    return row["row"]


def _parsed(data: bytes) -> Any:
    """Parse JSON, commas before a closing bracket included, as people and some programs write them."""
    text = data.decode()
    try:
        return json.loads(text, parse_int=float)  # int() refuses 5,000 digits with an error of its own
    except json.JSONDecodeError as error:
        cleaned = TRAILING_COMMA.sub(lambda found: found[1] or " ", text)
        if cleaned == text:
            raise
        try:
            return json.loads(cleaned, parse_int=float)
        except json.JSONDecodeError:
            raise error from None


def _object(value: Any) -> dict[str, Any] | str:
    return value if isinstance(value, dict) else f"the row is not an object ({type_in_words(value)})"
