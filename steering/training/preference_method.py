"""The `Method` that is made of the trainer with another objective: what each such file in `methods/` calls."""

from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import create_model

from steering.training.methods.bipo.config import BiPOConfig
from steering.training.methods.bipo.presets import PRESETS
from steering.training.registry import Method, RunContext

if TYPE_CHECKING:  # listing the methods must not wait for torch
    from steering.models.loading import LanguageModel
    from steering.pairs.dataset import Pairs
    from steering.training.progress import Progress


def preference_method(name: str, *, label: str, description: str, **defaults: Any) -> Method:
    """Make the method that optimises a vector as `bipo` does, with other defaults of its terms.

    Args:
        name, label, description: as `Method` has them.
        defaults: fields of `BiPOConfig` whose default differs.
    """
    fields: dict[str, Any] = {}
    for key, value in defaults.items():
        declared = BiPOConfig.model_fields[key]
        field = declared.merge_field_infos(declared, default=value)
        fields[key] = (declared.annotation, field)
    config_class = create_model(f"{name.capitalize()}Config", __base__=BiPOConfig, **fields)
    presets = {key: preset for key, preset in PRESETS.items() if key != "paper"}
    return Method(
        name, label, description, config_class, partial(run, name), presets=presets, estimate=estimate, resumes=True
    )


def run(
    name: str, model: "LanguageModel", pairs: "Pairs", held_out: "Pairs", config: BiPOConfig, context: RunContext
) -> "Generator[Progress, None, None]":
    """Train by the objective that `config` describes: see `methods/bipo/train.py`."""
    from steering.training.methods.bipo.train import run  # loads torch

    return run(model, pairs, held_out, config, context, name=name)


def estimate(model: "LanguageModel", pairs: "Pairs", held_out: "Pairs", config: BiPOConfig) -> float:
    """Predict the seconds of a run on this machine: see `run_estimate.estimate`."""
    from steering.training.methods.bipo.run_estimate import estimate

    return estimate(model, pairs, held_out, config)
