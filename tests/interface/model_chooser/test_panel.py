"""The model line and who may open its chooser."""

import gradio as gr
import pytest

from steering.interface.app import build
from steering.interface.app_state import AppState
from steering.interface.model_chooser import panel as module
from steering.interface.model_chooser.panel import ModelChooser, allowed, described, model_line
from steering.models.catalog import ModelInfo
from steering.vectors.library import Library
from tests.tiny_models import tiny_model


@pytest.fixture
def library(tmp_path):
    return Library(own=tmp_path / "shelf", shipped=tmp_path / "none")


@pytest.mark.parametrize(
    ("environment", "share", "may"),
    [
        ({}, False, True),
        ({}, True, False),
        ({"SYSTEM": "spaces"}, False, False),
        ({"GRADIO_SERVER_NAME": "0.0.0.0"}, False, False),
        ({"GRADIO_SERVER_NAME": "127.0.0.1"}, False, True),
        ({"STEERING_MODEL_CHOOSER": "off"}, False, False),
        ({"STEERING_MODEL_CHOOSER": "on", "SYSTEM": "spaces"}, True, True),
        ({"STEERING_MODEL_CHOOSER": "yes please"}, True, False),
    ],
)
def test_only_a_page_that_nobody_else_reaches_takes_paths(environment, share, may, monkeypatch):
    for name in ("SYSTEM", "GRADIO_SERVER_NAME", "STEERING_MODEL_CHOOSER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert allowed(share=share) == may


def test_without_the_chooser_no_event_takes_a_path(library):
    with_it = build(AppState(tiny_model(), library), can_choose=True)
    without = build(AppState(tiny_model(), library))
    handlers = {getattr(fn.fn, "__name__", "") for fn in without.fns.values()}
    assert not handlers & {"describe", "change_model"}
    assert {"describe", "change_model"} <= {getattr(fn.fn, "__name__", "") for fn in with_it.fns.values()}
    ids = [getattr(block, "elem_id", "") for block in without.blocks.values()]
    assert "model-line" in ids and "model-source" not in ids


def test_the_model_line_names_a_base_model(library):
    app = AppState(tiny_model(chat=False), library)
    app.cpu_threads = 1
    assert model_line(app, "plain decoding") == "tiny-llama · base model · CPU, 1 thread · plain decoding"


def test_what_is_said_of_a_model_before_it_is_loaded():
    text = described(ModelInfo("gguf", "<b>x", "x.gguf", 98_362_432, 2_100_000_000, 900_000_000, False, "", "Once."))
    assert (
        "98 MB" in text and "2.1 GB" in text and "unloaded first" in text and "Once." in text and "&lt;b&gt;x" in text
    )
    bad = described(ModelInfo("folder", "x", "x", None, None, 1, True, "x: there is no such folder.", ""))
    assert 'role="alert"' in bad and "unloaded first" not in bad


def test_a_failure_is_a_sentence_and_the_buttons_come_back(library, monkeypatch):
    app = AppState(tiny_model(), library)
    monkeypatch.setattr(module, "recent_models", list)
    with gr.Blocks():
        chooser = ModelChooser(app, can_choose=True)
    updates = list(chooser.change_model(" "))
    assert updates[0][chooser.cancel]["visible"] and not updates[0][chooser.load]["visible"]
    assert "Write a Hub id" in updates[-1][chooser.status] and updates[-1][chooser.load]["visible"]
    assert "Write a Hub id" in chooser.describe("")
