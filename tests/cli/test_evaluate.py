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


def test_measures_of_generated_text(steering, model_folder, pairs_file, vector_file):
    done = steering(
        "evaluate", vector_file, pairs_file, "--model", model_folder, "--json", "--multipliers=-1,0,1",
        "--measures", "behavior,fluency,relevance,composite,kl,dose", "--judge", "length", "--max-new-tokens", "5",
    )  # fmt: skip
    assert done.answer["judge"]["name"] == "length" and 0 <= done.answer["judge"]["accuracy"] <= 1
    low, middle, high = done.answer["results"]
    assert middle["kl"] == 0 < high["kl"] and low["multiplier"] == -1 and middle["dose"] == 0 < high["dose"]
    keys = {"preference_accuracy", "behavior_score", "behavior_low", "fluency", "relevance", "composite", "kl_p95"}
    assert keys <= high.keys() and 0 <= high["behavior_score"] <= 1 and 0 <= high["fluency"] <= 1


def test_a_report_goes_on_and_is_compared(steering, model_folder, pairs_file, vector_file, tmp_path):
    small = ["--judge", "length", "--max-new-tokens", "4", "--prompt-count", "4", "--random-directions", "2"]
    arguments = ["evaluate", vector_file, pairs_file, "--model", model_folder, "--json", *small]
    first, second = (tmp_path / name for name in ("first", "second"))
    done = steering(*arguments, "--report", first, "--update")
    assert (first / "report.html").stat().st_size > 100_000 and done.answer["summary"]["random_rank"][1] == 2
    kept = SteeringVector.load(vector_file).metrics
    assert kept["useful_range"] == done.answer["summary"]["useful_range"] and kept["judge"]["name"] == "length"
    steering(*arguments, "--report", second)
    shown = steering("report", first, second, "--json").answer
    assert all(row["behavior"]["mean"] == 0 for row in shown["differences"])
    assert "random direction" in steering("report", first).out
    other = steering(*arguments, "--seed", "5", "--report", first)
    assert other.status == 2 and "holds another evaluation" in other.err


def test_a_judge_that_cannot_judge_says_so_in_one_line(steering, model_folder, vector_file, tmp_path):
    few = tmp_path / "few.csv"
    few.write_text("prompt,chosen,rejected\nA?,Yes,No\nB?,Yes!,No!\n")
    asked = ["evaluate", vector_file, few, "--model", model_folder, "--measures", "behavior", "--max-new-tokens", "4"]
    for arguments, says in (
        (asked, "2 are too few; bring 10 or more"),
        ([*asked, "--judge", "gpt"], "no judge 'gpt'"),
        ([*asked, "--measures", "magic"], "no measure 'magic'"),
        ([*asked, "--update"], "give --report FOLDER, too"),
        (["report", tmp_path / "nothing"], "no folder of an evaluation"),
    ):
        done = steering(*arguments)
        assert done.status == 2 and says in done.err.splitlines()[-1] and "Traceback" not in done.err


def test_benchmarks_of_the_harness(steering, model_folder, pairs_file, vector_file):
    command = ["evaluate", vector_file, pairs_file, "--model", model_folder]
    done = steering(*command, "--tasks", "magic")
    assert done.status == 2 and "lm-evaluation-harness has no task 'magic'" in done.err
    done = steering(*command, "--tasks", "mmlu", "--task-limit", "0")
    assert done.status == 2 and "--task-limit is 0" in done.err
