"""How much work to put into a vector, in three words."""

from steering.training.config import LATE, SWEEP
from steering.training.registry import Preset

QUICK_STEPS = 24
"""What two cores of a laptop do in less than a minute with pairs like those of the example sets."""

PRESETS = {
    "quick": Preset(
        "Quick",
        f"at most {QUICK_STEPS} steps from the mean difference, at a late layer",
        {"epochs": 4, "max_steps": QUICK_STEPS, "layer": LATE, "start": "mean_difference"},
    ),
    # Four measurements come of four epochs: more patience than two would never run out.
    "standard": Preset(
        "Standard",
        "finds the layer, goes 4 times through the pairs, ends early where that is enough",
        {"epochs": 4, "layer": SWEEP, "patience": 2, "start": "mean_difference"},
    ),
    # Cao et al., appendix A.3; the cosine of their code spans 100 epochs, of which the paper uses the first 20.
    "paper": Preset(
        "As in the paper",
        "finds the layer, goes 20 times through the pairs in small steps",
        {"epochs": 20, "schedule_epochs": 100, "learning_rate": 5e-4, "warmup_steps": 100, "layer": SWEEP},
    ),
}
"""The default one first."""
