"""How long a training with the settings of step 2 would take on this machine, said before anything is trained."""

import logging
import threading
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.interface import html
from steering.interface.app_state import AppState
from steering.interface.train.setting_control import Values
from steering.interface.train.settings_step import SettingsStep, effort_choices
from steering.pairs.dataset import Pairs
from steering.training.registry import Estimate, Method

MOST_REMEMBERED = 500
"""Estimates remembered for the time in which a training runs; one visitor who tries settings makes a few dozen."""

logger = logging.getLogger(__name__)


class TimeEstimates:
    """Predicts the time of each preset of the chosen method.

    Predicting may measure the machine's speed, so it holds `AppState.training` meanwhile: beside a training both would
    be slow, and the figure wrong. Where a training runs, only what was predicted before is shown.
    """

    def __init__(self, app: AppState, settings_step: SettingsStep) -> None:
        self.app, self.settings_step = app, settings_step
        self._predicted: dict[Any, str] = {}
        self._one_at_a_time = threading.Lock()

    def update(self, pairs: Pairs | None, values: Values) -> dict[str, Any]:
        """Return what changes on the page: `effort` (the presets with their times) and `time` (HTML).

        The time stands in the efforts' labels; a method without a choice of efforts has a line of its own.
        """
        method = self.settings_step.chosen_method(values)
        times: dict[str, str] = {}
        try:
            if pairs:
                times = self._times(method, pairs, values)
        except (SteeringError, ValueError, OverflowError) as error:  # Train will say what is wrong with the settings
            logger.info("no time is predicted: %s", error)
        if len(method.presets) > 1:
            return {"effort": gr.update(choices=effort_choices(method, times, self.app.limits)), "time": ""}
        time = next(iter(times.values()), "")
        return {"time": html.note(f"Takes {time}.") if time else ""}

    def _times(self, method: Method, pairs: Pairs, values: Values) -> dict[str, str]:
        """Return the time of each preset, in words; of the only run under the key "" for a method without presets."""
        estimate = method.estimate
        if self.app.gpu:  # what this CPU would take says nothing
            return {}
        if estimate is None:
            return dict.fromkeys(method.presets or [""], "a few seconds")
        holdout = float(values[self.settings_step.holdout])
        times = {}
        for preset in [name for name in method.presets if self.app.limits.offers(name)] or [""]:
            config = method.config(self.settings_step.settings(values, preset))
            key = (self.app.model.fingerprint, method.name, repr(config), pairs.sha256, holdout)
            if key not in self._predicted:
                seconds = self._seconds(estimate, pairs, holdout, config)
                if seconds is None:
                    return {}
                self._remember(key, f"about {html.roughly(seconds)}")
            times[preset] = self._predicted[key]
        return times

    def _seconds(self, estimate: Estimate, pairs: Pairs, holdout: float, config: Any) -> float | None:
        """Predict one run, alone on the machine; None while a training runs."""
        with self._one_at_a_time:
            if not self.app.training.acquire(blocking=False):
                return None
            try:
                return estimate(self.app.model, *pairs.split(holdout, config.seed), config)
            finally:
                self.app.training.release()

    def _remember(self, key: Any, time: str) -> None:
        if len(self._predicted) >= MOST_REMEMBERED:
            self._predicted.clear()
        self._predicted[key] = time
