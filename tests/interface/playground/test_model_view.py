"""A Playground whose model is another one: own vectors first, drafts for a model without any, base models."""

import time
from dataclasses import replace

import gradio as gr
import pytest

from steering.errors import SteeringError
from steering.interface.app_state import AppState
from steering.interface.playground import model_view
from steering.interface.playground.controls import Controls
from steering.interface.playground.examples import first_example, resolved
from steering.interface.playground.handlers import Handlers
from steering.interface.playground.layout import lay_out
from steering.interface.playground.model_view import show_model, start_starters, stop_starters, tick
from steering.interface.playground.next_token import _answer
from steering.interface.playground.sliders import SliderPanel, fitting, made_for, panel_value
from steering.training.starter_drafts import METADATA_KEY
from steering.vectors.library import Library
from tests.generation.test_stream import vector
from tests.interface.playground.test_handlers import Visitor, columns_of, write
from tests.tiny_models import tiny_model


@pytest.fixture
def library(tmp_path):
    return Library(own=tmp_path / "shelf", shipped=tmp_path / "none")


@pytest.fixture
def handlers(library):
    app = AppState(tiny_model(), library)
    with gr.Blocks():
        return Handlers(app, lay_out(app))


def starter(app, key, stage="trained"):
    made = vector(1, name=f"{key} ({app.model.name})", model_id=app.model.source)
    made.model_fingerprint = app.model.fingerprint
    made.extra = {METADATA_KEY: {"behavior": key, "stage": stage}}
    return app.visitors.owner.add(made)


def test_vectors_of_the_model_come_first_and_those_of_others_say_whose_they_are(handlers):
    app = handlers.app
    app.visitors.owner.add(replace(vector(1, name="a guest"), model_id="Other", model_fingerprint="f" * 16))
    app.visitors.owner.add(vector(1, name="unknown"))
    app.visitors.owner.add(replace(vector(1, name="wide", hidden_size=64), model_id="Wide"))
    starter(app, "formal")
    value = panel_value(app.visit(), SliderPanel({"a-guest": 1.0}))
    sliders = [(s["name"], s["made_for"], s["multiplier"]) for s in value["sliders"]]
    assert sliders == [("formal", "", 0.0), ("unknown", "", 0.0), ("a guest", "Other", 1.0)]
    assert value["others"] == [{"name": "wide", "made_for": "Wide"}]
    assert value["generation"] == 0 and value["model"] == "tiny-llama"


def test_the_same_model_in_another_number_type_is_the_same(tiny):
    other_type = vector(1, model_id=tiny.source, model_fingerprint="f" * 16)
    assert made_for(other_type, tiny) and not made_for(replace(other_type, model_id="Other"), tiny)


def test_examples_find_the_vectors_made_for_the_model(handlers):
    assert not resolved(handlers.app.visit()) and not first_example(handlers.app.visit()).multipliers
    slug = starter(handlers.app, "formal").slug
    (example,) = resolved(handlers.app.visit()).values()
    assert example.multipliers == {slug: 1.5} and first_example(handlers.app.visit()) == example
    place = next(iter(resolved(handlers.app.visit())))
    updates = handlers.choose_chip(place, Visitor(), panel_value(handlers.app.visit(), SliderPanel()))
    assert updates[handlers.layout.controls["prompt"]] == example.prompt
    assert list(handlers.choose_chip(99, Visitor(), None)) == [handlers.layout.columns]


def test_a_base_model_gets_texts_to_continue(library):
    app = AppState(tiny_model(chat=False), library)
    with gr.Blocks():
        layout = lay_out(app)
    assert first_example(app.visit()).prompt.endswith("I")
    starter(app, "power-seeking")
    assert all(example.continued for example in resolved(app.visit()).values()) and resolved(app.visit())
    updates = show_model(app.visit(), layout)
    assert "continues your text" in updates[layout.model_note]
    assert updates[layout.controls["prompt"]]["label"] == "Text to continue"
    assert updates[layout.controls["system"]]["info"] == model_view.SYSTEM_NOT_USED


