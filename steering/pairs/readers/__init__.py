"""Parse files of preference pairs: whatever kind of file it is, its rows become records."""

from steering.pairs.readers.files import SUFFIXES, open_table, pasted_table
from steering.pairs.readers.folders import FolderRows, folder_tables
from steering.pairs.readers.table import MAX_BYTES, MAX_ROWS, RawTable

__all__ = [
    "FolderRows",
    "MAX_BYTES",
    "MAX_ROWS",
    "SUFFIXES",
    "RawTable",
    "folder_tables",
    "open_table",
    "pasted_table",
]
