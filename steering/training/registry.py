"""The training methods that there are: ours, and those that other packages add.

Adding one takes one file: a `MethodConfig` with the settings, a function that trains, and `METHOD`, a `Method` that
names both.
Ours are listed in `steering/training/methods/__init__.py`; another package declares an entry point:

    [project.entry-points."steering.methods"]
    mine = "my_package.my_method:METHOD"
"""

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from steering.errors import SteeringError
from steering.limits import NO_LIMITS, Limits
from steering.plugins import with_plugins
from steering.training.config import MethodConfig
from steering.training.methods import OURS

if TYPE_CHECKING:  # listing the methods, as `steering train --help` does, must not wait for torch
    from steering.models.loading import LanguageModel
    from steering.pairs.dataset import Pairs
    from steering.runtime.distributed import Processes
    from steering.training.checkpoints import Checkpoint
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


def _alone() -> "Processes":
    from steering.runtime.distributed import ALONE

    return ALONE


@dataclass(frozen=True)
class RunContext:
    """What a run may use beside model, pairs and settings.

    Attributes:
        should_stop: asked before each step; once True the run ends with the best vector so far.
        checkpoint: where a method that `resumes` writes its state; None writes nothing.
        processes: those that train this vector together, each making the same calls.
    """

    should_stop: Callable[[], bool] = lambda: False
    checkpoint: "Checkpoint | None" = None
    processes: "Processes" = field(default_factory=_alone)

    def stopped(self) -> bool:
        """Ask `should_stop` on every process: True on all of them if it is True on any.

        Every process must call it at the same point of its run.
        """
        return any(self.processes.gathered(self.should_stop()))


Run = Callable[["LanguageModel", "Pairs", "Pairs", Any, RunContext], "Generator[Progress, None, None]"]
"""A generator function: (model, pairs, held-out pairs, config, context) -> reports; the last one is `done` and carries
the vector, or None if the run was stopped before there was one. See `Progress` for what a report says."""

Estimate = Callable[["LanguageModel", "Pairs", "Pairs", Any], float]
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
        resumes: whether it writes checkpoints and goes on from them.
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

    def config(self, settings: Mapping[str, Any]) -> Any:
        """Make the config of these settings; raise SteeringError, one sentence, for an unknown or unsound one."""
        return self.config_class.checked(self.name, settings)

    def preset_settings(self, effort: str | None, limits: Limits = NO_LIMITS) -> dict[str, Any]:
        """Return the settings of the preset of this name, none for None.

        Raises SteeringError for an unknown name, or one that the limits do not offer.
        """
        if effort is None:
            return {}
        if effort not in self.presets:
            there_are = f"choose one of: {', '.join(self.presets)}" if self.presets else "leave it out"
            raise SteeringError(f"There is no effort {effort!r} of {self.name}; {there_are}.")
        limits.check_effort(effort)
        return dict(self.presets[effort].settings)

    @property
    def default_preset(self) -> str | None:
        """Name of the preset that the page and the API take where none is chosen; None if there are no presets."""
        return next(iter(self.presets), None)


@cache
def methods() -> dict[str, Method]:
    """All methods by name, ours first; one of another package that cannot be loaded is logged and left out."""
    return with_plugins((import_module(module).METHOD for module in OURS), ENTRY_POINTS, Method)


def method_named(name: str) -> Method:
    """Return the method of this name; SteeringError, naming those that there are, for another."""
    known = methods()
    if name not in known:
        raise SteeringError(f"There is no method {name!r}; choose one of: {', '.join(known)}.")
    return known[name]
