"""The Train tab's handlers on a tiny model, without a browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import gradio as gr
import pytest

from steering.interface.app_state import AppState
from steering.interface.train.run_step import RunStep
from steering.interface.train.save_step import SaveStep
from steering.interface.train.settings_step import SettingsStep
from steering.models.loading import LanguageModel
from steering.training.config import MethodConfig, setting
from steering.training.progress import Progress
from steering.training.registry import Method, Preset
from steering.vectors.library import Library


@pytest.fixture
def app(tiny: LanguageModel, tmp_path: Path) -> AppState:
    return AppState(tiny, Library(own=tmp_path / "shelf", shipped=tmp_path / "none"))


@pytest.fixture(scope="session")
def settings_step(tiny: LanguageModel) -> SettingsStep:
    with gr.Blocks():
        return SettingsStep(tiny.num_layers)


def untouched(settings_step: SettingsStep) -> dict[Any, Any]:
    """What the controls hold before anybody touches them."""
    return {control: control.value for control in settings_step.inputs}


@pytest.fixture
def values(settings_step: SettingsStep) -> dict[Any, Any]:
    return untouched(settings_step)


@pytest.fixture
def run_step(app: AppState, settings_step: SettingsStep) -> RunStep:
    return RunStep(app, settings_step)


@pytest.fixture
def save_step(app: AppState) -> SaveStep:
    return SaveStep(app)


class ToyConfig(MethodConfig):
    """One setting of each kind, one that a preset sets, and one that is not for the page."""

    rank: int = setting(
        2, label="Rank", help="number of directions", unit="directions", group="The decomposition", ge=1, le=9
    )
    threshold: float = setting(1.5, label="Threshold", help="above it counts", group="The decomposition", ge=0, le=1e6)
    centred: bool = setting(True, label="Centred", help="subtract the mean first", group="The decomposition")
    solver: Literal["full", "lanczos", "random"] = setting(
        "full", label="Solver", help="how", group="Where it steers", choice_labels={"full": "exact"}
    )
    shrinkage: float | None = setting(None, label="Shrinkage", help="of the covariance", group="Statistics", ge=0, le=1)
    passes: int = setting(1, label="Passes", help="over the pairs", group="The run as a whole", ge=1, le=100)
    debug: bool = setting(False, label="Debug", help="for developers")


def never_run(*_: object) -> Iterator[Progress]:
    raise AssertionError("the settings of this method are looked at, it is not trained")


def toy_method(name: str = "toy", **more: Any) -> Method:
    return Method(
        name, label="Toy <method>", description="Finds nothing.", config_class=ToyConfig, run=never_run, **more
    )


TOY_PRESETS = {"once": Preset("Once", "one pass"), "often": Preset("Often", "nine passes", {"passes": 9})}
