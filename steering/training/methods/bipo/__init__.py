"""BiPO: bi-directional preference optimization (Cao et al., NeurIPS 2024, arXiv 2406.00045).

`train.py` has the algorithm and its formula. Torch is loaded when a run begins, so that listing methods is quick.
"""

from collections.abc import Generator
from typing import TYPE_CHECKING

from steering.training.methods.bipo.config import BiPOConfig
from steering.training.methods.bipo.presets import PRESETS
from steering.training.registry import Method, RunContext

if TYPE_CHECKING:
    from steering.models.loading import LanguageModel
    from steering.pairs.dataset import Pairs
    from steering.training.progress import Progress


def run(
    model: "LanguageModel", pairs: "Pairs", held_out: "Pairs", config: BiPOConfig, context: RunContext
) -> "Generator[Progress, None, None]":
    """Train by BiPO: see `train.run`."""
    from steering.training.methods.bipo.train import run

    return run(model, pairs, held_out, config, context)


def estimate(model: "LanguageModel", pairs: "Pairs", held_out: "Pairs", config: BiPOConfig) -> float:
    """Predict the seconds of a run on this machine: see `run_estimate.estimate`."""
    from steering.training.methods.bipo.run_estimate import estimate

    return estimate(model, pairs, held_out, config)


METHOD = Method(
    name="bipo",
    label="BiPO: trained both ways",
    description="Optimises the vector so that adding it makes the chosen answers likelier and subtracting it makes the "
    "rejected ones likelier. Takes minutes; works best where answers are free text.",
    config_class=BiPOConfig,
    run=run,
    presets=PRESETS,
    estimate=estimate,
    resumes=True,
)
