"""Step 2 of the Train tab: controls from the registry, and the settings that they come to."""

from typing import Any

import gradio as gr
import pytest

from steering.errors import SteeringError
from steering.interface.train.setting_control import make_control
from steering.interface.train.settings_step import SettingsStep, effort_choices, read_layers
from steering.training.methods.bipo import METHOD as BIPO
from steering.training.registry import Method, methods
from tests.interface.train.conftest import TOY_PRESETS, ToyConfig, toy_method, untouched


@pytest.mark.parametrize("preset", BIPO.presets)
def test_untouched_controls_give_the_preset(preset: str, settings_step: SettingsStep, values: dict) -> None:
    assert settings_step.settings(values, preset) == dict(BIPO.presets[preset].settings)
    assert settings_step.settings(values) == settings_step.settings(values, "quick")


@pytest.mark.parametrize("method", [m for m in methods().values() if "pairs" in m.inputs], ids=lambda m: m.name)
def test_every_method_of_the_registry_can_be_chosen(method: Method, settings_step: SettingsStep, values: dict) -> None:
    values[settings_step.method] = method.name
    settings_step.choose_method(method.name)
    method.config(settings_step.settings(values))
    on_the_page = {spec.name for spec in method.config_class.specs() if spec.group} - {"seed", "layer"}
    assert set(settings_step.controls[method.name]) == on_the_page


def test_changed_settings_win_over_the_preset(settings_step: SettingsStep, values: dict) -> None:
    changes: dict[str, Any] = {"signs": "both", "token_scope": "answer", "length_weight": 0.5, "l2": 0.1}
    changes |= {"patience": "3", "batch_size": 8, "learning_rate": "1e-3"}
    values |= {settings_step.controls["bipo"][name].component: value for name, value in changes.items()}
    values |= {settings_step.layer: "2", settings_step.effort: "standard"}
    wanted = {**BIPO.presets["standard"].settings, **changes, "layer": 2, "patience": 3, "learning_rate": 1e-3}
    assert settings_step.settings(values) == wanted
    values[settings_step.several_layers] = "1, 3"
    assert settings_step.settings(values)["layer"] == (1, 3)


def test_texts_that_are_no_numbers_are_refused_in_a_sentence(settings_step: SettingsStep, values: dict) -> None:
    values[settings_step.controls["bipo"]["patience"].component] = "long"
    with pytest.raises(SteeringError, match="Patience: 'long' is not a number"):
        settings_step.settings(values)
    with pytest.raises(SteeringError, match="'twelve' is not a list such as"):
        read_layers("twelve")
    values[settings_step.method] = "alchemy"
    with pytest.raises(SteeringError, match="'alchemy'.*choose one of: bipo"):
        settings_step.settings(values)


def test_emptied_controls_and_unknown_efforts_give_the_default_preset(
    settings_step: SettingsStep, values: dict
) -> None:
    emptied = dict.fromkeys(values) | {settings_step.method: "bipo", settings_step.effort: "none such"}
    assert settings_step.settings(emptied) == dict(BIPO.presets["quick"].settings)


def test_only_the_chosen_methods_settings_are_sent() -> None:
    with gr.Blocks():
        step = SettingsStep(4, {"bipo": BIPO, "toy": toy_method(presets=TOY_PRESETS)})
    values = untouched(step)
    values |= {step.controls["bipo"]["beta"].component: 0.5, step.controls["toy"]["rank"].component: 3}
    assert step.settings(values) == {**BIPO.presets["quick"].settings, "beta": 0.5}
    values |= {step.method: "toy", step.effort: "often", step.seed.component: 7}
    assert step.settings(values) == {"passes": 9, "rank": 3, "seed": 7}
    values |= {step.controls["toy"]["passes"].component: "4", step.controls["toy"]["centred"].component: False}
    assert step.settings(values) == {"passes": 4, "rank": 3, "centred": False, "seed": 7}


def test_a_method_brings_its_own_description_efforts_and_groups() -> None:
    with gr.Blocks():
        step = SettingsStep(4, {"bipo": BIPO, "toy": toy_method(presets=TOY_PRESETS), "plain": toy_method("plain")})
    chosen = step.choose_method("toy")
    assert "Finds nothing." in chosen[step.description]
    assert [name for _, name in chosen[step.effort]["choices"]] == ["once", "often"]
    assert chosen[step.effort]["visible"] and chosen[step.effort]["value"] == "once"
    visible = {name: {chosen[panel]["visible"] for panel in panels} for name, panels in step.panels.items()}
    assert visible == {"bipo": {False}, "toy": {True}, "plain": {False}}
    assert not step.choose_method("plain")[step.effort]["visible"]  # nothing to choose
    assert set(chosen) <= set(step.method_outputs)


def test_methods_made_from_something_else_than_pairs_are_not_offered() -> None:
    with gr.Blocks():
        step = SettingsStep(4, {"bipo": BIPO, "dictionary": toy_method("dictionary", inputs=("dictionary",))})
    assert list(step.methods) == ["bipo"]


@pytest.mark.parametrize(
    ("name", "kind", "shown"),
    [
        ("rank", gr.Slider, 2),
        ("threshold", gr.Number, 1.5),
        ("centred", gr.Checkbox, True),
        ("solver", gr.Dropdown, "full"),
        ("shrinkage", gr.Textbox, ""),  # None: the run fills it in
        ("passes", gr.Textbox, ""),  # the effort sets it
    ],
)
def test_a_control_suits_its_setting(name: str, kind: type, shown: object) -> None:
    spec = next(spec for spec in ToyConfig.specs() if spec.name == name)
    control = make_control(spec, "toy", TOY_PRESETS.values())
    assert type(control.component) is kind and control.untouched == shown
    assert spec.label in control.component.label and control.component.info == spec.help
    assert control.changed_value({control.component: shown}) is None
    assert control.component.elem_id == f"setting-toy-{name}"


def test_times_stand_beside_the_efforts() -> None:
    (quick, _), (standard, _), _ = effort_choices(BIPO, {"quick": "about 50 s"})
    assert quick.startswith("Quick: about 50 s\n") and standard.startswith("Standard\n")
