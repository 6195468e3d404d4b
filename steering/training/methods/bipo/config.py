"""The settings of a BiPO run: the authors', and the variants people ask for."""

import math
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import model_validator

from steering.training.config import RUN_GROUP, SWEEP, WHERE_GROUP, one_or_all, setting
from steering.training.objective_config import LARGEST, PAIR, ObjectiveConfig

__all__ = ["CURVE_PAIRS", "SWEEP", "BiPOConfig", "one_or_all"]

TRAVEL = 0.7
"""Default learning rate: steps all in one direction would carry the vector this many times as far as the two answers of
a pair lie apart at its layer (mean norm of the difference of their activations). A share of the residual norm would not
carry over: in Gemma-3-270m that norm is four times as large beside the differences as in the other models tried. The
value, with `START`, is where the written answers turn and stay fluent: see docs/default-effort.md."""
START = 0.3
"""Norm of the mean difference that a run may start from, in the same unit."""
START_PAIRS = 64
"""Pairs that the mean difference and its unit are measured on at most; seconds on the bundled model."""
CURVE_PAIRS = 32
"""At most this many held-out pairs are measured while training, to draw the curve and pick the best vector. At two
multipliers that is 64 forward passes over a pair; a step of four pairs, forward and backward, is worth about 12."""
FEWEST_STEPS = 24
"""A shorter run keeps the learning rate of this many steps: larger strides than that overshoot (seen on the bundled
model; no measurement is on record)."""
AUTHORS_WARMUP = 100
"""Warm-up steps of the authors' runs (Cao et al., appendix A.3), which take thousands of steps."""
LONGEST = 10**9
"""Bound of counts of steps, which have no natural one."""

LEARNING = "How it learns"
"""Heading on the page."""


