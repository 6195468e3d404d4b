"""What the tabs share: runs in the browser's order, the weights that decode."""

from dataclasses import replace

import pytest

from steering.errors import SteeringError
from steering.interface.app_state import AppState
from steering.interface.model_in_use import ModelChanged
from steering.interface.runs import Runs
from steering.vectors.library import Library
from tests.generation.test_stream import vector
from tests.tiny_models import tiny_model


@pytest.fixture
def app(tmp_path):
    library = Library(own=tmp_path / "shelf", shipped=tmp_path / "none")
    library.add(vector(1, name="one"))
    return AppState(tiny_model(), library)


def test_a_newer_run_ends_the_one_before_and_stop_ends_the_latest():
    runs = Runs()
    first, second = runs.begin(None), runs.begin(None)
    assert first.superseded() and not second.superseded() and not second.over()
    runs.stop(None)
    assert second.stopped() and second.over()
    assert not runs.begin(None).over()


@pytest.mark.parametrize(
    ("way", "summary"),
    [
        ("written-out Llama step, float16", "fast decoding, float16 weights"),
        ("transformers' forward, float16 weights", "plain decoding, float16 weights"),
        ("transformers' forward", "plain decoding, full-precision weights"),
    ],
)
def test_the_page_says_which_way_decodes(way, summary, app):
    class Reported(AppState):
        def precision(self):
            return replace(super().precision(), way=way)

    assert Reported(app.model, app.visitors.owner).decoding_summary() == summary


def test_a_decoder_that_cannot_be_made_is_logged(app, caplog):
    class Broken(AppState):
        def precision(self):
            raise RuntimeError("no such operator")

    assert Broken(app.model, app.visitors.owner).decoding_summary() == ""
    assert "no such operator" in caplog.text


def test_a_request_under_way_ends_in_a_sentence_when_the_model_is_changed(app):
    stream = app.decode_server("full").stream(
        "Hello", max_new_tokens=400, should_stop=app.in_use.until_changed(lambda: False)
    )
    assert next(stream) is not None
    app.use_model(tiny_model("qwen2"))
    with pytest.raises(ModelChanged, match="changed to tiny-qwen2; ask again"):
        list(stream)


def test_what_is_made_for_a_model_is_made_anew_for_the_next_one(app):
    old, model = app.decode_server("full"), tiny_model("qwen2")
    app.use_model(model, "its/source")
    assert app.generation == 1 and app.model is model and app.in_use.source == "its/source"
    assert app.decode_server("full") is not old and app.decode_server("full").model is model


def test_between_two_models_there_is_a_sentence_and_the_old_one_can_leave_memory(app):
    gone = app.release_model("Next")
    with pytest.raises(SteeringError, match="Another model is being loaded"):
        _ = app.model
    assert gone() is None  # nothing of the page holds it
    app.use_model(tiny_model("qwen2"))
    assert app.model.name == "tiny-qwen2" and app.generation == 1
