"""The state of a BiPO run: all that is needed to go on with it, or to end it with its best vector."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

CURVE_POINTS = 200
"""At most this many points of a run's curve go into the vector file."""

FIGURES: tuple[str, ...] = (
    "layers",
    "norms",
    "pair_norms",
    "step",
    "best_step",
    "best_loss",
    "waited",
    "seconds",
    "curve",
)


@dataclass
class RunState:
    """Vectors, optimiser moments, the best vector and the curve; a checkpoint holds one.

    Attributes:
        layers: the layers steered; `norms`: the median L2 norm of the hidden states at each; `pair_norms`: the mean
            norm of the difference between a pair's two answers there.
        vectors: layer -> v, float32 [hidden_size]; `first`, `second`: AdamW's two moments of its gradient.
        step: optimiser steps taken.
        best: layer -> v at `best_step`, where what the best is chosen by was lowest, `best_loss`: the held-out loss, or
            the negated `written_effect`; empty if none was measured.
        waited: measurements since then.
        curve: a point for each step: `step`, `loss` and, where it was measured, `held_out_loss` and `held_out`.
        seconds: spent on the run so far.
    """

    layers: tuple[int, ...]
    norms: tuple[float, ...]
    pair_norms: tuple[float, ...]
    vectors: dict[int, Tensor]
    first: dict[int, Tensor]
    second: dict[int, Tensor]
    best: dict[int, Tensor] = field(default_factory=dict)
    step: int = 0
    best_step: int = 0
    best_loss: float | None = None
    waited: int = 0
    seconds: float = 0.0
    curve: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def at_start(
        cls, layers: Sequence[int], norms: Sequence[float], pair_norms: Sequence[float], start: Mapping[int, Tensor]
    ) -> "RunState":
        """Make the state before the first step: vectors as given, all moments zero."""
        first, second = ({k: torch.zeros_like(v) for k, v in start.items()} for _ in range(2))
        return cls(tuple(layers), tuple(norms), tuple(pair_norms), dict(start), first, second)

    def keep_best(self, loss: float, step: int) -> None:
        """Take the vectors as the best so far if their loss, or what stands for it, is lower than any before."""
        if math.isfinite(loss) and (self.best_loss is None or loss < self.best_loss):
            self.best_loss, self.best_step, self.waited = loss, step, 0
            self.best = {k: v.detach().clone() for k, v in self.vectors.items()}
        else:
            self.waited += 1

    def add_to_curve(self, **point: Any) -> None:
        """Add a point to the curve, and thin it where it has grown long."""
        self.curve.append(point)
        if len(self.curve) >= 4 * CURVE_POINTS:  # a run of any length needs no more memory than this
            self.curve = thinned(self.curve, 2 * CURVE_POINTS)

    def to_bytes(self, run: str) -> bytes:
        """Serialise as the checkpoint of the run with this key: safetensors, the figures as JSON in its metadata."""
        parts = {"vectors": self.vectors, "first": self.first, "second": self.second, "best": self.best}
        tensors = {f"{name}.{k}": v.detach().cpu() for name, part in parts.items() for k, v in part.items()}
        figures = {"run": run, **{name: getattr(self, name) for name in FIGURES}}
        return safetensors.torch.save(tensors, metadata={"checkpoint": json.dumps(figures)})

    @classmethod
    def from_bytes(cls, data: bytes, run: str, hidden_size: int) -> "RunState | None":
        """Read what `to_bytes` wrote; None if it is of another run. A damaged file raises one exception or another."""
        tensors = safetensors.torch.load(data)
        length = int.from_bytes(data[:8], "little")
        figures = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["checkpoint"])
        if figures["run"] != run:
            return None
        figures = {name: figures[name] for name in FIGURES}
        figures |= {name: tuple(figures[name]) for name in ("layers", "norms", "pair_norms")}
        parts: dict[str, dict[int, Tensor]] = {"vectors": {}, "first": {}, "second": {}, "best": {}}
        for name, tensor in tensors.items():
            part, _, layer = name.partition(".")
            parts[part][int(layer)] = tensor
        for name, vectors in parts.items():
            if sorted(vectors) != sorted(figures["layers"]) and (name != "best" or vectors):
                raise ValueError(f"{name} lacks a layer")
            if not all(v.shape == (hidden_size,) and v.dtype == torch.float32 for v in vectors.values()):
                raise ValueError(f"{name} is of another model")
        fields: dict[str, Any] = {**figures, **parts}
        return cls(**fields)


def thinned(curve: Sequence[dict[str, Any]], most: int = CURVE_POINTS) -> list[dict[str, Any]]:
    """Choose at most `most` points, evenly spread; up to half of them are those with held-out results."""
    measured = _spread([point for point in curve if "held_out_loss" in point], most // 2)
    others = _spread([point for point in curve if "held_out_loss" not in point], most - len(measured))
    return sorted([*measured, *others], key=lambda point: point["step"])


def _spread(points: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Choose the last point in each of `most` equal spans of steps, if there are more points than that."""
    if len(points) <= most:
        return points
    last = points[-1]["step"]
    return list({(point["step"] - 1) * most // last: point for point in points}.values())
