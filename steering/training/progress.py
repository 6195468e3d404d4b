"""What a trainer reports while it works, whichever method it follows."""

from dataclasses import dataclass
from typing import Any

from steering.evaluation.preference import PreferenceResult
from steering.vectors.vector import SteeringVector


@dataclass(frozen=True)
class Progress:
    """One report of a training run.

    Attributes:
        stage: `preparing`, `training` or `done`.
        step, total_steps: optimiser steps taken, and in all; `epoch` counts from 0 and may be a fraction.
        loss: loss of the step's batch; `margin`: mean of sign * [preference margin] over the batch, in nats (above 0:
            the vector moves the batch as asked); `sign`: +1 or -1, the direction of the step, or 0 for both.
        norm: L2 norm of the vector.
        seconds, seconds_left: since the start, and estimated to the end.
        held_out: results at +1 and -1 on held-out pairs, and `held_out_loss`, when they were measured at this step.
        vector: the best vector so far, when it was measured at this step, and always when `done`.
        stopped: why a run ended before its last step: `asked`, `early` (the held-out loss no longer fell) or `broken`
            (the loss was no longer a number); empty for one that did not.
        settings: the method's settings, filled in; when `preparing` has come to them.
        note: something the user should know, in plain words.
    """

    stage: str
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
    stopped: str = ""
    settings: dict[str, Any] | None = None
    note: str = ""
