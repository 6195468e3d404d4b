"""Steering vectors: directions with their provenance, their algebra, and their one native file format.

A vector file is safetensors: a float32 tensor `layer.<k>` [hidden_size] for each steered layer k, and everything else as
one JSON object under the metadata key `steering`. It can be read without running any code.
"""

import json
import math
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from steering.errors import SteeringError

FORMAT_VERSION = 1
MAX_MULTIPLIER = 100.0
MAX_FILE_BYTES = 64 * 1024**2
MAX_NAME, MAX_DESCRIPTION = 80, 2000
SUFFIX = ".safetensors"
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))}


def check_multiplier(value: float) -> float:
    """The multiplier as a float; SteeringError unless it is a number from -100 to 100."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not abs(number) <= MAX_MULTIPLIER:  # nan fails too
        raise SteeringError(f"Multiplier {value} is not a number from {-MAX_MULTIPLIER:g} to {MAX_MULTIPLIER:g}.")
    return number


@dataclass(eq=False)
class SteeringVector:
    """One direction per steered layer, and where it comes from.

    Hashed by identity, so that a setting can be written `{vector: 1.5}`.

    Attributes:
        directions: layer k (the output of decoder block k, from 0) -> float32 [hidden_size] on the CPU, finite.
        name: on the shelf and beside the slider; `behavior`: what it moves; `description`: more, for people.
        model_id, model_fingerprint: the model it was made for.
        site, token_scope: where it is added: `block_output` at `all` positions.
        method: `name` and every setting; `pairs`: digest, source and numbers of the preference pairs.
        metrics: what was measured; `held_out` is a list of {multiplier, preference_accuracy, preference_margin}.
        default_multiplier: where its slider starts.
        licence, created, versions: terms of use, ISO date, and the libraries it was made with.
        extra: metadata that this version does not know; kept when the file is written again.
    """

    directions: dict[int, Tensor]
    name: str = ""
    behavior: str = ""
    description: str = ""
    model_id: str = ""
    model_fingerprint: str = ""
    site: str = "block_output"
    token_scope: str = "all"
    method: dict[str, Any] = field(default_factory=dict)
    pairs: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    default_multiplier: float = 1.0
    licence: str = ""
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    versions: dict[str, Any] = field(default_factory=lambda: dict(_library_versions()))
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.directions = {
            int(k): d.detach().to("cpu", torch.float32).contiguous() for k, d in sorted(self.directions.items())
        }
        widths = {tuple(d.shape) for d in self.directions.values()}
        if len(widths) != 1 or len(next(iter(widths))) != 1 or 0 in next(iter(widths)):
            raise SteeringError("A steering vector needs one direction per layer, all of the same width.")
        if min(self.directions) < 0:
            raise SteeringError(f"Layer {min(self.directions)} does not exist; layers count from 0.")
        if not all(torch.isfinite(d).all() for d in self.directions.values()):
            raise SteeringError("The steering vector holds values that are not finite numbers; train or export it anew.")
        self.default_multiplier = check_multiplier(self.default_multiplier)
        self.name, self.behavior = _clean(self.name, MAX_NAME), _clean(self.behavior, MAX_DESCRIPTION)
        self.description = _clean(self.description, MAX_DESCRIPTION)

    @property
    def hidden_size(self) -> int:
        return len(next(iter(self.directions.values())))

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(self.directions)

    @property
    def norm(self) -> float:
        """L2 norm over all layers."""
        return float(torch.stack(list(self.directions.values())).norm())

    def check_fits(self, hidden_size: int, num_layers: int, model_name: str) -> None:
        """Raise SteeringError unless the vector can be added to a model of this width and depth."""
        made_for = f" It was made for {self.model_id}." if self.model_id else ""
        if self.hidden_size != hidden_size:
            raise SteeringError(
                f"Vector {self.name!r} has hidden size {self.hidden_size} and {model_name} has {hidden_size}, so they do "
                f"not fit: load the model it was made for, or train it anew on this one.{made_for}"
            )
        if max(self.layers) >= num_layers:
            raise SteeringError(
                f"Vector {self.name!r} steers layer {max(self.layers)} and {model_name} has only layers 0 to "
                f"{num_layers - 1}: load the model it was made for, or train it anew on this one.{made_for}"
            )

    def __add__(self, other: "SteeringVector") -> "SteeringVector":
        """Their sum, layer by layer; a layer that only one steers is taken as it is."""
        if not isinstance(other, SteeringVector):
            return NotImplemented
        if other.hidden_size != self.hidden_size:
            raise SteeringError(
                f"Vectors {self.name!r} and {other.name!r} have hidden sizes {self.hidden_size} and {other.hidden_size} "
                "and cannot be added."
            )
        zero = torch.zeros(self.hidden_size)
        layers = {*self.layers, *other.layers}
        same = self.model_fingerprint == other.model_fingerprint
        return SteeringVector(
            {k: self.directions.get(k, zero) + other.directions.get(k, zero) for k in layers},
            name=f"{self.name} + {other.name}",
            model_id=self.model_id if same else "",
            model_fingerprint=self.model_fingerprint if same else "",
            method={"name": "sum", "of": [self.name, other.name]},
        )

    def __mul__(self, factor: float) -> "SteeringVector":
        if not isinstance(factor, int | float):
            return NotImplemented
        return SteeringVector(
            {k: d * float(factor) for k, d in self.directions.items()},
            name=f"{self.name} x {factor:g}",
            behavior=self.behavior,
            model_id=self.model_id,
            model_fingerprint=self.model_fingerprint,
            method={"name": "scaled", "of": [self.name], "factor": float(factor)},
        )

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> "SteeringVector":
        return self * (1 / divisor)

    def __neg__(self) -> "SteeringVector":
        return self * -1.0

    def __sub__(self, other: "SteeringVector") -> "SteeringVector":
        return self + -other if isinstance(other, SteeringVector) else NotImplemented

    def metadata(self) -> dict[str, Any]:
        """Everything but the directions, as it stands in the file."""
        own = {name: getattr(self, name) for name in METADATA_FIELDS}
        return {**self.extra, "format_version": FORMAT_VERSION, **own, "hidden_size": self.hidden_size}

    def save(self, path: str | Path) -> Path:
        """Write the vector file; whole or not at all. Raises SteeringError for another suffix or a failing disk."""
        path = Path(path)
        if path.suffix != SUFFIX:
            raise SteeringError(f"{path}: a vector file ends in {SUFFIX}; name it {path.stem}{SUFFIX}.")
        text = json.dumps(self.metadata(), ensure_ascii=False, sort_keys=True)
        scratch = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".partial", delete=False) as file:
                scratch = file.name
            save_file({f"layer.{k}": d for k, d in self.directions.items()}, scratch, metadata={"steering": text})
            os.chmod(scratch, 0o644)
            os.replace(scratch, path)
        except (OSError, SafetensorError) as error:
            if scratch:
                Path(scratch).unlink(missing_ok=True)
            raise SteeringError(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error}).") from error
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a vector file. Raises SteeringError, naming the file and what is wrong with it, for anything unsound."""
        path = Path(path)
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise SteeringError(f"{path.name}: larger than {MAX_FILE_BYTES // 1024**2} MB, so it is no vector file.")
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
                text = (file.metadata() or {}).get("steering")
        except OSError as error:
            raise SteeringError(f"{path}: cannot be read ({error.strerror or error}).") from error
        except (SafetensorError, ValueError, TypeError, AttributeError, KeyError) as error:
            if isinstance(error, SteeringError):
                raise
            raise SteeringError(f"{path.name}: not a safetensors file, or cut short; export or download it anew.") from error
        try:
            return cls(directions=_directions(tensors), **_known_metadata(text))
        except SteeringError as error:
            raise SteeringError(f"{path.name}: {error}") from error


