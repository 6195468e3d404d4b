"""Another model in the place of the page's: checked before, and the old one kept whatever goes wrong."""

import threading

import pytest

from steering.errors import SteeringError
from steering.interface.app_state import AppState
from steering.interface.model_chooser import loader as module
from steering.interface.model_chooser.loader import ModelLoader, cleaned, memory_of, size
from steering.models.catalog import ModelInfo
from steering.vectors.library import Library
from tests.tiny_models import tiny_model

ENOUGH = 10**12


def info(problem="", memory=10, free=ENOUGH):
    return ModelInfo("folder", "Next", "next", 10, memory, free, memory <= free, problem, "")


@pytest.fixture
def loading(monkeypatch, tmp_path):
    """A loader whose models are tiny, and what it asked for."""
    app = AppState(tiny_model(), Library(own=tmp_path / "shelf", shipped=tmp_path / "none"), source="old")
    asked = {"loaded": [], "remembered": [], "info": info()}

    def load(source, *, on_progress=lambda text: None, should_stop=lambda: False):
        asked["loaded"].append(source)
        on_progress("Reading the weights ...")
        return tiny_model("qwen2" if source == "next" else "llama")

    monkeypatch.setattr(module, "describe_model", lambda source: asked["info"])
    monkeypatch.setattr(module, "load_model", load)
    monkeypatch.setattr(module, "remember_model", asked["remembered"].append)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "TRAINING_SECONDS", 0.05)
    return ModelLoader(app), asked


def test_a_model_is_loaded_put_in_use_and_remembered(loading):
    loader, asked = loading
    said = list(loader.load(" 'next' "))
    assert loader.app.model.name == "tiny-qwen2" and loader.app.in_use.source == "next"
    assert asked["remembered"] == ["next"] and said[-1] == "tiny-qwen2 is in use."
    assert any("Reading the weights" in text for text in said)
    assert loader.app.training.acquire(blocking=False)


def test_a_problem_is_said_before_anything_is_loaded(loading):
    loader, asked = loading
    asked["info"] = info(problem="next: there is no such file; check the path.")
    with pytest.raises(SteeringError, match="no such file"):
        list(loader.load("next"))
    assert not asked["loaded"] and loader.app.generation == 0


def test_too_large_for_the_memory_even_alone(loading):
    loader, asked = loading
    asked["info"] = info(memory=9_000_000_000, free=1_000_000_000)
    with pytest.raises(SteeringError, match=r"needs 9\.0 GB of memory and 1\.0 GB are free"):
        list(loader.load("next"))
    assert loader.app.model.name == "tiny-llama"


def test_the_old_one_goes_first_where_both_do_not_fit_and_comes_back_if_that_fails(loading, monkeypatch):
    loader, asked = loading
    held = memory_of(loader.app.model)
    asked["info"] = info(memory=held, free=held // 2)
    said = list(loader.load("next"))
    assert any("tiny-llama is unloaded first" in text for text in said) and loader.app.model.name == "tiny-qwen2"
    real = module.load_model

    def failing(source, **options):
        if source == "broken":
            raise SteeringError("broken: it is damaged.")
        return real(source, **options)

    monkeypatch.setattr(module, "load_model", failing)
    with pytest.raises(SteeringError, match="damaged"):
        list(loader.load("broken"))
    assert asked["loaded"][-1] == "next" and loader.app.model.name == "tiny-qwen2"


def test_while_a_training_runs_the_model_stays(loading):
    loader, asked = loading
    with loader.app.training, pytest.raises(SteeringError, match="A training runs"):
        list(loader.load("next"))
    assert not asked["loaded"]
    assert list(loader.load("next"))[-1] == "tiny-qwen2 is in use."


def test_cancelled_the_old_one_stays(loading, monkeypatch):
    loader, asked = loading
    begun = threading.Event()

    def slow(source, *, on_progress, should_stop):
        begun.set()
        while not should_stop():
            pass
        raise SteeringError("Loading was cancelled.")

    monkeypatch.setattr(module, "load_model", slow)
    said = []
    with pytest.raises(SteeringError, match="the model was not changed"):
        for text in loader.load("next"):
            said.append(text)
            if begun.is_set():
                loader.cancel()
    assert loader.app.generation == 0 and loader.app.training.acquire(blocking=False)


def test_one_at_a_time(loading):
    loader, _ = loading
    first = loader.load("next")
    next(first)
    with pytest.raises(SteeringError, match="Another model is being loaded"):
        next(loader.load("next"))
    first.close()
    assert list(loader.load("next"))


def test_an_unexpected_failure_is_a_sentence(loading, monkeypatch):
    loader, _ = loading

    def broken(source, **options):
        raise RuntimeError("CUDA says no")

    monkeypatch.setattr(module, "load_model", broken)
    with pytest.raises(SteeringError, match="could not be loaded; the server's log"):
        list(loader.load("next"))
    assert loader.app.model.name == "tiny-llama"


def test_words_of_a_person():
    assert cleaned(' "a/b" ') == "a/b" and not cleaned("~/models").startswith("~")
    with pytest.raises(SteeringError, match="Write a Hub id"):
        cleaned("  ")
    assert size(98_362_432) == "98 MB" and size(2_100_000_000) == "2.1 GB" and size(5) == "1 MB"
