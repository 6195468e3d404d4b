"""The training methods that there are: ours, and those that other packages add.

Adding one takes one file: a `MethodConfig` with the settings, a function that trains, and `METHOD`, a `Method` that
names both.
Ours are listed in `steering/training/methods/__init__.py`; another package declares an entry point:

    [project.entry-points."steering.methods"]
    mine = "my_package.my_method:METHOD"
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from steering.errors import SteeringError
from steering.models import LanguageModel
from steering.pairs import Pairs
from steering.runtime.distributed import ALONE, Processes
from steering.training.checkpoints import Checkpoint
from steering.training.config import MethodConfig
from steering.training.methods import OURS
from steering.training.progress import Progress

ENTRY_POINTS = "steering.methods"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preset:
    """Settings under one word, for people who do not want to choose each.

    Attributes:
        label, hint: what the page shows.
    """

    label: str
    hint: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunContext:
    """What a run may use beside model, pairs and settings.

    Attributes:
        should_stop: asked before each step; once True the run ends with the best vector so far.
        checkpoint: where a method that `resumes` keeps what it has come to; None keeps nothing.
        processes: those that train this vector together, each making the same calls.
    """

    should_stop: Callable[[], bool] = lambda: False
    checkpoint: Checkpoint | None = None
    processes: Processes = ALONE


Run = Callable[[LanguageModel, Pairs, Pairs, Any, RunContext], Iterator[Progress]]
"""(model, pairs, held-out pairs, config, context) -> reports; the last one is `done` and carries the vector."""

Estimate = Callable[[LanguageModel, Pairs, Pairs, Any], float]
"""(model, pairs, held-out pairs, config) -> predicted seconds of the run on this machine; may measure for a second."""


@dataclass(frozen=True)
class Method:
    """One way to make a steering vector from preference pairs.

    Attributes:
        name: on the command line, in the API and in vector files; lower-case.
        label: for menus; description: one or two plain sentences for the page.
        config_class: its settings.
        run: trains.
        presets: word -> bundle of settings, the default one first; empty for a method with nothing to choose.
        estimate: predicts the seconds of a run; None where every run takes seconds.
        inputs: what it is made from; `pairs` is what page, command line and API can bring.
        resumes: whether it keeps checkpoints and goes on from them.
    """

    name: str
    label: str
    description: str
    config_class: type[MethodConfig]
    run: Run
    presets: Mapping[str, Preset] = field(default_factory=dict)
    estimate: Estimate | None = None
    inputs: Sequence[str] = ("pairs",)
    resumes: bool = False


@cache
def methods() -> dict[str, Method]:
    """All methods by name, `bipo` first; one of another package that cannot be loaded is logged and left out."""
    found = {method.name: method for method in (import_module(module).METHOD for module in OURS)}
    for point in entry_points(group=ENTRY_POINTS):
        try:
            method = point.load()
        except Exception:
            logger.warning("method %s of %s cannot be loaded", point.name, point.value, exc_info=True)
            continue
        if not isinstance(method, Method) or method.name in found:
            logger.warning("entry point %s is no Method, or its name is taken; it is left out", point.value)
            continue
        found[method.name] = method
    return found


def method_named(name: str) -> Method:
    """The method of this name; SteeringError, naming those that there are, for another."""
    known = methods()
    if name not in known:
        raise SteeringError(f"There is no method {name!r}; choose one of: {', '.join(known)}.")
    return known[name]
