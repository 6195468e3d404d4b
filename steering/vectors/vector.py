"""Steering vectors: directions with their provenance, their algebra, and their one native file format.

A vector file is safetensors: a float32 tensor `layer.<k>` [hidden_size] for each steered layer k, and everything else
as one JSON object under the metadata key `steering`. Reading it runs no code, and whatever can be saved can be read.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from numbers import Real
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from steering import __version__
from steering.errors import SteeringError
from steering.vectors.action import (
    NORM_KEEPING,
    OPERATORS,
    PLAIN,
    TOKEN_SCOPES,
    check_multiplier,
    checked_direction,
    checked_targets,
)
from steering.vectors.native_file import (
    MAX_FILE_BYTES,
    SUFFIX,
    deserialize,
    json_copy,
    needed_version,
    read_limited,
    serialize,
    write_atomically,
)
from steering.vectors.text import TEXT_LIMITS, display_text, printable


@cache
def library_versions() -> tuple[tuple[str, str], ...]:
    """List (library, version) that a new vector is recorded with."""
    return (("steering", __version__), ("torch", str(torch.__version__)), ("transformers", version("transformers")))


def setting_title(multipliers: Iterable[tuple[str, float]]) -> str:
    """Name a setting for people: `cheerful +1.5, formal -1`, or `baseline` if no multiplier differs from 0.

    Args:
        multipliers: (name of the vector, multiplier), in the order of the title; a nameless vector is `unnamed`.
    """
    return ", ".join(f"{name or 'unnamed'} {m:+g}" for name, m in multipliers if m) or "baseline"


@dataclass(eq=False, repr=False)
class SteeringVector:
    """One direction per steered layer, and where it comes from.

    Hashed by identity, so that a setting can be written `{vector: 1.5}`. Sums, differences and multiples are vectors
    again: directions are added layer by layer, the terms are recorded in `method`, measurements are dropped. Raises
    SteeringError if the directions are unsound (none, unequal widths, not finite).

    Example:
        >>> vector = SteeringVector({14: torch.randn(576)}, name="formal", behavior="formal tone")
        >>> vector.save("formal.safetensors")
        >>> blend = SteeringVector.load("formal.safetensors") * 0.5 - SteeringVector.load("cheerful.safetensors")

    Attributes:
        directions: layer k (the output of decoder block k, from 0) -> float32 [hidden_size], a copy on the CPU, finite.
        name: on the shelf and beside the slider; `behavior`: what it moves; `description`: more, for people.
        model_id, model_fingerprint: the model it was made for.
        site, token_scope: where it acts: on the `block_output`, at the positions of one of `TOKEN_SCOPES`.
        operator: how it acts: one of `OPERATORS`; targets: layer -> the projection that `set`, `clamp` and `cap` go to
            at multiplier 1, by default the norm of the direction there.
        method: `name` and every setting; `pairs`: `sha256`, `source` and the numbers `train` and `held_out`.
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
    operator: str = PLAIN
    targets: dict[int, float] = field(default_factory=dict)
    method: dict[str, Any] = field(default_factory=dict)
    pairs: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    default_multiplier: float = 1.0
    licence: str = ""
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    versions: dict[str, str] = field(default_factory=lambda: dict(library_versions()))
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.directions = {k: checked_direction(k, d) for k, d in sorted(self.directions.items())}
        widths = sorted({len(d) for d in self.directions.values()})
        if len(widths) != 1:
            problem = f"directions of unequal widths {widths[:8]}" if widths else "no direction at all"
            raise SteeringError(f"The vector has {problem}; give one [hidden_size] for each steered layer.")
        for key in TEXT_LIMITS:
            setattr(self, key, display_text(getattr(self, key), key))
        for key, known in (("site", ("block_output",)), ("token_scope", TOKEN_SCOPES), ("operator", OPERATORS)):
            if getattr(self, key) not in known:
                can = " or ".join(map(repr, known))
                raise SteeringError(f"Its {key} is {getattr(self, key)[:40]!r}; this program steers {can} only.")
        self.targets = checked_targets(self.targets, self.directions)
        self.default_multiplier = check_multiplier(self.default_multiplier)

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream the vector was made for."""
        return len(next(iter(self.directions.values())))

    @property
    def layers(self) -> tuple[int, ...]:
        """The steered layers, ascending."""
        return tuple(sorted(self.directions))

    @property
    def norms(self) -> dict[int, float]:
        """Layer -> L2 norm of its direction."""
        return {k: float(d.double().norm()) for k, d in self.directions.items()}

    @property
    def norm(self) -> float:
        """L2 norm of all directions taken as one vector."""
        return math.hypot(*self.norms.values())

    def describe(self) -> str:
        """Describe the vector in one line: `formal: layer 14, hidden size 576, norm 6.21, by bipo from 240 pairs`."""
        layers = ", ".join(map(str, self.layers[:8])) + (", ..." if len(self.layers) > 8 else "")
        facts = [
            f"layer{'s' * (len(self.layers) > 1)} {layers}",
            f"hidden size {self.hidden_size}",
            f"norm {self.norm:.2f}",
        ]
        if self.method.get("name"):
            facts.append(f"by {self.method['name']}")
            facts[-1] += f" from {self.pairs['train']} pairs" if self.pairs.get("train") else ""
        if self.model_id:
            facts.append(f"for {self.model_id}")
        return f"{self.name or 'unnamed'}: {', '.join(facts)}"

    def __repr__(self) -> str:
        return f"<SteeringVector {self.describe()}>"

    def fits(self, hidden_size: int, num_layers: int) -> bool:
        """Tell whether the vector can be added to a model of this width and depth."""
        return not self._misfit(hidden_size, num_layers, "")

    def check_fits(self, hidden_size: int, num_layers: int, model_name: str) -> None:
        """Raise SteeringError unless the vector can be added to a model of this width and depth."""
        if misfit := self._misfit(hidden_size, num_layers, model_name):
            home = f" ({self.model_id})" if self.model_id else ""
            raise SteeringError(
                f"Vector {self.name!r} {misfit}; train it anew for this model or load the model it was made for{home}."
            )

    def _misfit(self, hidden_size: int, num_layers: int, model_name: str) -> str:
        """Say in a few words why the vector cannot be added to such a model; empty if it can."""
        if self.hidden_size != hidden_size:
            return f"has hidden size {self.hidden_size} but the model {model_name} has {hidden_size}"
        if self.layers[-1] >= num_layers:
            return f"steers layer {self.layers[-1]} but the model {model_name} has only layers 0 to {num_layers - 1}"
        return ""

    def __add__(self, other: "SteeringVector") -> "SteeringVector":
        """Add layer by layer; a layer that only one of them steers is taken as it is."""
        return _weighted_sum([(self, 1.0), (other, 1.0)], "+") if isinstance(other, SteeringVector) else NotImplemented

    def __sub__(self, other: "SteeringVector") -> "SteeringVector":
        return _weighted_sum([(self, 1.0), (other, -1.0)], "-") if isinstance(other, SteeringVector) else NotImplemented

    def __mul__(self, factor: float) -> "SteeringVector":
        return _weighted_sum([(self, float(factor))]) if isinstance(factor, Real) else NotImplemented

    __rmul__ = __mul__

    def __neg__(self) -> "SteeringVector":
        return self * -1.0

    def metadata(self) -> dict[str, Any]:
        """Collect what stands beside the directions in the file: JSON types only, texts cleaned for display."""
        known = {key: getattr(self, key) for key in METADATA_FIELDS}
        known |= {key: display_text(known[key], key) for key in TEXT_LIMITS}
        known |= {"format_version": needed_version(self.operator), "hidden_size": self.hidden_size}
        if self.operator == PLAIN:  # as files were before there were operators
            del known["operator"], known["targets"]
        return json_copy(known | {key: value for key, value in self.extra.items() if key not in known})

    def to_bytes(self) -> bytes:
        """Make the vector file's content; raise SteeringError for metadata that could not be read again."""
        data = serialize(self.directions, self.metadata())
        self.from_bytes(data, f"Vector {self.name!r}")
        return data

    @classmethod
    def from_bytes(cls, data: bytes, source: str) -> Self:
        """Read a vector file's content; `source` names it in the SteeringError raised for anything unsound."""
        try:
            directions, metadata = deserialize(data)
            known = {key: metadata.pop(key) for key in METADATA_FIELDS if key in metadata}
            width = metadata.pop("hidden_size", None)
            del metadata["format_version"]
            vector = cls(**{"directions": directions, "created": "", "versions": {}, "extra": metadata, **known})
            if width not in (None, vector.hidden_size):
                raise SteeringError(f"its metadata says hidden size {width}, its tensors say {vector.hidden_size}.")
        except SteeringError as error:
            raise SteeringError(f"{printable(source)}: {error}") from error
        return vector

    def save(self, path: str | Path) -> Path:
        """Write the vector file, atomically, and return its path; SteeringError for another suffix or a full disk."""
        path = Path(path)
        if path.suffix != SUFFIX:
            raise SteeringError(f"{path.name}: a vector file ends in {SUFFIX}; name it {path.stem}{SUFFIX}.")
        write_atomically(path, self.to_bytes())
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a vector file; raise SteeringError, naming the file and what is wrong with it, for anything unsound."""
        return cls.from_bytes(read_limited(path, MAX_FILE_BYTES), Path(path).name)


METADATA_FIELDS = tuple(f.name for f in fields(SteeringVector) if f.name not in ("directions", "extra"))


def _weighted_sum(terms: Sequence[tuple[SteeringVector, float]], sign: str = "") -> SteeringVector:
    """Add one or two vectors, weighted. `method` records the terms; measurements, no longer true, are dropped."""
    vectors = [vector for vector, _ in terms]
    first, last = vectors[0], vectors[-1]
    if first.hidden_size != last.hidden_size:
        raise SteeringError(
            f"Vectors {first.name!r} and {last.name!r} cannot be added, their hidden sizes are {first.hidden_size} and "
            f"{last.hidden_size}; take vectors made for one model."
        )
    for key, what in (("token_scope", "act at different positions"), ("operator", "act in different ways")):
        if getattr(first, key) != getattr(last, key):
            raise SteeringError(
                f"Vectors {first.name!r} and {last.name!r} {what}, so they have no sum; use both, each by its slider."
            )
    if sign and first.operator not in NORM_KEEPING:
        raise SteeringError(f"Vectors that {first.operator} have no sum; use both, each by its slider.")
    directions: dict[int, Tensor] = {}
    for vector, weight in terms:
        for k, d in vector.directions.items():
            directions[k] = directions[k] + weight * d if k in directions else weight * d
    shared = ("behavior", "model_id", "model_fingerprint", "licence")
    names = [vector.name or "unnamed" for vector in vectors]
    return SteeringVector(
        directions,
        name=f" {sign} ".join(names) if sign else f"{names[0]} x {terms[0][1]:g}",
        token_scope=first.token_scope,
        operator=first.operator,
        targets={} if sign else {k: t * abs(terms[0][1]) for k, t in first.targets.items()},
        method={"name": "sum", "of": [part for vector, weight in terms for part in _parts(vector, weight)]},
        **{key: getattr(first, key) for key in shared if getattr(first, key) == getattr(last, key)},
    )


def _parts(vector: SteeringVector, weight: float) -> list[dict[str, Any]]:
    """List the terms that the vector is the sum of, times `weight`; a sum of sums becomes one flat sum."""
    of = vector.method.get("of")
    terms = of if isinstance(of, list) else []
    is_sum = vector.method.get("name") == "sum" and terms
    if is_sum and all(isinstance(p, dict) and isinstance(p.get("multiplier"), float) for p in terms):
        return [part | {"multiplier": part["multiplier"] * weight} for part in terms]
    return [{"name": vector.name, "multiplier": weight, "method": vector.method, "pairs": vector.pairs}]
