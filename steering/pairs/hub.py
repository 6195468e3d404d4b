"""Data sets of the Hugging Face Hub: found, weighed, and downloaded into the Hub's own cache."""

import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from steering import paths
from steering.errors import SteeringError
from steering.limits import NO_LIMITS, Limits
from steering.pairs.readers.archives import PACKED_SUFFIXES, holds_data
from steering.pairs.readers.files import DATA_SUFFIXES, SUFFIXES
from steering.pairs.readers.table import split_rank
from steering.pairs.schema import quoted_list, shortened

HUB_ID = re.compile(r"(?:datasets/)?([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:/(.+))?")
PARQUET_BRANCH = "refs/convert/parquet"
"""Where the Hub keeps every public data set as Parquet, whatever its own files are."""
UNKNOWN_PART = 0.5
"""Rank among `SPLITS` of a file of unknown use: after the training part, before the others."""
PAIRS = re.compile(r"pref|pair|dpo|comparison|reward", re.IGNORECASE)
"""In the name of a file: it holds pairs, where others of the data set may hold something else."""
PAGE = re.compile(r"^(hf://|https?://(www\.)?(huggingface\.co|hf\.co)/)(datasets/)?")
REVISION = re.compile(r"^(blob|resolve|tree)/[^/]+/?|^viewer\b.*")
"""What the address of a page has and the path of a file has not."""
TIMEOUT_SECONDS = 10
MAX_STRANGERS_BYTES = 500_000_000
"""Of all data sets that visitors of a public page had read, before they are deleted: a hundred of the largest."""
MAX_DOWNLOAD_BYTES = 1_000_000_000
"""Of one file: the largest part of a Parquet branch has 500 MB."""


def is_hub_id(source: str | Path) -> bool:
    """Whether a source is `hf://...`, a page of the Hub, or looks like `owner/name` and is no path that exists."""
    text = str(source)
    if PAGE.match(text):
        return True
    return (
        isinstance(source, str)
        and text.count("/") == 1
        and HUB_ID.fullmatch(text) is not None
        and not Path(text).exists()
        and not Path(text).parent.exists()
        and Path(text).suffix.lower() not in SUFFIXES
    )


def hub_name(source: str) -> str:
    """Write a data set as `owner/name`, with the file where one is named."""
    return PAGE.sub("", source).strip("/")


@dataclass(frozen=True)
class HubFile:
    """A file of a data set, downloaded.

    Attributes:
        path: where it lies on this machine.
        note: which one it is, and which others there are; empty where the caller named it.
    """

    path: Path
    note: str


def download(source: str, limits: Limits = NO_LIMITS) -> HubFile:
    """Download one file of a data set: the one named, else its training part, from its own files or as Parquet.

    Raises:
        SteeringError: not found, private, no network, too large, or without a file that can be read.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    found = HUB_ID.fullmatch(hub_name(source))
    if not found:
        raise SteeringError(
            f"{shortened(source)}: this is no data set of the Hub; write hf://owner/name or hf://owner/name/file."
        )
    name, wanted = found.groups()
    wanted = REVISION.sub("", wanted or "")
    try:
        token = None if limits.owner_login else False
        files, revision = _files(name, None, token), None
        if wanted and wanted not in files:
            raise SteeringError(f"{name}: there is no file {wanted!r}; choose among {quoted_list(_data(files))}.")
        chosen = wanted or _training_file(files)
        if chosen is None:
            files, revision = _files(name, PARQUET_BRANCH, token), PARQUET_BRANCH
            chosen = _training_file(files)
        if chosen is None:
            raise SteeringError(f"{name}: the data set has no file that can be read ({', '.join(SUFFIXES)}).")
        if files[chosen] > MAX_DOWNLOAD_BYTES:
            size = f"{files[chosen] / 1e9:.1f} GB"
            raise SteeringError(
                f"{name}: {chosen} has {size}, more than {MAX_DOWNLOAD_BYTES / 1e9:.0f} GB; name a smaller file."
            )
        limits.check_download(files[chosen])
        cache = None if limits.owner_login else _strangers_cache()
        path = Path(hf_hub_download(name, chosen, repo_type="dataset", revision=revision, token=token, cache_dir=cache))
    except SteeringError:
        raise
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403, 404):
            raise SteeringError(
                f"{name}: the Hub has no such data set, or it is private or gated; check the name, or log in with "
                "`hf auth login`."
            ) from error
        raise SteeringError(f"{name}: the Hub answers {status}; try again later.") from error
    except Exception as error:  # no network shows as one of many kinds, by what stands between
        reason = shortened(" ".join(str(error).split()) or type(error).__name__, 80)
        raise SteeringError(
            f"{name}: the Hub cannot be reached ({reason}); check the network, or bring a file."
        ) from error
    others = [file for file in _data(files) if file != chosen]
    note = f"Of the data set {name}, {chosen} was read"
    note += f"; name another file as hf://{name}/FILE ({quoted_list(others)})." if others else "."
    return HubFile(path, "" if wanted else note)


def _files(name: str, revision: str | None, token: bool | None) -> dict[str, int]:
    """List the files of a data set with their bytes; none where it has no such branch."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionNotFoundError

    try:  # a listing by pages would be tried again for half a minute where there is no network
        found = HfApi(token=token).dataset_info(name, revision=revision, files_metadata=True, timeout=TIMEOUT_SECONDS)
    except RevisionNotFoundError:
        return {}
    return {file.rfilename: file.size or 0 for file in found.siblings or []}


def _strangers_cache() -> Path:
    """Return the folder for what visitors of a public page have downloaded; emptied when it has grown too large."""
    folder = paths.cache_dir() / "visitors-data-sets"
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    if size > MAX_STRANGERS_BYTES:
        shutil.rmtree(folder, ignore_errors=True)
    return folder


def _data(files: Iterable[str]) -> list[str]:
    """List the files that may hold pairs, packed or not, in the order in which they are worth reading.

    Parts for training stand first, then those of unknown use, then those for testing; pairs before other data.
    """
    packed = tuple(f"{suffix}{packing}" for suffix in DATA_SUFFIXES for packing in ("", *PACKED_SUFFIXES))
    data = [file for file in files if holds_data(file, (*packed, ".zip")) and not file.lower().endswith(".txt")]

    def rank(file: str) -> tuple[float, bool, str]:
        part = split_rank(file)
        return (UNKNOWN_PART if part is None else part, not PAIRS.search(file), file)

    return sorted(data, key=rank)


def _training_file(files: Mapping[str, int]) -> str | None:
    """Choose the training part's first file among those of pairs; the largest one where none is called that."""
    data = _data(files)
    if not data or split_rank(data[0]) == 0:
        return next(iter(data), None)
    return max((file for file in data if split_rank(file) in (None, split_rank(data[0]))), key=lambda file: files[file])
