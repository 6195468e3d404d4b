"""What a trainer reports while it works, whichever method it follows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from steering.evaluation.pair_margins import PairMargin
from steering.evaluation.preference import PreferenceResult
from steering.scoring.scorer import PairScorer
from steering.vectors.vector import SteeringVector

Stage = Literal["preparing", "training", "trained", "measuring", "done"]


@dataclass(frozen=True)
class HeldOutScorer:
    """A run's scorer, offered for measuring the vector: what it has computed of the held-out pairs serves again.

    Attributes:
        scorer: its layer is at or before the vector's first one, and its scope is the vector's.
        indices: the held-out pairs among the scorer's.
    """

    scorer: PairScorer
    indices: Sequence[int]


@dataclass(frozen=True)
class Progress:
    """One report of a training run.

    A method reports `preparing`, `training` and `done`; the pipeline (`pipeline.run`) turns the method's `done` into
    `trained`, and adds `measuring` and a `done` of its own.

    Attributes:
        stage: `preparing`: pairs are read, a layer is chosen; `training`: one optimiser step was taken, or, by a
            method that has none, one batch of pairs was read; `trained`: the vector is there and saved; `measuring`:
            one batch of held-out pairs was measured; `done`: the vector carries its held-out results.
        step, total_steps: optimiser steps (by a method without: pairs; when `measuring`: batches) done, and in all;
            `epoch` counts from 0 and may be a fraction.
        loss: loss of the step's batch; `margin`: mean of sign * [preference margin] over the batch, in nats (above 0:
            the vector moves the batch as asked); `sign`: +1 or -1, the direction of the step, or 0 for both.
        norm: L2 norm of the vector.
        seconds, seconds_left: since the start of the training, and estimated to its end.
        held_out: results at +1 and -1 on held-out pairs, and `held_out_loss`, when they were measured at this step.
        vector: the best vector so far, when it was measured at this step, and always from `trained` on.
        stopped: why a run ended before its last step: `asked`, `time` (the limit of `Limits.training_seconds`), `early`
            (the held-out loss no longer fell) or `broken` (the loss was no number any more); empty for one that did
            not.
        settings: the method's settings, filled in; when `preparing` has come to them.
        note: something the user should know, in plain words.
        unit: what `step` counts while `training`: optimiser steps or pairs.
        pair_margins: of the pipeline's `done`: what the vector does to each held-out pair.
        held_out_scorer: of a method's `done`, what the pipeline measures with; None lets it make its own.
    """

    stage: Stage
    step: int = 0
    total_steps: int = 0
    epoch: float = 0.0
    loss: float | None = None
    margin: float | None = None
    sign: int = 0
    norm: float = 0.0
    seconds: float = 0.0
    seconds_left: float | None = None
    held_out: tuple[PreferenceResult, ...] | None = None
    held_out_loss: float | None = None
    vector: SteeringVector | None = None
    stopped: Literal["", "asked", "time", "early", "broken"] = ""
    settings: dict[str, Any] | None = None
    note: str = ""
    unit: Literal["steps", "pairs"] = "steps"
    pair_margins: tuple[PairMargin, ...] = ()
    held_out_scorer: HeldOutScorer | None = field(default=None, compare=False, repr=False)
