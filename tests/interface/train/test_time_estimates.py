"""The time of each effort: measured once for a layer, never beside a training."""

import gradio as gr
import pytest

from steering.interface.app_state import AppState
from steering.interface.train import time_estimates
from steering.interface.train.settings_step import Choices
from steering.interface.train.time_estimates import Estimates
from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs
from steering.vectors.library import Library


@pytest.fixture
def told(tiny: LanguageModel, tmp_path, monkeypatch: pytest.MonkeyPatch):
    """Estimates on the tiny model, what was given, and the layers that were measured."""
    measured = []
    real = time_estimates.measure_speed
    monkeypatch.setattr(time_estimates, "measure_speed", lambda *args: measured.append(args[2]) or real(*args))
    with gr.Blocks():
        choices = Choices(tiny.num_layers)
    return Estimates(AppState(tiny, Library(own=tmp_path)), choices), {c: c.value for c in choices.inputs}, measured


def words_of(update: dict) -> list[str]:
    return [label.partition("\n")[0] for label, _ in update["choices"]]


def test_each_layer_is_measured_once(told, pairs: Pairs) -> None:
    desk, given, measured = told
    assert all("about" in text for text in words_of(desk.tell(pairs, given)))
    given[desk.choices.advanced["batch_size"].control] = 2
    desk.tell(pairs, given)
    assert measured == [2]
    given[desk.choices.several] = "3, 1"
    desk.tell(pairs, given)
    assert measured == [2, 1]


def test_never_while_a_training_runs(told, pairs: Pairs) -> None:
    desk, given, measured = told
    with desk.app.training:
        assert words_of(desk.tell(pairs, given)) == ["Quick", "Standard", "As in the paper"]
    assert measured == []
    desk.tell(pairs, given)
    with desk.app.training:  # what is known can be told
        assert "about" in words_of(desk.tell(pairs, given))[0]


@pytest.mark.parametrize("several", ["up", "99"])
def test_choices_that_make_no_sense_have_no_time(told, pairs: Pairs, several: str) -> None:
    desk, given, _ = told
    given[desk.choices.several] = several
    assert (
        words_of(desk.tell(pairs, given))
        == words_of(desk.tell(None, given))
        == ["Quick", "Standard", "As in the paper"]
    )