def slug_of(name: str) -> str:
    """A file name that is safe everywhere: a-z, 0-9 and single hyphens, at most 60 characters, never empty."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60].strip("-")
    return f"{slug or 'vector'}-vector" if slug in RESERVED or not slug else slug


METADATA_FIELDS = tuple(f.name for f in fields(SteeringVector) if f.name not in ("directions", "extra"))


def _directions(tensors: Mapping[str, Tensor]) -> dict[int, Tensor]:
    directions = {}
    for name, tensor in tensors.items():
        head, _, number = name.partition(".")
        if head != "layer" or not number.isascii() or not number.isdigit() or len(number) > 5:
            raise SteeringError(f"tensor {name[:60]!r} does not belong in a vector file (only layer.<number> does).")
        if tensor.dim() != 1 or not tensor.is_floating_point():
            raise SteeringError(f"tensor {name} has shape {list(tensor.shape)}, {tensor.dtype}; it must be [hidden_size].")
        directions[int(number)] = tensor
    return directions


def _known_metadata(text: str | None) -> dict[str, Any]:
    """The metadata's known keys, type-checked; the others under `extra`."""
    if text is None:
        raise SteeringError("it holds no `steering` metadata, so it is not a vector file of this project.")
    try:
        data = json.loads(text, parse_constant=lambda word: None)  # NaN and Infinity are not JSON
    except (ValueError, RecursionError) as error:
        raise SteeringError("its `steering` metadata is not sound JSON.") from error
    if not isinstance(data, dict):
        raise SteeringError("its `steering` metadata is not a JSON object.")
    number = data.pop("format_version", None)
    if not isinstance(number, int) or not 1 <= number <= FORMAT_VERSION:
        raise SteeringError(f"its format version is {str(number)[:20]} and this program reads {FORMAT_VERSION}; update it.")
    data.pop("hidden_size", None)  # said by the tensors
    known: dict[str, Any] = {}
    for item in fields(SteeringVector):
        if item.name not in METADATA_FIELDS or item.name not in data:
            continue
        value = data.pop(item.name)
        wanted = {str: str, float: int | float}.get(item.type, dict)
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise SteeringError(f"its metadata field {item.name!r} is {type(value).__name__}.")
        known[item.name] = value
    for name, only in (("site", "block_output"), ("token_scope", "all")):
        if known.get(name, only) != only:
            raise SteeringError(f"its {name} is {known[name][:40]!r}; this program steers {only!r} only.")
    return {**known, "extra": data}


def _clean(text: str, limit: int) -> str:
    """Text for a page: no control characters, not endless."""
    return "".join(c if c.isprintable() else " " for c in text)[:limit].strip()


@cache
def _library_versions() -> tuple[tuple[str, str], ...]:
    found = []
    for package in ("steering-playground", "torch", "transformers"):
        try:
            found.append((package, version(package)))
        except PackageNotFoundError:  # run from a checkout that was not installed, as on a Space
            continue
    return tuple(found)
