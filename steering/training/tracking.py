"""Experiment tracking: a run's losses and settings in trackio, tensorboard, wandb or whatever accelerate knows."""

import atexit
import contextlib
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steering.errors import SteeringError
from steering.training.progress import Progress

if TYPE_CHECKING:
    from accelerate import Accelerator

PROJECT = "steering-playground"
"""What trackers that group runs call the group."""
PACKAGES = {
    "aim": ("aim",),
    "clearml": ("clearml",),
    "comet_ml": ("comet_ml",),
    "dvclive": ("dvclive",),
    "mlflow": ("mlflow",),
    "swanlab": ("swanlab",),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}
"""accelerate's trackers and the packages of which each needs one. (accelerate leaves out, unsaid, what is missing.)"""


def check_trackers(names: Sequence[str]) -> None:
    """Raise SteeringError, saying what to install, unless each of these trackers can be used."""
    for name in names:
        if name not in PACKAGES:
            raise SteeringError(f"There is nothing called {name!r} to report to; choose from: {', '.join(PACKAGES)}.")
        if not any(find_spec(package) for package in PACKAGES[name]):
            raise SteeringError(
                f"Reporting to {name} needs a package that is not here: pip install {PACKAGES[name][-1]}."
            )


class Tracking(contextlib.AbstractContextManager):
    """Within this context each report of a step that `hear` is given goes to all the trackers.

    Args:
        names: keys of `PACKAGES`; none is fine.
        run: what this run is called; the time is added.
        folder: where a tracker that writes files puts them, in a folder of the run's own.

    Raises SteeringError for a tracker that there is not, or that is not installed.
    """

    def __init__(self, names: Sequence[str], run: str, folder: Path) -> None:
        check_trackers(names)
        self._names, self._run, self._folder = list(names), f"{run}-{datetime.now():%Y%m%d-%H%M%S}", folder
        self._accelerator: Accelerator | None = None

    def hear(self, progress: Progress) -> None:
        """Log the report's figures; before the first ones, the settings of the run."""
        if not self._names or progress.stage not in ("preparing", "training"):
            return
        if self._accelerator is None and (progress.settings or progress.stage == "training"):
            self._begin(progress.settings or {})
        if progress.stage == "training" and self._accelerator is not None:
            self._accelerator.log(_figures(progress), step=progress.step)

    def _begin(self, settings: Mapping[str, Any]) -> None:
        from accelerate import Accelerator  # seconds to import, and only needed here

        plain = {key: value if isinstance(value, int | float | str) else str(value) for key, value in settings.items()}
        named = {name: {"name": self._run} for name in ("trackio", "wandb")}
        self._accelerator = Accelerator(log_with=self._names, project_dir=self._folder / self._run)
        self._accelerator.init_trackers(PROJECT, config=plain, init_kwargs=named)

    def __exit__(self, *error: object) -> None:
        if self._accelerator is not None:
            self._accelerator.end_training()
            atexit.register(_print_to_stderr)


def _print_to_stderr() -> None:
    """Redirect what trackers still print as the program ends: on stdout stands the program's answer."""
    sys.stdout = sys.stderr


def _figures(progress: Progress) -> dict[str, float]:
    """Return the numbers of a step's report; a method without a loss has no margin either."""
    measured = {"loss": progress.loss, "margin": progress.margin, "norm": progress.norm, "epoch": progress.epoch}
    figures = {name: value for name, value in measured.items() if value is not None}
    if progress.held_out and progress.held_out_loss is not None:
        figures["held_out/loss"] = progress.held_out_loss
        for result in progress.held_out:
            side = "plus" if result.multiplier > 0 else "minus"  # tensorboard takes no sign in a name
            figures[f"held_out/accuracy_{side}"] = result.preference_accuracy
            figures[f"held_out/margin_{side}"] = result.preference_margin
    return figures
