"""Experiments on the page: one runs through, and what cannot be is told in a sentence."""

from types import SimpleNamespace

import pytest

from steering.experiments import experiments
from steering.interface.app_state import AppState
from steering.interface.evaluate.experiments import about, run_experiment
from steering.vectors.library import Library


@pytest.fixture
def app(tiny, tmp_path) -> AppState:
    return AppState(tiny, Library(own=tmp_path / "shelf"))


def test_an_experiment_runs_to_its_verdict(app):
    updates = list(run_experiment(app, "utility", ["poetic"], 2, None))
    shown = {key: value for update in updates for key, value in update.items()}
    assert "Done in" in shown["status"] and "stay within 1.2 points" in shown["verdict"]
    assert "<td>poetic</td>" in shown["table"] and not shown["chart"]["visible"]
    assert shown["report"]["value"].endswith("report.html")
    assert not app.training.is_busy


def test_of_two_tabs_the_second_waits_for_its_turn(app):
    tabs = [SimpleNamespace(session_hash=name, headers={}, cookies={}) for name in ("first", "second")]
    first = run_experiment(app, "utility", ["poetic"], 2, tabs[0])
    next(first)
    second = run_experiment(app, "utility", ["poetic"], 2, tabs[1])
    assert "Yours starts by itself" in next(second)["status"]
    *_, of_first = first
    *_, of_second = second
    assert of_first["report"] and of_second["report"] and not app.training.is_busy


@pytest.mark.parametrize(
    ("name", "behaviors", "says"),
    [
        ("magic", [], "There is no experiment"),
        ("utility", ["magic"], "There is no behavior"),
        ("in-character", ["formal"], "There are no questions for"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(app, name, behaviors, says):
    *_, last = run_experiment(app, name, behaviors, 2, None)
    assert "problem" in last["status"] and says in last["status"]
    assert not app.training.is_busy


def test_every_experiment_says_what_it_asks_and_what_the_paper_found():
    for experiment in experiments().values():
        text = about(experiment)
        assert "In the paper:" in text and "minutes on two CPU cores" in text and experiment.question[:20] in text