class BiPOConfig(ObjectiveConfig):
    """Settings of a run; None is filled in by what fits the model and the data. The defaults are the paper's algorithm.

    Several layers get a vector each. `SWEEP` as layer finds the best one on the held-out pairs first.

    Some settings need more words than the page has room for:

    - `signs`: the direction d of a step is drawn by lot (`drawn`, equation 3 of the paper), or each step averages the
      losses of both (`both`), or it is always +1 (`plus`), as in plain DPO.
    - `length_weight`: an answer's log-probability is divided by its number of tokens to this power. 0 sums over the
      tokens, as the paper does; 1 averages over them (SimPO, arXiv 2405.14734, where beta is 2 to 2.5).
    - `start`: where the vector begins: at zero, as in the paper, or along the mean difference (see `START`).
    - `learning_rate`: peak of AdamW's schedule; the paper's 5e-4 suits its thousands of steps. Of several layers it is
      the first one's; that of the others is in proportion to how far the answers lie apart there.
    - `choose_by`: what the best vector, early stopping and `keep_best` go by: the held-out loss, or behavior times
      fluency of a few short answers (`written_effect`), which takes 3 seconds a measurement on the bundled model.
    - `l2`: l2 * sum over layers of (norm of the vector / residual norm)^2 is added to the loss.
    """

    token_scope: Literal["all", "answer"] = setting(  # vectors.TOKEN_SCOPES, whose import would load torch
        "all",
        label="Steered text",
        help="positions that are steered, in training and wherever the vector is used: all, or those of the answer",
        group=WHERE_GROUP,
        choice_labels={"all": "everywhere", "answer": "only in the answer"},
    )
    signs: Literal["drawn", "both", "plus"] = setting(
        "drawn",
        label="Direction of a step",
        help="both is steadier and takes twice as long; with +1 only, the opposite direction may do nothing",
        group=PAIR,
        choice_labels={"drawn": "drawn by lot, as in the paper", "both": "both in every step", "plus": "+1 only"},
    )
    batch_size: int = setting(4, label="Batch size", help="pairs a step", unit="pairs", group=LEARNING, ge=1, le=1024)
    epochs: int = setting(4, label="Epochs", help="passes over the pairs", group=LEARNING, ge=1, le=1000)
    start: Literal["zero", "mean_difference"] = setting(
        "zero",
        label="Start",
        help="the mean difference already turns the text a little, and training goes on from there",
        group=LEARNING,
        choice_labels={"zero": "at zero, as in the paper", "mean_difference": "at the mean difference"},
    )
    learning_rate: float | None = setting(
        None,
        label="Learning rate",
        help="size of a step, fitted to model and length of the run where it is left empty",
        group=LEARNING,
        gt=0,
        le=LARGEST,
    )
    l2: float = setting(
        0.0,
        label="Pull towards small norms (L2)",
        help="more makes the vector shorter; 0, as in the paper, lets it grow",
        group=LEARNING,
        ge=0,
        le=LARGEST,
    )
    max_steps: int | None = setting(
        None, label="Most steps", help="end after so many steps", unit="steps", group=RUN_GROUP, ge=1, le=LONGEST
    )
    # The loss and not the margin: the margin grows with the norm for ever, and looks in one direction only.
    patience: int | None = setting(
        None,
        label="Patience",
        help="end once so many measurements on the held-out pairs in a row brought no lower loss",
        unit="measurements",
        group=RUN_GROUP,
        ge=1,
        le=LONGEST,
    )
    warmup_steps: int | None = setting(
        None,
        label="Warm-up",
        help=f"steps over which the learning rate rises; by default a tenth of all, at most {AUTHORS_WARMUP}",
        unit="steps",
        ge=0,
        le=LONGEST,
    )
    schedule_epochs: int | None = setting(
        None,
        label="Length of the cosine",
        help="epochs over which the learning rate falls to 0; by default all (the authors run 100 and stop earlier)",
        unit="epochs",
        ge=1,
        le=100_000,
    )
    max_grad_norm: float = setting(
        1.0,
        label="Clipping",
        help="largest L2 norm of a step's gradient, over all layers together",
        gt=0,
        le=LARGEST,
    )
    weight_decay: float = setting(
        0.0, label="Weight decay", help="AdamW's; 0 as the authors' code runs", ge=0, le=LARGEST
    )
    keep_best: bool = setting(
        True, label="Best vector", help="return the best vector of the run instead of the last one"
    )
    choose_by: Literal["loss", "text"] = setting(
        "loss",
        label="Chosen by",
        help="the best vector is the one with the lowest held-out loss, or the one that writes best",
        choice_labels={"loss": "held-out loss", "text": "what the model writes"},
    )
    fast: bool = setting(True, label="Fast way", help="false trains the plain way, the whole model on padded batches")

    @model_validator(mode="after")
    def _cosine_covers_the_run(self) -> Self:
        if self.schedule_epochs is not None and self.schedule_epochs < self.epochs:  # past its end a cosine rises again
            raise ValueError(
                f"schedule_epochs is {self.schedule_epochs}; give a whole number from {self.epochs} to 100000."
            )
        return self

    def steps_per_epoch(self, pairs: int) -> int:
        """Optimiser steps in one pass over so many pairs."""
        return math.ceil(pairs / self.batch_size)

    def steps(self, pairs: int) -> int:
        """Optimiser steps of the whole run, unless it ends early."""
        steps = self.steps_per_epoch(pairs) * self.epochs
        return min(steps, self.max_steps or steps)

    def measure_every(self, pairs: int) -> int:
        """Return the steps between measurements of the held-out pairs: an epoch, or a third of a short run."""
        return max(1, min(self.steps_per_epoch(pairs), self.steps(pairs) // 3))

    def horizon(self, pairs: int) -> int:
        """Length of the cosine, in steps."""
        if self.schedule_epochs:
            return self.steps_per_epoch(pairs) * self.schedule_epochs
        return self.steps(pairs)

    def filled_in(self, layers: Sequence[int], pairs: int, pair_norms: Sequence[float], hidden_size: int) -> Self:
        """Replace every None by what fits.

        Args:
            layers: those steered, in order; `pair_norms`: the mean norm of a pair's difference at each.
            pairs: number of training pairs.
        """
        horizon = self.horizon(pairs)
        # AdamW moves each coordinate by about the learning rate a step, and the cosine averages half its peak.
        reach = math.sqrt(hidden_size) * max(horizon, FEWEST_STEPS) / 2
        warmup = min(AUTHORS_WARMUP, horizon // 10) if self.warmup_steps is None else self.warmup_steps
        filled = {
            "layer": one_or_all(tuple(layers)),
            "learning_rate": self.learning_rate or TRAVEL * pair_norms[0] / reach,
            "warmup_steps": warmup,
        }
        return self.model_copy(update=filled)
