"""How much work to put into a vector, in three words."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Effort:
    """A bundle of `BiPOSettings`, and what to expect of it."""

    label: str
    hint: str
    settings: dict[str, Any] = field(default_factory=dict)


EFFORTS = {
    "quick": Effort("Quick", "60 steps at most: a minute or two on a laptop", {"epochs": 4, "max_steps": 60}),
    "standard": Effort("Standard", "4 times through the pairs", {"epochs": 4}),
    "paper": Effort(
        "As in the paper",
        "20 times through the pairs at the authors' learning rate 5e-4: hours on a CPU",
        {"epochs": 20, "schedule_epochs": 100, "learning_rate": 5e-4, "warmup_steps": 100},
    ),
}
