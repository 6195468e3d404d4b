"""What is chosen in step 2 of the Train tab, as settings of the method."""

import gradio as gr
import pytest

from steering.errors import SteeringError
from steering.interface.train.settings_step import Choices, labels
from steering.training.methods.bipo.config import BiPOSettings
from steering.training.methods.bipo.presets import EFFORTS


@pytest.fixture(scope="module")
def choices() -> Choices:
    with gr.Blocks():
        return Choices(30)


@pytest.fixture
def given(choices: Choices) -> dict:
    """Nothing was touched."""
    return {control: control.value for control in choices.inputs}


@pytest.mark.parametrize("effort", EFFORTS)
def test_untouched_it_is_the_effort(effort: str, choices: Choices, given: dict) -> None:
    assert BiPOSettings(**choices.settings(given, effort)) == BiPOSettings(**EFFORTS[effort].settings)
    assert choices.settings(given) == choices.settings(given, "quick")


def test_what_is_chosen_wins(choices: Choices, given: dict) -> None:
    wanted = {"signs": "both", "token_scope": "answer", "length_weight": 0.5, "l2": 0.1, "patience": 3, "batch_size": 8}
    given |= {choices.advanced[name].control: value for name, value in wanted.items()}
    given |= {choices.layer: "7", choices.effort: "standard"}
    assert choices.settings(given) == EFFORTS["standard"].settings | {"beta": 0.1, "seed": 0} | wanted | {"layer": 7}
    given[choices.several] = "12, 14"
    assert choices.settings(given)["layer"] == (12, 14)
    given[choices.several] = "twelve"
    with pytest.raises(SteeringError, match="twelve"):
        choices.settings(given)


def test_emptied_fields_and_unknown_efforts_do_no_harm(choices: Choices, given: dict) -> None:
    emptied = dict.fromkeys(given) | {choices.effort: "none such"}
    assert choices.settings(emptied) == EFFORTS["quick"].settings


def test_times_stand_beside_the_efforts() -> None:
    (quick, _), (standard, _), _ = labels({"quick": "about 50 s"})
    assert quick.startswith("Quick: about 50 s\n") and standard.startswith("Standard\n")
