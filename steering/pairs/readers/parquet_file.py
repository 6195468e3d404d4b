"""Parquet: only the columns that are used, a few rows at a time."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from steering.errors import SteeringError
from steering.pairs.readers.table import SAMPLE_ROWS, PairFile, RawTable
from steering.pairs.schema import Record

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

MAX_UNPACKED_BYTES = 2_000_000_000
"""Of the row groups that are read, unpacked. They are read 64 rows at a time; the bound is on the work, which a file of
some kB could make endless. UltraFeedback's 61,000 pairs have about 0.4 GB."""


def parquet_table(file: PairFile, most: int) -> RawTable:
    """Open Parquet; of a larger file, no more row groups are read than hold `most` rows and one."""
    import pyarrow.parquet as pq  # slow to import, and few files need it

    try:
        opened = pq.ParquetFile(_source(file))
        names = opened.schema_arrow.names
        leaves = [opened.schema.column(index) for index in range(len(opened.schema))]
        # Texts stay dictionaries: one long text repeated in every row packs to next to nothing, and must not unpack.
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        opened = pq.ParquetFile(_source(file), read_dictionary=texts)
        groups, unpacked = _groups(opened, most)
    except Exception as error:  # pyarrow reports a damaged file by a dozen kinds of exception
        raise _damaged(file) from error
    if unpacked > MAX_UNPACKED_BYTES:
        raise SteeringError(f"{file.name}: larger than {MAX_UNPACKED_BYTES // 10**6} MB unpacked; keep fewer pairs.")
    sample = [cells for _, cells in _records(file, opened, names, groups[:1], SAMPLE_ROWS)]
    layout = file.find(names, file.columns, file.name, [each for each in sample if not isinstance(each, str)])
    paths = {path if path in names else path.partition(".")[0] for path in layout.used()}
    used = [name for name in names if name in paths]
    return RawTable(layout, _records(file, opened, used, groups, None), "row", file.notes)


def _source(file: PairFile) -> Any:
    import pyarrow as pa

    return str(file.path) if file.path is not None else pa.BufferReader(file.data)


def _groups(opened: "ParquetFile", most: int) -> tuple[list[int], int]:
    """Return (the row groups that hold the first `most` rows and one, their bytes unpacked)."""
    groups: list[int] = []
    rows = unpacked = 0
    for index in range(opened.metadata.num_row_groups):
        if rows > most:
            break
        groups.append(index)
        rows += opened.metadata.row_group(index).num_rows
        unpacked += opened.metadata.row_group(index).total_byte_size  # that of a column crashes on damaged files
    return groups, unpacked


def _records(
    file: PairFile, opened: "ParquetFile", columns: list[str], groups: list[int], most: int | None
) -> Iterator[Record]:
    number = 0
    try:
        for batch in opened.iter_batches(batch_size=16 if most else 64, columns=columns, row_groups=groups):
            batch.validate(full=True)
            for index in range(batch.num_rows):
                number += 1
                yield number, batch.slice(index, 1).to_pylist()[0]
                if number == most:
                    return
    except Exception as error:
        raise _damaged(file) from error


def _damaged(file: PairFile) -> SteeringError:
    return SteeringError(f"{file.name}: the file is damaged or not Parquet; write or download it again.")
