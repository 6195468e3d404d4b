"""The native vector file: its bytes, and the checks that its metadata passes. `vector.py` gives it meaning.

The file is safetensors: tensors `layer.<k>` and, under the metadata key `steering`, one JSON object. Both may come from
anybody, so every size is limited before memory is spent on it and every type is checked before anybody relies on it.
"""

import json
import math
import os
import re
import secrets
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from steering.errors import SteeringError
from steering.vectors.text import TEXT_LIMITS, printable

SUFFIX = ".safetensors"
FORMAT_VERSION = 2
"""The newest version that is read; see `needed_version` for the one that is written."""

MAX_FILE_BYTES = 64_000_000
"""Of one vector file. A direction in each of 126 layers of width 16,384 (Llama-3.1-405B) takes 8 MB."""

MAX_HEADER_BYTES = 2_000_000
"""Of the safetensors header: the metadata, which JSON within JSON may escape to twice its length, and tensor names."""

MAX_METADATA_BYTES = 500_000
"""Of the `steering` JSON. The shipped vectors take under 2 kB; the rest is room for curves and unknown keys."""

MAX_DEPTH = 16
"""Levels of lists and objects nested within the metadata. A sum's terms, each with its method's settings, take about 6;
Python's recursion limit is 1,000."""

OBJECTS = ("method", "pairs", "metrics", "versions")
"""Metadata fields that hold a JSON object."""

HELD_OUT_KEYS = ("multiplier", "preference_accuracy", "preference_margin")
"""Numbers that each row of `metrics.held_out` holds."""


def read_limited(path: str | Path, limit: int) -> bytes:
    """Read a file's bytes, at most `limit + 1` of them: more than `limit` means that the file is too large.

    Raises SteeringError if there is no such file or it cannot be read.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise SteeringError(f"{path.name}: there is no such file; check the path.")
        with path.open("rb") as file:
            return file.read(min(path.stat().st_size, limit) + 1)
    except OSError as error:
        raise SteeringError(f"{path.name[:80]}: cannot be read ({error.strerror}); check the path.") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that other processes see either its old content or all of the new one, also after a failure.

    Raises SteeringError if it cannot be written.
    """
    scratch = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with scratch.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise SteeringError(f"{path.name}: cannot be written ({reason}); choose another place.") from error


def needed_version(operator: str) -> int:
    """Return the oldest format version whose readers can obey a file: 1 knows addition only, 2 all operators.

    Programs that know version 1 refuse a file of version 2 in one sentence.
    """
    return 1 if operator == "add" else 2


def serialize(directions: dict[int, Tensor], metadata: dict[str, Any]) -> bytes:
    """Make the content of a vector file; equal arguments give equal bytes.

    Args:
        directions: layer k -> float32 [hidden_size].
        metadata: JSON types only, as `json_copy` makes them.

    Raises:
        SteeringError: the metadata is larger than `MAX_METADATA_BYTES`.
    """
    text = json.dumps(metadata, sort_keys=True, allow_nan=False)
    if len(text) > MAX_METADATA_BYTES:
        raise SteeringError(f"The vector's metadata is larger than {MAX_METADATA_BYTES // 1000} kB; keep less of it.")
    return safetensors.torch.save({f"layer.{k}": d for k, d in directions.items()}, metadata={"steering": text})


def deserialize(data: bytes) -> tuple[dict[int, Tensor], dict[str, Any]]:
    """Read the content of a vector file.

    Returns:
        (layer k -> the tensor as it is stored, not yet checked; the metadata, types checked).

    Raises:
        SteeringError: anything is unsound; the message says what, without naming the file.
    """
    if len(data) > MAX_FILE_BYTES:
        raise SteeringError(f"larger than {MAX_FILE_BYTES // 10**6} MB, so it is no vector file.")
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise SteeringError("not a safetensors file, or cut short; export or download it anew.")
    if length > MAX_HEADER_BYTES:
        raise SteeringError(f"its header is larger than {MAX_HEADER_BYTES // 10**6} MB, so it is no vector file.")
    try:
        tensors = safetensors.torch.load(data)
        text = json.loads(data[8 : 8 + length]).get("__metadata__", {}).get("steering")
    except Exception as error:  # beside its own, safetensors lets KeyError, TypeError and others escape
        raise SteeringError("damaged or cut short; export or download it anew.") from error
    if text is None:
        raise SteeringError("it holds no `steering` metadata, so it is not a vector file of this project.")
    for name in tensors:
        if not re.fullmatch(r"layer\.(0|[1-9][0-9]{0,3})", name):
            raise SteeringError(f"tensor {printable(name)[:60]!r} is not `layer.<number>`, so it does not belong here.")
    directions = {int(name.removeprefix("layer.")): tensor for name, tensor in tensors.items()}
    return directions, _checked(text)


def json_copy(value: Any, depth: int = 0) -> Any:
    """Copy a value into JSON's own types: texts made printable, NaN and infinities made None, tuples made lists.

    Raises SteeringError for a type that JSON lacks, or nesting deeper than `MAX_DEPTH`.
    """
    if depth > MAX_DEPTH:
        raise SteeringError(f"the metadata is nested deeper than {MAX_DEPTH} levels; flatten it.")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {printable(str(key)): json_copy(one, depth + 1) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [json_copy(one, depth + 1) for one in value]
    raise SteeringError(f"the metadata holds a {type(value).__name__}, which a vector file cannot keep.")


def _checked(text: str) -> dict[str, Any]:
    """Parse the metadata and check its types; numbers missing in `metrics.held_out` become NaN."""
    try:
        data = json.loads(text, parse_constant=lambda word: None)  # NaN and Infinity are not JSON
    except (ValueError, RecursionError) as error:
        raise SteeringError("its `steering` metadata is not sound JSON.") from error
    if not isinstance(data, dict):
        raise SteeringError("its `steering` metadata is not a JSON object.")
    version = data.get("format_version")
    if type(version) is not int or version < 1:
        raise SteeringError("its metadata gives no `format_version`.")
    if version > FORMAT_VERSION:
        raise SteeringError(
            f"its format version {str(version)[:20]} is newer than {FORMAT_VERSION}, known here; update this program."
        )
    data = json_copy(data)
    _expect(data, "metadata", dict.fromkeys(TEXT_LIMITS, str) | dict.fromkeys((*OBJECTS, "targets"), dict))
    _expect(data, "metadata", {"hidden_size": int, "default_multiplier": float})
    _expect(data.get("method", {}), "method", {"name": str})
    _expect(data.get("pairs", {}), "pairs", {"sha256": str, "source": str, "train": int, "held_out": int})
    _expect(data.get("versions", {}), "versions", dict.fromkeys(data.get("versions", {}), str))
    _expect(data.get("metrics", {}), "metrics", {"held_out": list})
    for i, row in enumerate(data.get("metrics", {}).get("held_out", [])):
        _expect({i: row}, "metrics.held_out", {i: dict})
        row.update({key: math.nan for key in HELD_OUT_KEYS if row.get(key) is None})  # which JSON writes as null
        _expect(row, f"metrics.held_out.{i}", dict.fromkeys(HELD_OUT_KEYS, float))
    return data


def _expect(data: dict[Any, Any], where: str, kinds: dict[Any, type]) -> None:
    """Raise SteeringError unless each key of `kinds` that `data` has holds a value of its type."""
    words = {dict: "an object", list: "a list", str: "text", int: "a whole number", float: "a number"}
    for key, kind in kinds.items():
        if key in data and type(data[key]) not in ((int, float) if kind is float else (kind,)):
            raise SteeringError(f"its {where} field {str(key)[:40]!r} is not {words[kind]}.")
