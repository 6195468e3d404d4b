"""BiPO: bi-directional preference optimization (Cao et al., NeurIPS 2024, arXiv 2406.00045).

`train.py` has the algorithm and its formula. Torch is loaded when a run begins, so that listing methods is quick.
"""

from functools import partial

from steering.training.methods.bipo.config import BiPOConfig
from steering.training.methods.bipo.presets import PRESETS
from steering.training.preference_method import estimate, run
from steering.training.registry import Method

METHOD = Method(
    name="bipo",
    label="BiPO: trained both ways",
    description="Optimises the vector so that adding it makes the chosen answers likelier and subtracting it makes the "
    "rejected ones likelier. Takes minutes; works best where answers are free text.",
    config_class=BiPOConfig,
    run=partial(run, "bipo"),
    presets=PRESETS,
    estimate=estimate,
    resumes=True,
)