def test_a_page_of_the_old_model_is_told_and_set_anew(handlers):
    app, layout = handlers.app, handlers.layout
    old = panel_value(app.visit(), SliderPanel())
    app.use_model(tiny_model("qwen2", chat=False))
    updates = write(handlers, sliders=old)
    assert updates[-1][layout.generation] == 1 and "changed" in columns_of(handlers, updates)["note"]
    with pytest.raises(SteeringError, match="changed to tiny-qwen2"):
        _answer(app.visit(), asked(generation=0))
    assert _answer(app.visit(), asked(generation=1))["forecast"]
    kept = handlers.model_changed(Visitor(), old, "My own words")
    assert "value" not in kept[layout.controls["prompt"]] and kept[layout.sliders]["generation"] == 1
    example = handlers.model_changed(Visitor(), old, "What should I do this weekend?")
    assert example[layout.controls["prompt"]]["value"] == first_example(app.visit()).prompt
    assert handlers.model_changed(Visitor(), kept[layout.sliders], "") == {layout.columns: gr.skip()}


def asked(**more):
    return {"prompt": "Hello", "system": "", "multipliers": {}, **more}


def test_answers_under_way_end_in_a_sentence(handlers):
    handlers.app.visitors.owner.add(vector(1, name="one"))
    run = handlers.write(
        Visitor(),
        {"fresh": True, "sent_at": 1.0},
        panel_value(handlers.app.visit(), SliderPanel({"one": 1.0})),
        None,
        *_controls(),
    )
    next(run)
    handlers.app.use_model(tiny_model("qwen2"))
    last = list(run)[-1]
    assert "changed to tiny-qwen2; ask again" in last[handlers.layout.columns]["problem"]
    assert last[handlers.layout.generation] == 1


def _controls():
    return vars(Controls("Hello", tokens=400, strip=False)).values()


def test_a_model_without_vectors_is_offered_them_and_gets_sliders_while_they_are_made(handlers):
    app, layout = handlers.app, handlers.layout
    offered = show_model(app.visit(), layout)
    assert offered[layout.make_starters]["visible"] and "Make the shipped" in offered[layout.make_starters]["value"]
    assert "No vector" in offered[layout.starters_text]
    begun = start_starters(app.visit(), layout)
    assert not begun[layout.make_starters]["visible"] and begun[layout.stop_starters]["visible"]
    sliders, deadline = panel_value(app.visit(), SliderPanel()), time.monotonic() + 60
    while not fitting(app.visit()) and time.monotonic() < deadline:
        time.sleep(0.05)
    updates = tick(app.visit(), layout, sliders, 0)
    assert updates[layout.sliders]["sliders"] and updates[layout.starters_seen] >= 1
    assert not stop_starters(app.visit(), layout)[layout.stop_starters]["visible"]
    app.starters.stop(wait=True)
    assert not app.starters.is_running and show_model(app.visit(), layout)[layout.make_starters]["visible"]
    assert layout.sliders not in tick(app.visit(), layout, sliders, app.starters.saved)


def test_drafts_are_offered_to_be_trained(handlers):
    starter(handlers.app, "formal", stage="draft")
    updates = show_model(handlers.app.visit(), handlers.layout)
    assert updates[handlers.layout.make_starters]["value"] == "Train the draft"
    handlers.app.visitors.owner.delete("formal-tiny-llama")
    starter(handlers.app, "formal")
    assert not show_model(handlers.app.visit(), handlers.layout)[handlers.layout.starters]["visible"]


def test_a_job_that_breaks_off_says_why(handlers, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("no such operator")
        yield

    monkeypatch.setattr("steering.interface.starter_job.make_starters", broken)
    start_starters(handlers.app.visit(), handlers.layout)
    handlers.app.starters.stop(wait=True)
    assert "could not be made" in show_model(handlers.app.visit(), handlers.layout)[handlers.layout.starters_text]
