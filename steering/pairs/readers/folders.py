"""Folders: their data files, one after the other, as one table."""

import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from steering.errors import SteeringError
from steering.pairs.layout import find_layout
from steering.pairs.readers.archives import holds_data
from steering.pairs.readers.files import SUFFIXES, Find, open_table
from steering.pairs.readers.table import RawTable, split_rank
from steering.pairs.report import Dropped, PairsReport, counted
from steering.pairs.rows import RawRow
from steering.pairs.schema import quoted_list

MOST_FILES = 100
MOST_LEVELS = 4
"""Of a folder."""


def folder_tables(
    folder: Path, columns: Mapping[str, str], most: int, find: Find = find_layout
) -> Iterator[tuple[str, RawTable]]:
    """Yield (path inside, table) of every data file in a folder, by path; see `data_files`.

    Raises SteeringError, as `open_table`, or for a folder without any.
    """
    files, _ = data_files(folder)
    for path in files:
        try:
            yield path.relative_to(folder).as_posix(), open_table(path, columns, most, find)
        except SteeringError as error:
            raise type(error)(f"{folder.name}: {error}") from error


def data_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Find (the data files in a folder and those below it, by path; those left out for other ones of it).

    Links and hidden files are not looked at. Where there are files for training and for testing, the latter are left
    out. Raises SteeringError for a folder without any data file.
    """
    files = sorted(_files_below(folder))
    if not files:
        raise SteeringError(f"{folder.name}: the folder holds no file of pairs; put {', '.join(SUFFIXES)} in it.")
    if len(files) > MOST_FILES:
        raise SteeringError(f"{folder.name}: the folder holds more than {MOST_FILES} files; keep fewer.")
    ranks = {path: split_rank(path.relative_to(folder).as_posix()) for path in files}
    if 0 not in ranks.values():
        return files, []
    others = [path for path in files if ranks[path]]
    return [path for path in files if path not in others], others


def _files_below(folder: Path) -> Iterator[Path]:
    count = 0
    for where, folders, names in os.walk(folder):  # follows no links
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        if len(Path(where).relative_to(folder).parts) >= MOST_LEVELS:
            folders.clear()
        for name in names:
            path = Path(where, name)
            if holds_data(name, SUFFIXES) and path.is_file() and not path.is_symlink():
                count += 1
                yield path
        if count > MOST_FILES:
            return


@dataclass
class FolderRows:
    """The rows of all files of a folder, each read by the file's own layout, and counted through.

    Attributes:
        folder, columns, most: as in `folder_tables`.
        opened: (number before its first row, name, table) of each file read so far.
    """

    folder: Path
    columns: Mapping[str, str]
    most: int
    opened: list[tuple[int, str, RawTable]] = field(default_factory=list)

    def __iter__(self) -> Iterator[RawRow]:
        """Yield the rows of one file after the other, opening it when its turn comes."""
        last = 0
        for name, table in folder_tables(self.folder, self.columns, self.most):
            start = last
            self.opened.append((start, name, table))
            for number, row in table.layout.rows(table.records):
                last = max(last, start + number)
                yield start + number, row

    def file_of(self, number: int) -> str:
        """Return the name of the file that a row comes from."""
        starts = [start for start, *_ in self.opened]
        return self.opened[bisect_right(starts, number - 1) - 1][1]

    def report(self, report: PairsReport, kept: Iterable[int]) -> PairsReport:
        """Add to the report of all rows which file is which; `kept` are the numbers of the pairs."""
        pairs, others = Counter(map(self.file_of, kept)), Counter(self.file_of(each.line) for each in report.dropped)
        notes = []
        for _, name, table in self.opened:
            said = f"{counted(pairs[name], 'pair')} kept, {counted(others[name], 'row')} dropped"
            notes += [f"{name}: {said}.", *table.notes]
        if unread := data_files(self.folder)[1]:
            names = quoted_list([path.relative_to(self.folder).as_posix() for path in unread])
            notes.append(f"{self.folder.name}: files for testing were not read ({names}).")
        layouts = [table.layout for *_, table in self.opened]
        return replace(
            report,
            dropped=tuple(Dropped(each.line, f"{each.reason} [{self.file_of(each.line)}]") for each in report.dropped),
            columns=layouts[0].columns(),  # one of another layout has its own
            notes=(*notes, *report.notes),
            left_out=tuple(dict.fromkeys(name for layout in layouts for name in layout.left_out)),
        )
