"""What the tabs share: runs in the browser's order, vectors by slug, the way that decodes."""

import pytest

from steering.interface.app_state import AppState, Runs
from steering.vectors.library import Library
from tests.generation.test_stream import vector
from tests.tiny_models import tiny_model


class CountingLibrary(Library):
    """Counts how often the folders are listed."""

    listed = 0

    def entries(self):
        self.listed += 1
        return super().entries()


@pytest.fixture
def app(tmp_path):
    library = CountingLibrary(own=tmp_path / "shelf", shipped=tmp_path / "none")
    library.add(vector(1, name="one"))
    return AppState(tiny_model(), library)


def test_a_slider_step_does_not_list_the_shelf(app):
    first = app.entry("one")
    listed = app.library.listed
    assert all(app.entry("one").vector is first.vector for _ in range(5))
    assert app.library.listed == listed


def test_a_vector_that_changed_or_went_is_noticed(app):
    first = app.entry("one")
    app.library.delete("one")
    assert app.entry("one") is None
    app.library.add(vector(1, seed=5, name="one"))
    assert app.entry("one").vector is not first.vector
    assert app.entry("../one") is None


def test_a_newer_run_ends_the_one_before_and_stop_ends_the_latest():
    runs = Runs()
    first, second = runs.begin(None), runs.begin(None)
    assert first.superseded() and not second.superseded() and not second.over()
    runs.stop(None)
    assert second.stopped() and second.over()
    assert not runs.begin(None).over()


def test_the_page_says_which_way_decodes(app):
    assert app.decoding_summary() in {
        "written-out Llama step, float16",
        "transformers' forward, float16 weights",
        "transformers' forward",
    }


def test_a_decoder_that_cannot_be_made_is_logged(app, caplog):
    class Broken(AppState):
        def precision(self):
            raise RuntimeError("no such operator")

    assert Broken(app.model, app.library).decoding_summary() == ""
    assert "no such operator" in caplog.text
