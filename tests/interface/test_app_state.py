"""What the tabs share: runs in the browser's order, the weights that decode."""

from dataclasses import replace

import pytest

from steering.interface.app_state import AppState, Runs
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

    assert Reported(app.model, app.library).decoding_summary() == summary


def test_a_decoder_that_cannot_be_made_is_logged(app, caplog):
    class Broken(AppState):
        def precision(self):
            raise RuntimeError("no such operator")

    assert Broken(app.model, app.library).decoding_summary() == ""
    assert "no such operator" in caplog.text
