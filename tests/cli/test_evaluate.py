"""`steering evaluate`."""

import sys

import pytest

from steering.evaluation import PreferenceResult, evaluate
from steering.models.loading import load_model
from steering.pairs.dataset import read_pairs
from steering.vectors.vector import SteeringVector
from tests.cli.command import RESULT_KEYS


def test_evaluate(steering, model_folder, pairs_file, vector_file):
    done = steering("evaluate", vector_file, pairs_file, "--model", model_folder, "--json")
    measured = evaluate(load_model(str(model_folder)), SteeringVector.load(vector_file), read_pairs(pairs_file))
    assert done.answer == {
        "vector": str(vector_file),
        "pairs": 10,
        "results": [result.as_dict() for result in measured],
    }
    assert list(done.answer) == ["vector", "pairs", "results"]
    middle = done.answer["results"][2]
    assert list(middle) == RESULT_KEYS and (middle["multiplier"], middle["preference_margin"]) == (0.0, 0.0)
    assert done.answer["results"][4]["preference_margin"] != 0.0


@pytest.mark.parametrize(
    ("arguments", "multipliers"),
    [
        (["--multipliers=-2,-1,0,1,2"], [-2, -1, 0, 1, 2]),
        (["--multipliers", "-0.5,1e1"], [-0.5, 10]),
        (["--multipliers", "-.5"], [-0.5]),
        (["--multipliers= 1 , 0 "], [1, 0]),
    ],
)
def test_multipliers(steering, model_folder, pairs_file, vector_file, arguments, multipliers):
    done = steering("evaluate", vector_file, pairs_file, "--model", model_folder, "--json", *arguments)
    assert [row["multiplier"] for row in done.answer["results"]] == multipliers


def test_what_json_has_no_number_for_is_null(steering, model_folder, pairs_file, vector_file, monkeypatch):
    intervals = {"pairs": 10, "accuracy_interval": (0.2, 0.8), "margin_interval": (float("nan"), float("inf"))}
    broken = [
        PreferenceResult(100.0, 0.5, float("nan"), **intervals),
        PreferenceResult(-100.0, 0.5, float("-inf"), **intervals),
    ]
    monkeypatch.setattr("steering.evaluation.evaluate", lambda *arguments, **options: broken)
    answer = steering("evaluate", vector_file, pairs_file, "--model", model_folder, "--json").answer
    assert [row["preference_margin"] for row in answer["results"]] == [None, None]


def test_progress_is_shown_to_people_only(steering, model_folder, pairs_file, vector_file, monkeypatch):
    command = ["evaluate", vector_file, pairs_file, "--model", model_folder, "--multipliers=1"]
    assert "measuring" not in steering(*command).err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert "measuring: 100%" in steering(*command).err


def test_no_more_rows_than_asked_for(steering, model_folder, pairs_file, vector_file):
    command = ["evaluate", vector_file, pairs_file, "--model", model_folder, "--multipliers=1", "--json"]
    assert steering(*command, "--max-pairs", "4").answer["pairs"] == 4
    for number in ("0", "many", "50001"):
        refused = f"--max-pairs: '{number}' is not a number of pairs from 1 to 50,000"
        steering(*command, "--max-pairs", number).assert_refused(refused)
