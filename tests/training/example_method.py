"""A training method as another package would bring it: one module with a `METHOD`, found through an entry point."""

from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import Any, Literal

import pytest
import torch

from steering import plugins
from steering.training import registry
from steering.training.config import MethodConfig, setting
from steering.training.progress import Progress
from steering.vectors.vector import SteeringVector


class Config(MethodConfig):
    """Settings other than BiPO's."""

    scale: float = setting(2.0, label="Scale", help="norm of the vector, 100% made up", group="Size", gt=0, le=100)
    shape: Literal["flat", "drawn"] = setting("flat", label="Shape", help="what it looks like", group="Size")
    tidy: bool = setting(False, label="Tidy", help="round the numbers", group="Size")


def run(model: Any, pairs: Any, held_out: Any, config: Config, context: registry.RunContext) -> Iterator[Progress]:
    """Steer along a constant direction, or one drawn by lot, whatever the pairs."""
    yield Progress("preparing", total_steps=1, note="Something to know.")
    if context.stopped():
        yield Progress("done", total_steps=1, stopped="asked")
        return
    generator = torch.Generator().manual_seed(config.seed)
    drawn = config.shape == "drawn"
    v = torch.randn(model.hidden_size, generator=generator) if drawn else torch.ones(model.hidden_size)
    vector = SteeringVector(
        {model.num_layers // 2 if config.layer is None else config.layer: config.scale * v / v.norm()},
        method={"name": "example", **config.as_json()},
        pairs={"train": len(pairs), "held_out": len(held_out)},
        metrics={"of its own": 1},
    )
    yield Progress("done", step=1, total_steps=1, vector=vector)


METHOD = registry.Method("example", "An example", "Makes a vector out of nothing.", Config, run)


def install(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> None:
    """Let the registry find these entry points, this module's method by default, for the length of the test."""
    points = points or (EntryPoint("example", f"{__name__}:METHOD", registry.ENTRY_POINTS),)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [p for p in points if p.group == group])
    registry.methods.cache_clear()
