"""Packed files: gzip, bzip2, xz, Zstandard and zip, unpacked in memory and never beyond a limit."""

import bz2
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import IO, Any

from steering.errors import SteeringError
from steering.pairs.readers.table import MAX_BYTES
from steering.pairs.schema import quoted_list


def _zstandard(file: IO[bytes]) -> Any:
    import pyarrow as pa  # slow to import, and few files need it

    return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")


STREAMS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": _zstandard,
}
"""First bytes of a packed file -> what unpacks it."""
ZIP = b"PK\x03\x04"
OTHER_FILES = re.compile(
    r"(read.?me|licen[cs]e|copying|notice|changelog|citation|requirements)[\w.-]*\.txt"
    r"|(dataset_infos?|dataset_dict|state|config|package)\.json",
    re.IGNORECASE,
)
"""Names of files that lie beside data and hold none."""
PACKED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zip")
DAMAGE = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
"""What the unpackers raise for a damaged or unusual file."""


def is_packed(data: bytes) -> bool:
    """Whether the first bytes are those of a packed file."""
    return data.startswith((*STREAMS, ZIP))


def unpacked(name: str, data: bytes, suffixes: tuple[str, ...]) -> tuple[str, bytes]:
    """Unpack a file; of a zip, its only data file.

    Returns:
        (name of the file inside, its bytes: at most `MAX_BYTES` and one).

    Raises:
        SteeringError: damaged, encrypted, or with no or several files of these suffixes.
    """
    try:
        if data.startswith(ZIP):
            return _member(name, data, suffixes)
        opener = next(opener for magic, opener in STREAMS.items() if data.startswith(magic))
        inner = name.rpartition(".")[0] if name.lower().endswith(PACKED_SUFFIXES) else name
        with opener(io.BytesIO(data)) as stream:
            return inner, stream.read(MAX_BYTES + 1)
    except SteeringError:
        raise
    except DAMAGE as error:
        raise SteeringError(f"{name}: the packed file is damaged ({error}); pack or download it again.") from error


def _member(name: str, data: bytes, suffixes: tuple[str, ...]) -> tuple[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir() and not _hidden(entry.filename)]
        if any(entry.filename == "[Content_Types].xml" for entry in entries):
            raise SteeringError(f"{name}: this is an Office document; save the table as 'CSV UTF-8' and bring that.")
        files = [entry for entry in entries if holds_data(entry.filename, suffixes)]
        if len(files) != 1:
            found = quoted_list([entry.filename for entry in files or entries])
            what = f"{len(files)} files of pairs ({found})" if files else f"no file of pairs ({found or 'nothing'})"
            raise SteeringError(f"{name}: the archive holds {what}; pack one file of {', '.join(suffixes)}.")
        if files[0].flag_bits & 1:
            raise SteeringError(f"{name}: the archive is encrypted; bring it without a password.")
        with archive.open(files[0]) as stream:
            return PurePosixPath(files[0].filename).name, stream.read(MAX_BYTES + 1)


def holds_data(path: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a file's name is that of data, rather than of what people and programs put beside it."""
    name = PurePosixPath(path).name
    return name.lower().endswith(suffixes) and not _hidden(name) and not OTHER_FILES.fullmatch(name)


def _hidden(path: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) and part != ".." for part in PurePosixPath(path).parts)
