"""The Vectors tab without a browser: bring, look, delete, undo."""

import gradio as gr
import pytest
import torch

from steering.interface.app_state import AppState
from steering.interface.playground.layout import lay_out
from steering.interface.playground.sliders import SliderPanel, panel_value
from steering.interface.playground.tab import Playground
from steering.interface.vectors import tab
from steering.interface.vectors.details import details
from steering.interface.vectors.handlers import Handlers, Layout
from steering.vectors.library import Library
from steering.vectors.vector import SteeringVector
from tests.generation.test_stream import vector
from tests.tiny_models import tiny_model


@pytest.fixture
def app(tmp_path):
    app = AppState(tiny_model(), Library(own=tmp_path / "shelf", shipped=tmp_path / "none"))
    app.visitors.owner.add(vector(1, name="one"))
    app.visitors.owner.add(vector(2, name="two"))
    return app


@pytest.fixture
def handlers(app):
    with gr.Blocks():
        parts = (gr.HTML(), gr.HTML(), gr.HTML(), gr.DownloadButton(), gr.Button(), gr.State(), gr.HTML())
    return Handlers(app, Layout(*parts))


def sliders(handlers):
    return panel_value(handlers.app.visit(), SliderPanel({"one": 1.5}))


def slugs(handlers, updates):
    """Those on the shelf, and those that have a slider."""
    shelf, panel = updates[handlers.layout.shelf], updates[handlers.layout.sliders]
    return [item["slug"] for item in shelf["items"]], [slider["slug"] for slider in panel["sliders"]]


def test_a_file_is_brought_shown_and_has_a_slider(handlers, tmp_path):
    path = vector(1, name="three").save(tmp_path / "three.safetensors")
    updates = handlers.import_file(None, str(path), "", "my own", sliders(handlers))
    assert slugs(handlers, updates) == (["my-own", "one", "two"], ["my-own", "one", "two"])
    layout = handlers.layout
    assert "my own is on the shelf" in updates[layout.message]
    assert updates[layout.shelf]["selected"] == "my-own" and "<h2>my own</h2>" in updates[layout.details]
    assert updates[layout.download].endswith("my-own.safetensors")
    moved = {slider["slug"]: slider["multiplier"] for slider in updates[layout.sliders]["sliders"]}
    assert moved == {"my-own": 0.0, "one": 1.5, "two": 0.0}


def test_a_file_for_another_model_is_brought_and_has_none(handlers, tmp_path):
    path = SteeringVector({1: torch.ones(7)}, name="narrow").save(tmp_path / "narrow.safetensors")
    updates = handlers.import_file(None, str(path), "", "", sliders(handlers))
    assert slugs(handlers, updates) == (["one", "two", "narrow"], ["one", "two"])
    assert "hidden size 7" in updates[handlers.layout.message]


@pytest.mark.parametrize(
    ("path", "layer", "says"),
    [
        (None, "", "Drop a vector file first"),
        ("notes.txt", "", "cannot read this kind of file"),
        ("authors.pt", "x", "not a number"),
    ],
)
def test_what_cannot_be_brought_is_answered_and_changes_nothing(handlers, path, layer, says):
    updates = handlers.import_file(None, path, layer, "", sliders(handlers))
    assert list(updates) == [handlers.layout.message] and says in updates[handlers.layout.message]


def test_deleting_and_undoing_it(handlers):
    layout = handlers.layout
    deleted = handlers.delete(None, {"selected": "two"}, sliders(handlers))
    assert slugs(handlers, deleted) == (["one"], ["one"]) and "two was taken off" in deleted[layout.message]
    assert deleted[layout.undo]["visible"] and deleted[layout.shelf]["selected"] == "one"
    restored = handlers.undo_delete(None, deleted[layout.undo_token], sliders(handlers))
    assert slugs(handlers, restored) == (["one", "two"], ["one", "two"])
    assert restored[layout.undo_token] is None and not restored[layout.undo]["visible"]
    again = handlers.undo_delete(None, deleted[layout.undo_token], sliders(handlers))
    assert list(again) == [layout.message] and "nothing to restore" in again[layout.message]


@pytest.mark.parametrize("shelf", [None, {}, {"selected": "../one"}, {"selected": "nobody"}])
def test_what_is_not_on_the_shelf_cannot_be_deleted(handlers, shelf):
    updates = handlers.delete(None, shelf, sliders(handlers))
    assert list(updates) == [handlers.layout.message] and "no vector" in updates[handlers.layout.message]


def test_unsound_sliders_delete_nothing(handlers):
    assert list(handlers.delete(None, {"selected": "one"}, 3)) == [handlers.layout.message]
    assert [entry.slug for entry in handlers.app.visitors.owner.entries()] == ["one", "two"]


def test_where_a_vector_acts_is_said_by_its_token_scope(app):
    assert "layer 1, every position" in details(app.visit(), "one")
    app.visitors.owner.add(vector(1, name="spoken", token_scope="answer"))
    assert "layer 1, answer tokens only" in details(app.visit(), "spoken")


def test_looking_at_a_vector_says_which_click_it_answers(handlers):
    updates = handlers.show(None, {"selected": "two", "clicks": 3})
    assert "<h2>two</h2>" in updates[handlers.layout.details]
    assert updates[handlers.layout.download].endswith("two.safetensors")
    assert updates[handlers.layout.shelf]["selected"] == "two" and updates[handlers.layout.shelf]["clicks"] == 3
    assert "clicks" not in handlers.show(None, {"selected": "two"})[handlers.layout.shelf]
    assert (
        "clicks"
        not in handlers.delete(None, {"selected": "two", "clicks": 3}, sliders(handlers))[handlers.layout.shelf]
    )


def test_an_unknown_vector_shows_the_first_and_an_empty_shelf_says_so(handlers, tmp_path):
    assert "<h2>one</h2>" in handlers.show(None, {"selected": "nobody"})[handlers.layout.details]
    empty = AppState(handlers.app.model, Library(own=tmp_path / "empty", shipped=tmp_path / "none"))
    updates = Handlers(empty, handlers.layout).show(None, None)
    assert "The shelf is empty" in updates[handlers.layout.details]
    assert updates[handlers.layout.shelf] == {"items": [], "selected": ""}
    assert updates[handlers.layout.download] is None


def test_the_tab_is_built_for_an_empty_shelf(handlers, tmp_path):
    empty = AppState(handlers.app.model, Library(own=tmp_path / "empty", shipped=tmp_path / "none"))
    with gr.Blocks() as page:
        layout = lay_out(empty)
        tab.build(empty, page.load, Playground(layout.sliders, layout.controls["prompt"], layout.generation))
    assert {"shelf", "vector-details", "vector-file"} <= {block.elem_id for block in page.blocks.values()}
