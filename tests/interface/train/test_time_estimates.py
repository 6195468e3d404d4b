"""The time of each effort: predicted once for the same settings, never beside a training."""

from typing import Any

import gradio as gr
import pytest

from steering.errors import SteeringError
from steering.interface.app_state import AppState
from steering.interface.train.settings_step import SettingsStep
from steering.interface.train.time_estimates import TimeEstimates
from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs
from tests.interface.train.conftest import TOY_PRESETS, ToyConfig, toy_method, untouched


class Toys:
    """Time estimates for methods that say how often they were asked for a prediction."""

    def __init__(self, app: AppState) -> None:
        self.predicted: list[ToyConfig] = []
        self.app = app
        with gr.Blocks():
            self.step = SettingsStep(
                4,
                {
                    "toy": toy_method(presets=TOY_PRESETS, estimate=self.estimate),
                    "single": toy_method("single", estimate=self.estimate),
                    "instant": toy_method("instant"),
                },
            )
        self.estimates, self.values = TimeEstimates(app, self.step), untouched(self.step)

    def estimate(self, model: LanguageModel, pairs: Pairs, held_out: Pairs, config: Any) -> float:
        assert self.app.training.is_busy, "a training could begin meanwhile"
        if config.layer == (99,):
            raise SteeringError("Layer 99 does not exist.")
        self.predicted.append(config)
        return 100 * config.passes + len(pairs) + 1000 * len(held_out)

    def set(self, name: str, value: Any, method: str = "toy") -> None:
        self.values[self.step.controls[method][name].component] = value

    def efforts(self, pairs: Pairs | None) -> list[str]:
        update = self.estimates.update(pairs, self.values)
        return [label.partition("\n")[0] for label, _ in update["effort"]["choices"]]


@pytest.fixture
def toys(app: AppState) -> Toys:
    return Toys(app)


def test_the_same_is_predicted_once(toys: Toys, pairs: Pairs) -> None:
    toys.values[toys.step.holdout] = 0.0
    assert toys.efforts(pairs) == ["Once: about 2 min", "Often: about 15 min"]
    assert toys.efforts(pairs) and [config.passes for config in toys.predicted] == [1, 9]
    toys.set("rank", 5)
    toys.efforts(pairs)
    assert [config.rank for config in toys.predicted] == [2, 2, 5, 5]
    toys.values[toys.step.holdout] = 0.25
    assert toys.efforts(pairs) == ["Once: about 35 min", "Often: about 48 min"]
    assert not toys.app.training.is_busy


def test_nothing_is_measured_while_a_training_runs(toys: Toys, pairs: Pairs) -> None:
    with toys.app.training:
        assert toys.efforts(pairs) == ["Once", "Often"]
    assert toys.predicted == []
    known = toys.efforts(pairs)
    with toys.app.training:
        assert toys.efforts(pairs) == known  # what was predicted before can be shown
        toys.set("rank", 5)
        assert toys.efforts(pairs) == ["Once", "Often"]


def test_settings_that_make_no_sense_have_no_time(toys: Toys, pairs: Pairs) -> None:
    assert toys.efforts(None) == ["Once", "Often"]
    for several in ("up", "99"):
        toys.values[toys.step.several_layers] = several
        assert toys.efforts(pairs) == ["Once", "Often"]
    assert not toys.app.training.is_busy


def test_a_method_without_a_choice_of_efforts_has_a_line_of_its_own(toys: Toys, pairs: Pairs) -> None:
    toys.values[toys.step.method] = "single"
    update = toys.estimates.update(pairs, toys.values)
    assert "effort" not in update and "Takes about" in update["time"]
    assert toys.estimates.update(None, toys.values) == {"time": ""}


def test_a_method_that_predicts_nothing_takes_seconds(toys: Toys, pairs: Pairs) -> None:
    toys.values[toys.step.method] = "instant"
    assert "Takes a few seconds." in toys.estimates.update(pairs, toys.values)["time"]
