"""Open a source of pairs and give it to the reader of its kind."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from steering.errors import SteeringError
from steering.pairs.layout import find_layout
from steering.pairs.readers.archives import PACKED_SUFFIXES, is_packed, unpacked
from steering.pairs.readers.csv_file import DELIMITERS, csv_table
from steering.pairs.readers.encodings import to_utf8
from steering.pairs.readers.json_file import json_table
from steering.pairs.readers.parquet_file import parquet_table
from steering.pairs.readers.table import MAX_BYTES, MAX_ROWS, PairFile, RawTable

READERS: dict[str, Callable[[PairFile], RawTable]] = {
    ".csv": lambda file: _sniffed(file),
    ".tsv": lambda file: _sniffed(file, "\t,;|"),
    ".tab": lambda file: _sniffed(file, "\t,;|"),
    ".txt": lambda file: _sniffed(file, "\t,;|" if b"\t" in file.data.lstrip().partition(b"\n")[0] else ",;\t|"),
    ".json": lambda file: _json(file, lines=False),
    ".jsonl": lambda file: _json(file, lines=True),
    ".ndjson": lambda file: _json(file, lines=True),
}
PARQUET = ".parquet"
DATA_SUFFIXES = (*READERS, PARQUET)
SUFFIXES = (*DATA_SUFFIXES, *PACKED_SUFFIXES)
"""Suffixes of the files that can be read, for file pickers and messages."""
LINES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson")
"""Kinds of which the beginning of a file can be read alone."""
BRACKETS = (b"{", b"[")

Find = Callable[..., Any]


def open_table(path: Path, columns: Mapping[str, str], most: int = MAX_ROWS, find: Find = find_layout) -> RawTable:
    """Parse a file, packed or not, by its suffix, and by its first bytes where these say otherwise.

    Raises:
        SteeringError: of an unknown kind, unreadable, too large, empty, damaged, or of an unknown layout.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise SteeringError(f"{path.name}: cannot read this kind of file; bring one of {', '.join(SUFFIXES)}.")
    try:
        if not path.is_file():
            raise SteeringError(f"{path.name}: there is no such file; check the path.")
        with path.open("rb") as opened:
            parquet = opened.read(4) == b"PAR1"
            opened.seek(0)
            data = b"" if parquet else opened.read(min(path.stat().st_size, MAX_BYTES) + 1)
    except OSError as error:
        raise SteeringError(f"{path.name}: cannot open the file ({error}); check the path.") from error
    if parquet:
        return parquet_table(PairFile(path.name, b"", columns, path=path, find=find), most)
    return _table(PairFile(path.name, data, columns, find=find), path.name, most)


def pasted_table(text: str, source: str, columns: Mapping[str, str], find: Find = find_layout) -> RawTable:
    """Parse a text: JSON or JSONL if it begins with a bracket, else CSV or TSV."""
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise SteeringError(f"{source}: character {error.start + 1:,} is broken; copy the text again.") from error
    return _read(PairFile(source, data, columns, find=find), READERS[".txt"])


def _table(file: PairFile, name: str, most: int) -> RawTable:
    """Unpack a file if need be, and read it as what its name and its first bytes say."""
    suffix = Path(name).suffix.lower()
    if is_packed(file.data):
        _check_size(file)
        inner, data = unpacked(name, file.data, DATA_SUFFIXES)
        suffix = Path(inner).suffix.lower()
        if is_packed(data):
            raise SteeringError(f"{name}: there is an archive in the archive; unpack it, and bring the file inside.")
        file = replace(file, data=data)
    if file.data.startswith(b"PAR1"):
        _check_size(file)
        return parquet_table(file, most)
    if suffix == PARQUET or suffix in PACKED_SUFFIXES:
        if not file.data.strip():
            raise SteeringError(f"{file.name}: there is nothing in it; give it one row for each preference pair.")
        kind = "Parquet" if suffix == PARQUET else suffix[1:]
        raise SteeringError(f"{file.name}: the file is damaged or not {kind}; write or download it again.")
    if suffix not in READERS:
        suffix = ".txt"  # name.gz, with no suffix inside
    if len(file.data) > MAX_BYTES and suffix in LINES and b"\n" in file.data:
        file = replace(file, data=file.data[: file.data.rfind(b"\n") + 1], cut=True)
        file.notes.append(f"{file.name} is larger than {MAX_BYTES // 10**6} MB; what lies beyond was not read.")
    return _read(file, READERS[suffix])


def _read(file: PairFile, reader: Callable[[PairFile], RawTable]) -> RawTable:
    _check_size(file)
    data, note = to_utf8(file.data, file.name)
    if note:
        file.notes.append(note)
    if not data.strip():
        raise SteeringError(f"{file.name}: there is nothing in it; give it one row for each preference pair.")
    return reader(replace(file, data=data))


def _check_size(file: PairFile) -> None:
    if len(file.data) > MAX_BYTES:
        raise SteeringError(f"{file.name}: larger than {MAX_BYTES // 10**6} MB; keep fewer pairs.")


def _sniffed(file: PairFile, delimiters: str = DELIMITERS) -> RawTable:
    """Read text as CSV, or as JSON where it begins as that, whatever its suffix says."""
    if file.data.lstrip().startswith(BRACKETS):
        return json_table(file, lines=True)
    return csv_table(file, delimiters)


def _json(file: PairFile, *, lines: bool) -> RawTable:
    """Read JSON, or a table under a wrong suffix where the header says that it is one."""
    if not file.data.lstrip().startswith(BRACKETS):
        with contextlib.suppress(SteeringError):
            return csv_table(file)
    return json_table(file, lines=lines)
