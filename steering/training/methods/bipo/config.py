"""The settings of a BiPO run: the authors', and the variants people ask for."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

from steering.errors import SteeringError
from steering.vectors.vector import TOKEN_SCOPES

TRAVEL = 0.25
"""Default learning rate: steps all in one direction would carry the vector to this share of the residual norm."""
CURVE_PAIRS = 32
"""At most this many held-out pairs are measured while training, to draw the curve and pick the best vector."""
FEWEST_STEPS = 40
"""A shorter run keeps the learning rate of this many steps: larger strides than that overshoot."""
SIGNS = ("drawn", "both", "plus")
SWEEP = "sweep"


@dataclass(frozen=True)
class BiPOSettings:
    """Settings of a run; None is filled in by what fits the model and the data. The defaults are the paper's algorithm.

    Attributes:
        layer: the layer steered, or several, each with a vector of its own; by default the middle one; "sweep" finds
            the best one on the held-out pairs first.
        epochs: passes over the pairs; `batch_size`: pairs a step.
        learning_rate: peak of AdamW; by default fitted to the model's residual norm and the number of steps (the
            authors' 5e-4 suits thousands of steps). With several layers it is the first one's, and that of the others
            is larger or smaller as their residual norm is.
        beta: how sharply the loss saturates (DPO's beta), a share of Delta in nats.
        signs: the direction d of a step: "drawn" from {-1, +1} for each batch (the authors), "both" in every step (the
            mean of the two losses, twice the work), or "plus", always +1 (the direction plain DPO finds).
        token_scope: the positions steered, in training and wherever the vector is used: "all" or "answer".
        length_weight: alpha; the summed log-probability of an answer of n tokens is divided by n ** alpha, steered and
            untouched alike: 0 is the paper, 1 the mean per token (SimPO, Meng et al. 2024, arXiv 2405.14734). Delta
            shrinks as much, so the loss saturates as before with beta * (a usual n) ** alpha: SimPO takes a beta of 2
            to 2.5 where DPO takes 0.1. AdamW takes no notice of the scale otherwise.
        l2: pull towards small norms: l2 * sum over layers of (|v| / residual norm)^2 is added to the loss.
        seed: of the order of pairs and of the signs.
        max_steps: end after so many steps, even inside an epoch.
        patience: end once so many measurements on the held-out pairs in a row brought no lower held-out loss. The loss
            and not the margin: the margin grows with the norm for ever, and looks in one direction only.
        warmup_steps: by default a tenth of the steps, at most the authors' 100.
        schedule_epochs: length of the cosine; by default `epochs` (the authors run 100 and stop earlier).
        max_grad_norm: clipping of the gradient's L2 norm, over all layers together.
        weight_decay: 0 as the authors' code runs.
        keep_best: return the vector with the lowest held-out loss instead of the last one.
        fast: False trains the plain way, the whole model on padded batches.
    """

    layer: int | Sequence[int] | str | None = None
    epochs: int = 4
    batch_size: int = 4
    learning_rate: float | None = None
    beta: float = 0.1
    signs: str = "drawn"
    token_scope: str = "all"
    length_weight: float = 0.0
    l2: float = 0.0
    seed: int = 0
    max_steps: int | None = None
    patience: int | None = None
    warmup_steps: int | None = None
    schedule_epochs: int | None = None
    max_grad_norm: float = 1.0
    weight_decay: float = 0.0
    keep_best: bool = True
    fast: bool = True

    def check(self) -> None:
        """Raise SteeringError for a value no run can have. (That the model has the layer, the run checks.)"""
        whole = {
            "epochs": (1, 1000),
            "batch_size": (1, 1024),
            "seed": (0, 2**63 - 1),
            "max_steps": (1, 10**9),
            "patience": (1, 10**9),
            "warmup_steps": (0, 10**9),
            "schedule_epochs": (self.epochs, 100_000),  # past its end a cosine would rise again
        }
        for name, (low, high) in whole.items():
            value = getattr(self, name)
            if not self._left_out(name) and (not isinstance(value, Integral) or not low <= value <= high):
                raise SteeringError(f"{name} is {value}; give a whole number from {low} to {high}.")
        may_be_zero = {"length_weight": 2, "l2": 1e6, "weight_decay": 1e6}
        for name in ("learning_rate", "beta", "max_grad_norm", *may_be_zero):
            value, most = getattr(self, name), may_be_zero.get(name, 1e6)
            if self._left_out(name):
                continue
            if not isinstance(value, Real) or not 0 <= value <= most or (value == 0 and name not in may_be_zero):
                low = "from 0" if name in may_be_zero else "above 0"
                raise SteeringError(f"{name} is {value}; give a number {low} and at most {most:,.0f}.")
        for name, known in (("signs", SIGNS), ("token_scope", TOKEN_SCOPES)):
            if getattr(self, name) not in known:
                raise SteeringError(f"{name} is {getattr(self, name)!r}; choose one of: {', '.join(known)}.")
        if isinstance(self.layer, str) and self.layer != SWEEP:
            raise SteeringError(f"layer is {self.layer!r}; give a whole number, several of them, or {SWEEP!r}.")

    def _left_out(self, name: str) -> bool:
        return getattr(self, name) is None and getattr(type(self), name) is None

    def steps_per_epoch(self, pairs: int) -> int:
        return math.ceil(pairs / self.batch_size)

    def steps(self, pairs: int) -> int:
        steps = self.steps_per_epoch(pairs) * self.epochs
        return min(steps, self.max_steps or steps)

    def measure_every(self, pairs: int) -> int:
        """Steps from one measurement of the held-out pairs to the next: an epoch, or a third of a short run."""
        return max(1, min(self.steps_per_epoch(pairs), self.steps(pairs) // 3))

    def horizon(self, pairs: int) -> int:
        """Length of the cosine, in steps."""
        if self.schedule_epochs:
            return self.steps_per_epoch(pairs) * self.schedule_epochs
        return self.steps(pairs)

    def filled_in(
        self, layers: Sequence[int], pairs: int, residual_norms: Sequence[float], hidden_size: int
    ) -> "BiPOSettings":
        """The same settings with every None replaced by what fits; `residual_norms` are those at the layers."""
        horizon = self.horizon(pairs)
        # AdamW moves each coordinate by about the learning rate a step, and the cosine averages half its peak.
        reach = math.sqrt(hidden_size) * max(horizon, FEWEST_STEPS) / 2
        filled: dict[str, Any] = {"layer": one_or_all(layers)}
        filled["learning_rate"] = self.learning_rate or TRAVEL * residual_norms[0] / reach
        if self.warmup_steps is None:
            filled["warmup_steps"] = min(100, horizon // 10)
        return replace(self, **filled)


def one_or_all(values: Sequence[Any]) -> Any:
    """How a file or an answer tells what there is one of for each layer: plainly where there is but one layer."""
    return values[0] if len(values) == 1 else list(values)
