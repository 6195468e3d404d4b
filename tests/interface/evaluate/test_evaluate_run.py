"""The Evaluate tab's run: what it refuses, and what is kept with a vector."""

import pytest
import torch

from steering.errors import SteeringError
from steering.interface.app_state import AppState
from steering.interface.evaluate import view
from steering.interface.evaluate.earlier import finished, folder_of, opened
from steering.interface.evaluate.run import RunStep, Wish, wish_of
from steering.pairs.dataset import Pairs, PreferencePair
from steering.vectors.library import Library
from steering.vectors.vector import SteeringVector
from tests.tiny_models import HIDDEN

PAIRS = Pairs.of(PreferencePair(f"Say {n}.", f"Yes {n}", f"No, {'no, ' * 30}{n}") for n in range(12))


@pytest.fixture
def step(tiny, tmp_path) -> RunStep:
    library = Library(own=tmp_path / "shelf")
    direction = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(0))
    library.add(SteeringVector({1: direction}, name="mine", behavior="short"))
    return RunStep(AppState(tiny, library))


def wish(**changes) -> Wish:
    wanted = {
        "slug": "mine",
        "pairs": PAIRS,
        "prompt_set": "own",
        "own_prompts": "Who are you?\nWhat now?",
        "count": 4,
        "tokens": 6,
        "random_directions": 2,
        "judge": "length",
        "baselines": ("random",),
    }
    return Wish(**wanted | changes)


def test_a_run_shows_all_of_it_and_the_range_is_kept_with_the_vector(step):
    *_, last = step.evaluate(wish(), None)
    assert "Done in" in last["status"] and last["keep"]["interactive"] and len(last["answers"]) == 26
    said, changed = step.keep(None)
    assert changed and "Kept: its slider goes from" in said
    kept = step.app.visit().library.get("mine")
    assert kept.metrics["judge"]["name"] == "length" and len(kept.metrics["curve"]) == 13


def test_nothing_is_kept_before_something_was_measured(step):
    said, changed = step.keep(None)
    assert not changed and "Evaluate a vector first" in said


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"slug": ""}, "Choose a vector first"),
        ({"slug": "gone"}, "gone"),
        ({"own_prompts": "one"}, "Write two prompts or more"),
        ({"own_prompts": "Who?\n" + "very long " * 5_000}, "has 49,999 characters; 20,000 are the most here"),
        ({"own_prompts": "Who?\n" + "very long " * 1_000}, "prompt is .* tokens long .* reads at most 512"),
        ({"judge": "gpt"}, "no judge"),
        ({"judge": "offline", "pairs": PAIRS[:4]}, "4 are too few"),
        ({"judge": "endpoint"}, "needs an address"),
        ({"tokens": 5000}, "Answers of 5000 tokens"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(step, changes, says):
    import re

    *_, last = step.evaluate(wish(**changes), None)
    assert "problem" in last["status"] and re.search(says, last["status"])


def test_the_machine_is_free_again_after_a_failure(step):
    list(step.evaluate(wish(judge="gpt"), None))
    assert not step.app.training.is_busy


FIELDS = {
    "vector": "mine",
    "prompt_set": "pairs",
    "own_prompts": None,
    "count": 4.0,
    "tokens": 8.0,
    "random_directions": 0.0,
    "judge": "endpoint",
    "baselines": ["random"],
}


def test_the_address_of_a_judge_is_taken_where_the_page_has_a_field_for_it():
    wanted = wish_of({**FIELDS, "url": " http://localhost:1/v1 ", "endpoint_model": "m", "rubric": "axbench"}, PAIRS)
    assert wanted.judge_options == {"url": "http://localhost:1/v1", "model": "m", "rubric": "axbench"}
    assert wish_of(FIELDS, PAIRS).judge_options == {}, "a public page has no such field"
    assert wish_of({**FIELDS, "judge": "offline", "url": "http://localhost:1/v1"}, PAIRS).judge_options == {}


def test_curves_are_drawn_together_over_kl_units():
    rows = [
        {
            "multiplier": m,
            **{s: {"mean": 0.5, "low": 0.4, "high": 0.6} for s in ("behavior", "fluency", "relevance", "kl")},
        }
        for m in (-2.0, 0.0, 2.0)
    ]
    curves = [view.Curve("a", rows, 2.0, None), view.Curve("b", rows, 4.0, None), view.Curve("c", rows, None, None)]
    by_name = {trace.name: sorted(set(trace.x)) for trace in view.comparison(curves, view.KL_UNITS).data if trace.name}
    assert by_name == {"a": [-1.0, 0.0, 1.0], "b": [-0.5, 0.0, 0.5]}, "what was never measured has no KL units"
    plain = {trace.name for trace in view.comparison(curves, view.MULTIPLIER).data if trace.name}
    assert plain == {"a", "b", "c"}


def test_a_stored_curve_is_read_with_and_without_intervals():
    direction = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(0))
    point = {"multiplier": 1.0, "behavior": 0.5, "behavior_low": 0.4, "behavior_high": 0.7, "fluency": 1.0, "kl": None}
    metrics = {"curve": [point], "useful_range": [-1.0, 1.0], "unit_multiplier": 2.0}
    curve = view.stored_curve(SteeringVector({1: direction}, name="mine", metrics=metrics))
    assert curve.rows[0]["behavior"] == {"mean": 0.5, "low": 0.4, "high": 0.7} and curve.unit == 2.0
    assert curve.rows[0]["fluency"] == {"mean": 1.0, "low": 1.0, "high": 1.0}, "files of earlier versions"
    assert curve.rows[0]["kl"]["mean"] is None
    for broken in ({}, {"curve": 3}, {"curve": [{"multiplier": "x"}]}, {"curve": [point]}):
        assert view.stored_curve(SteeringVector({1: direction}, name="mine", metrics=broken)) is None


def test_the_cost_is_that_of_the_settings():
    said = view.cost(20, 40, 20, ("system prompt", "few-shot", "mean difference", "random"))
    assert "780 answers: about 2 min" in said  # 13 multipliers and 6 baselines, 20 prompts; 40 directions, 10 prompts
    assert "52 answers" in view.cost(4, 8, 0, ())


def test_an_earlier_evaluation_opens_again_as_it_was(step):
    assert finished(step.app.visit()) == []
    shown: dict = {}
    for update in step.evaluate(wish(), None):
        shown |= update
    ((words, key),) = finished(step.app.visit())
    assert words.startswith("mine, 2 prompts, length, ")
    again = opened(step.app.visit(), key)
    assert again["table"] == shown["table"] and again["verdict"] == shown["verdict"]
    assert again["answers"] == shown["answers"] and again["curve"].rows == shown["curve"].rows
    assert again["report"]["value"].endswith("report.html")


def test_an_evaluation_that_is_not_there_or_damaged_is_told(step):
    list(step.evaluate(wish(), None))
    ((_, key),) = finished(step.app.visit())
    for wrong in ("nothing", "../evaluations", f"../{key}"):
        with pytest.raises(SteeringError, match="not there any more"):
            opened(step.app.visit(), wrong)
    (folder_of(step.app.visit(), key).path / "results.json").write_text('{"summary": 3, "judge": {}}')
    with pytest.raises(SteeringError, match="are damaged"):
        opened(step.app.visit(), key)
