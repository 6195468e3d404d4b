"""Data sets of the Hugging Face Hub: found, weighed, and downloaded into the Hub's own cache."""

import re
from pathlib import Path, PurePosixPath
from typing import Any

from steering.errors import SteeringError
from steering.pairs.readers.files import DATA_SUFFIXES, SUFFIXES
from steering.pairs.schema import quoted_list, shortened

SCHEME = "hf://"
HUB_ID = re.compile(r"(?:datasets/)?([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:/(.+))?")
PARQUET_BRANCH = "refs/convert/parquet"
"""Where the Hub keeps every public data set as Parquet, whatever its own files are."""
MAX_DOWNLOAD_BYTES = 1_000_000_000
"""Of one file: the largest part of a Parquet branch has 500 MB."""


def is_hub_id(source: str | Path) -> bool:
    """Whether a source names a data set: it says `hf://`, or looks like `owner/name` and is no path that exists."""
    text = str(source)
    if text.startswith(SCHEME):
        return True
    return (
        isinstance(source, str)
        and text.count("/") == 1
        and HUB_ID.fullmatch(text) is not None
        and not Path(text).exists()
        and not Path(text).parent.exists()
        and Path(text).suffix.lower() not in SUFFIXES
    )


def download(source: str) -> Path:
    """Download one file of a data set: the one named, else its training part, from its own files or as Parquet.

    Raises:
        SteeringError: not found, private, no network, too large, or without a file that can be read.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    found = HUB_ID.fullmatch(source.removeprefix(SCHEME).strip("/"))
    if not found:
        raise SteeringError(
            f"{shortened(source)}: this is no data set of the Hub; write hf://owner/name or hf://owner/name/file."
        )
    name, wanted = found.groups()
    try:
        api = HfApi()
        files = {file: size for file, size in _files(api, name, None)}
        revision = None
        if wanted and wanted not in files:
            raise SteeringError(f"{name}: there is no file {wanted!r}; choose among {quoted_list(_readable(files))}.")
        chosen = wanted or _training_file(files)
        if chosen is None:
            files, revision = dict(_files(api, name, PARQUET_BRANCH)), PARQUET_BRANCH
            chosen = _training_file(files)
        if chosen is None:
            raise SteeringError(f"{name}: the data set has no file that can be read ({', '.join(SUFFIXES)}).")
        if files[chosen] > MAX_DOWNLOAD_BYTES:
            size = f"{files[chosen] / 1e9:.1f} GB"
            raise SteeringError(
                f"{name}: {chosen} has {size}, more than {MAX_DOWNLOAD_BYTES / 1e9:.0f} GB; name a smaller file."
            )
        return Path(hf_hub_download(name, chosen, repo_type="dataset", revision=revision))
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
        raise SteeringError(
            f"{name}: the Hub cannot be reached ({shortened(str(error) or type(error).__name__, 80)}); check the "
            "network, or bring a file."
        ) from error


def _files(api: Any, name: str, revision: str | None) -> list[tuple[str, int]]:
    tree = api.list_repo_tree(name, repo_type="dataset", revision=revision, recursive=True)
    return [(entry.path, entry.size) for entry in tree if getattr(entry, "size", None) is not None]


def _readable(files: dict[str, int]) -> list[str]:
    return [file for file in files if file.lower().endswith(SUFFIXES)]


def _training_file(files: dict[str, int]) -> str | None:
    """Choose the training part's first file among those of pairs; the largest one where none is called that."""
    suffixes = (*DATA_SUFFIXES, *(f"{suffix}.gz" for suffix in DATA_SUFFIXES))
    data = [file for file in files if file.lower().endswith(suffixes) and not file.lower().endswith(".txt")]
    data = [file for file in data if PurePosixPath(file).name not in ("dataset_infos.json", "config.json")]
    training = sorted(file for file in data if "train" in file.lower())
    return training[0] if training else max(data, key=lambda file: files[file], default=None)
