"""How much work to put into a vector, in three words."""

from dataclasses import dataclass, field
from typing import Any

from steering.training.methods.bipo.config import SWEEP

QUICK_STEPS = 24
"""What two cores of a laptop do in less than a minute with pairs like those of the example sets."""


@dataclass(frozen=True)
class Effort:
    """A bundle of `BiPOSettings`, and what it means in words."""

    label: str
    hint: str
    settings: dict[str, Any] = field(default_factory=dict)


EFFORTS = {
    "quick": Effort(
        "Quick",
        f"at most {QUICK_STEPS} steps, at the middle layer",
        {"epochs": 4, "max_steps": QUICK_STEPS},
    ),
    # Four measurements come of four epochs: more patience than two would never run out.
    "standard": Effort(
        "Standard",
        "finds the layer, goes 4 times through the pairs, ends early where that is enough",
        {"epochs": 4, "layer": SWEEP, "patience": 2},
    ),
    "paper": Effort(
        "As in the paper",
        "finds the layer, goes 20 times through the pairs in small steps",
        {"epochs": 20, "schedule_epochs": 100, "learning_rate": 5e-4, "warmup_steps": 100, "layer": SWEEP},
    ),
}
