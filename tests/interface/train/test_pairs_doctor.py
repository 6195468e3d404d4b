"""The doctor: findings as a list, and the setting of one in the controls of step 2."""

from typing import Any

import gradio as gr
import pytest

from steering.interface.app_state import AppState
from steering.interface.train import pairs_doctor
from steering.interface.train.pairs_doctor import PairsDoctor, findings_html
from steering.interface.train.settings_step import SettingsStep
from steering.pairs.dataset import Pairs, PreferencePair
from steering.pairs.lint import Finding

PAIRS = Pairs.of(PreferencePair(f"Question <{i}>?", "Yes", "No", line=10 + i) for i in range(20))
LENGTHS = Finding(
    kind="length", severity="note", text="The <chosen> are longer.", lines=(12, 15), settings={"length_weight": 1.0}
)
FEW = Finding(kind="few", severity="warning", text="There are few pairs.", lines=(), settings={})
MANY_ROWS = Finding(kind="begin", severity="note", text="They begin alike.", lines=tuple(range(10, 30)), settings={})
FOREIGN = Finding(kind="x", severity="note", text="A setting of no method.", lines=(), settings={"unheard_of": 3})


@pytest.fixture(scope="module")
def doctor() -> PairsDoctor:
    with gr.Blocks():
        return PairsDoctor()


def found(monkeypatch: pytest.MonkeyPatch, *findings: Finding) -> None:
    monkeypatch.setattr(pairs_doctor, "lint", lambda pairs, model: list(findings))


def test_findings_name_rows_of_the_table_and_show_their_pairs() -> None:
    shown = findings_html([LENGTHS, FEW], PAIRS)
    assert shown.index("There are few pairs.") < shown.index("The &lt;chosen&gt; are longer.")
    assert "rows 3, 6" in shown and "Question &lt;5&gt;?" in shown and "Question &lt;4&gt;?" not in shown


def test_many_rows_are_named_in_part() -> None:
    assert "rows 1, 2, 3, 4, 5, 6, 7, 8 and 12 more" in findings_html([MANY_ROWS], PAIRS)


def test_sound_pairs_are_said_to_be() -> None:
    assert "nothing found" in findings_html([], PAIRS)


def test_a_finding_with_a_setting_gets_a_button(
    monkeypatch: pytest.MonkeyPatch, doctor: PairsDoctor, app: AppState, settings_step: SettingsStep
) -> None:
    found(monkeypatch, FEW, LENGTHS, LENGTHS, FOREIGN)
    updates = doctor.examine(PAIRS, app, settings_step)
    assert set(updates) == set(doctor.outputs)
    visible = [updates[button] for button in doctor.buttons if updates[button]["visible"]]
    assert [each["value"] for each in visible] == ["Use “Weight on length” 1"]
    assert updates[doctor.offered] == ({"length_weight": 1.0},)


def test_without_pairs_nothing_is_shown(
    monkeypatch: pytest.MonkeyPatch, doctor: PairsDoctor, app: AppState, settings_step: SettingsStep
) -> None:
    updates = doctor.examine(None, app, settings_step)
    assert updates[doctor.findings] == "" and not updates[doctor.row]["visible"]


def test_advice_that_fails_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, doctor: PairsDoctor, app: AppState, settings_step: SettingsStep
) -> None:
    monkeypatch.setattr(pairs_doctor, "lint", lambda pairs, model: 1 / 0)
    assert doctor.examine(PAIRS, app, settings_step)[doctor.offered] == ()


def test_the_button_sets_the_control_of_the_chosen_method(
    doctor: PairsDoctor, settings_step: SettingsStep, values: dict[Any, Any]
) -> None:
    values[settings_step.method] = "bipo"
    updates = doctor.take(0, ({"length_weight": 1.0},), settings_step, values)
    control = settings_step.controls["bipo"]["length_weight"]
    assert "Weight on length is now 1" in updates[doctor.taken]
    values[control.component] = updates[control.component]
    assert settings_step.settings(values)["length_weight"] == 1


def test_a_method_without_the_setting_is_told(
    doctor: PairsDoctor, settings_step: SettingsStep, values: dict[Any, Any]
) -> None:
    values[settings_step.method] = "caa"
    updates = doctor.take(0, ({"length_weight": 1.0},), settings_step, values)
    assert set(updates) == {doctor.taken} and "has no setting" in updates[doctor.taken]
    assert set(doctor.take(2, (), settings_step, values)) == {doctor.taken}  # a click that came late
