"""`steering train`: what it prints, what it writes, how it ends."""

import json
import re
import signal
from importlib.metadata import EntryPoint

import pytest

from steering.cli import main as cli
from steering.cli import output as cli_output
from steering.evaluation import evaluate
from steering.models.loading import load_model
from steering.pairs.dataset import read_pairs
from steering.training import registry
from steering.training.methods.bipo.presets import PRESETS
from steering.vectors.vector import SteeringVector
from tests.cli.command import RESULT_KEYS, TRAIN_KEYS, write_pairs
from tests.training.example_method import Config, install


def numbers(result):
    """A result without its intervals, which `pytest.approx` does not take."""
    return {key: value for key, value in result.items() if not isinstance(value, list)}


def test_train_writes_a_vector_and_says_how_it_went(steering, model_folder, pairs_file, tmp_path):
    output = tmp_path / "new folder" / "mine.safetensors"
    options = ["--behavior", "says yes", "--layer", 1, "--epochs", 2, "--batch-size", 3, "--seed", 5, "--beta", 0.5]
    done = steering("train", pairs_file, "--output", output, "--model", model_folder, "--json", *options)
    answer, vector = done.answer, SteeringVector.load(output)
    assert list(answer) == TRAIN_KEYS
    assert (answer["vector"], answer["method"], answer["layer"]) == (str(output), "bipo", 1)
    assert (answer["train_pairs"], answer["test_pairs"], answer["steps"]) == (8, 2, 6)
    assert answer["norm"] == vector.norm > 0 and answer["seconds"] > 0
    assert (vector.name, vector.behavior, vector.layers) == ("mine", "says yes", (1,))
    chosen = {"name": "bipo", "layer": 1, "epochs": 2, "batch_size": 3, "seed": 5, "beta": 0.5}
    assert chosen.items() <= vector.method.items()
    assert answer["evaluation"] == vector.metrics["held_out"]
    assert [row["multiplier"] for row in answer["evaluation"]] == [-2, -1, 0, 1, 2]
    assert all(list(row) == RESULT_KEYS for row in answer["evaluation"])
    assert answer["evaluation"][2]["preference_margin"] == 0.0
    assert done.err.startswith("Read 10 rows of pairs.csv: 10 pairs kept, none dropped.\nwarning: There are only ")
    assert [path.name for path in output.parent.iterdir()] == ["mine.safetensors"]


def test_train_without_json_is_for_people(steering, model_folder, pairs_file, tmp_path):
    output = tmp_path / "mine.safetensors"
    done = steering(
        "train", pairs_file, "--output", output, "--model", model_folder, "--epochs", 1, "--name", "So bold!"
    )
    assert done.status == 0
    head, count, columns, *rows = done.out.splitlines()
    assert re.fullmatch(rf"{re.escape(str(output))}: layer 2, norm \d+\.\d\d, 2 steps in \d+ s", head)
    assert count == "2 pairs, in brackets the 95 % interval"
    assert columns.split() == ["multiplier", "accuracy", "margin", "(nats)"]
    assert [row.split()[0] for row in rows] == ["-2", "-1", "+0", "+1", "+2"]
    assert SteeringVector.load(output).name == "So bold!"


def test_ctrl_c_keeps_the_best_so_far(steering, model_folder, pairs_file, tmp_path, monkeypatch):
    real, output = cli_output.Bar.show, tmp_path / "mine.safetensors"

    def show(bar, done, *arguments, **figures):
        real(bar, done, *arguments, **figures)
        if done == 3 and not pressed:
            pressed.append(True)
            signal.raise_signal(signal.SIGINT)

    pressed: list[bool] = []
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(cli_output.Bar, "show", show)
    train = ("train", pairs_file, "--model", model_folder, "--epochs", 50, "--json")
    done = steering(*train, "--output", output)
    assert done.status == 0 and "Stopping after this step" in done.err
    assert json.loads(done.out)["steps"] == 3
    assert SteeringVector.load(output).norm > 0
    assert signal.getsignal(signal.SIGINT) is before


def test_the_same_seed_gives_the_same_vector(steering, model_folder, pairs_file, tmp_path):
    directions = []
    for seed in (3, 3, 4):
        output = tmp_path / "mine.safetensors"
        options = ["--seed", seed, "--epochs", 1, "--holdout", 0, "--json"]
        assert steering("train", pairs_file, "--output", output, "--model", model_folder, *options).status == 0
        directions.append(SteeringVector.load(output).directions[2].tolist())
    assert directions[0] == directions[1] != directions[2]


def test_nothing_held_out(steering, model_folder, pairs_file, tmp_path):
    output = tmp_path / "mine.safetensors"
    options = ["--epochs", 1, "--holdout", 0, "--json"]
    answer = steering("train", pairs_file, "--output", output, "--model", model_folder, *options).answer
    assert (answer["train_pairs"], answer["test_pairs"], answer["evaluation"]) == (10, 0, [])
    assert "held_out" not in SteeringVector.load(output).metrics


def test_test_pairs_are_not_trained_on(steering, model_folder, pairs_file, tmp_path):
    test_pairs = write_pairs(tmp_path / "test.csv", range(7, 12))  # 7, 8 and 9 are in both files
    output = tmp_path / "mine.safetensors"
    options = ["--epochs", 1, "--test-pairs", test_pairs, "--json"]
    answer = steering("train", pairs_file, "--output", output, "--model", model_folder, *options).answer
    assert (answer["train_pairs"], answer["test_pairs"]) == (7, 5)
    measured = evaluate(load_model(str(model_folder)), SteeringVector.load(output), read_pairs(test_pairs))
    for row, result in zip(answer["evaluation"], measured, strict=True):  # by the training's scorer, in other batches
        assert numbers(row) == pytest.approx(numbers(result.as_dict()), rel=1e-4, abs=1e-4)


def test_columns_of_other_names(steering, model_folder, tmp_path):
    pairs = write_pairs(tmp_path / "pairs.csv", range(5), header="Q,A,B")
    output = tmp_path / "mine.safetensors"
    options = ["--columns", "prompt=Q, chosen=A,rejected=B", "--epochs", 1, "--json"]
    assert steering("train", pairs, "--output", output, "--model", model_folder, *options).answer["train_pairs"] == 4
    options = ["--columns", "prompt=Q,chosen=A,rejected=B", "--json"]
    assert steering("evaluate", output, pairs, "--model", model_folder, *options).answer["pairs"] == 5


def test_every_setting_has_its_option(steering, model_folder, pairs_file, tmp_path):
    output = tmp_path / "mine.safetensors"
    options = "--layer 3,1 --signs both --token-scope answer --length-weight 0.5 --l2 0.1 --patience 5 --max-steps 3"
    common = ["train", pairs_file, "--output", output, "--model", model_folder, "--json"]
    answer, vector = steering(*common, *options.split()).answer, SteeringVector.load(output)
    assert (answer["layer"], answer["steps"], vector.layers, vector.token_scope) == ([1, 3], 3, (1, 3), "answer")
    wanted = {"layer": [1, 3], "signs": "both", "token_scope": "answer", "length_weight": 0.5, "l2": 0.1}
    assert (wanted | {"patience": 5, "max_steps": 3}).items() <= vector.method.items()
    assert steering(*common, "--layer", "middle", "--max-steps", 1).answer["layer"] == 2


def test_effort_is_a_bundle_and_single_options_win(steering, model_folder, pairs_file, tmp_path):
    output = tmp_path / "mine.safetensors"
    common = ["train", pairs_file, "--output", output, "--model", model_folder]
    for effort in PRESETS:
        assert steering(*common, "--effort", effort, "--max-steps", 2).status == 0
        wanted = PRESETS[effort].settings | {"max_steps": 2}
        wanted.pop("layer", None)  # the file holds the layer that was found
        assert wanted.items() <= SteeringVector.load(output).method.items()
    steering(*common, "--effort", "paper", "--epochs", 1, "--learning-rate", 0.01)
    method = SteeringVector.load(output).method
    assert (method["epochs"], method["learning_rate"], method["schedule_epochs"]) == (1, 0.01, 100)


def test_a_stopped_training_goes_on(steering, model_folder, pairs_file, tmp_path, monkeypatch):
    """Stopped by Ctrl-C after 3 steps, the same command goes on; with --fresh it starts from scratch."""
    real, output = cli_output.Bar.show, tmp_path / "mine.safetensors"
    train = ("train", pairs_file, "--model", model_folder, "--epochs", 4, "--json", "--output", output)

    def show(bar, done, *arguments, **figures):
        real(bar, done, *arguments, **figures)
        if done == 3 and not pressed:
            pressed.append(True)
            signal.raise_signal(signal.SIGINT)

    wanted = steering(*train).answer
    for options, note, steps in (((), "Going on after step 3", 8), (("--fresh",), "none dropped.\n", 8)):
        pressed: list[bool] = []
        with monkeypatch.context() as patch:
            patch.setattr(cli_output.Bar, "show", show)
            assert json.loads(steering(*train).out)["steps"] == 3
        done = steering(*train, *options)
        assert note in done.err and ("Going on" in done.err) == (not options)
        assert done.answer["steps"] == steps and done.answer["norm"] == pytest.approx(wanted["norm"], rel=1e-5)
    assert "Going on" not in steering(*train).err  # a finished run has left no checkpoint


def test_several_files_give_several_vectors(steering, model_folder, tmp_path):
    files = [write_pairs(tmp_path / f"{name}.csv", range(i, i + 6)) for i, name in enumerate(("bold", "shy"))]
    options = ["--output", tmp_path / "both", "--model", model_folder, "--epochs", 1]
    answer = steering("train", *files, *options, "--json").answer
    assert [list(run) for run in answer["runs"]] == [TRAIN_KEYS] * 2
    for name, run in zip(("bold", "shy"), answer["runs"], strict=True):
        assert SteeringVector.load(tmp_path / "both" / f"{name}.safetensors").name == name
        assert run["vector"] == str(tmp_path / "both" / f"{name}.safetensors")
    done = steering("train", *files, *options)
    assert done.err.count("Read 6 rows") == 2 and done.out.count("multiplier  accuracy") == 2


def test_one_of_several_that_fails_keeps_no_other(steering, model_folder, pairs_file, tmp_path):
    long = tmp_path / "long.csv"
    long.write_text(f"prompt,chosen,rejected\nGo on?,{'yes ' * 200},no\n")
    done = steering("train", long, pairs_file, "--output", tmp_path / "v", "--model", model_folder, "--epochs", 1)
    assert done.status == 2 and done.out == ""
    assert re.search(
        r"steering: 1 of 2 vectors could not be trained \(the others are written\); long: .*longer than", done.err
    )
    assert [path.name for path in (tmp_path / "v").iterdir()] == ["pairs.safetensors"]


# Methods --------------------------------------------------------------------------------------------------------------


def test_caa_trains_as_any_method(steering, model_folder, pairs_file, tmp_path):
    output = tmp_path / "mine.safetensors"
    common = ["train", pairs_file, "--output", output, "--model", model_folder, "--method", "caa"]
    answer = steering(*common, "--layer", "1,3", "--position", "last", "--json").answer
    vector = SteeringVector.load(output)
    assert list(answer) == TRAIN_KEYS and (answer["method"], answer["layer"]) == ("caa", [1, 3])
    assert (answer["train_pairs"], answer["test_pairs"]) == (8, 2)
    assert vector.method == {"name": "caa", "layer": [1, 3], "seed": 0, "position": "last", "token_scope": "answer"}
    assert answer["evaluation"] == vector.metrics["held_out"] and len(answer["evaluation"]) == 5


@pytest.fixture
def example_method(monkeypatch):
    """The method `example`, as another package would bring it."""
    with monkeypatch.context() as patch:
        install(patch)
        yield
    registry.methods.cache_clear()


def test_a_method_of_another_package_trains(steering, example_method, model_folder, pairs_file, tmp_path, capsys):
    output = tmp_path / "mine.safetensors"
    common = ["train", pairs_file, "--output", output, "--model", model_folder, "--method", "example"]
    done = steering(*common, "--layer", 3, "--shape", "drawn", "--seed", 4, "--tidy")
    assert done.status == 0 and done.err.endswith("\nSomething to know.\n")
    vector = SteeringVector.load(output)
    wanted = {"name": "example", "layer": 3, "seed": 4, "scale": 2.0, "shape": "drawn", "tidy": True}
    assert vector.method == wanted and vector.norm == pytest.approx(2)
    assert vector.metrics.keys() == {"of its own", "held_out"}
    steering(*common, "--beta", 1).assert_refused(
        "example has no setting 'beta'; it has: layer, scale, seed, shape, tidy."
    )
    steering(*common, "--shape", "round").assert_refused("shape is 'round'; choose one of: flat, drawn")
    steering(*common, "--effort", "quick").assert_refused("no effort 'quick' of example; leave it out")
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--scale F norm of the vector, 100% made up [example] (default: 2)" in text
    assert "[bipo, dpo, simpo, reps, split, reft] (default: 0.1; simpo: 2; reps: 1)" in text


def test_a_method_hears_only_what_was_asked_for(steering, example_method, model_folder, pairs_file, tmp_path):
    output = tmp_path / "mine.safetensors"
    common = ["train", pairs_file, "--output", output, "--model", model_folder, "--method", "example"]
    assert steering(*common).status == 0
    assert SteeringVector.load(output).method == {"name": "example", **Config().as_json()}


def test_an_effort_gives_way_to_the_middle_layer(steering, model_folder, pairs_file, tmp_path):
    options = ["--model", model_folder, "--effort", "standard", "--layer", "middle", "--max-steps", 1]
    done = steering("train", pairs_file, "--output", tmp_path / "mine.safetensors", *options)
    assert done.status == 0 and "Looking for the layer" not in done.err


def test_a_vector_is_saved_even_if_measuring_it_fails(
    steering, example_method, model_folder, pairs_file, tmp_path, monkeypatch
):
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("steering.training.pipeline.preference_logps", interrupted)
    output = tmp_path / "mine.safetensors"
    done = steering("train", pairs_file, "--output", output, "--model", model_folder, "--method", "example")
    assert done.status == 130 and done.err.endswith("\nsteering: Interrupted.\n")
    assert SteeringVector.load(output).name == "mine"


def test_a_name_that_no_file_can_hold_costs_no_training(steering, example_method, model_folder, pairs_file, tmp_path):
    output = tmp_path / "mine.safetensors"
    options = ["--model", model_folder, "--method", "example", "--name", "a\udcffb\x1b[0m\n" + "x" * 200]
    assert steering("train", pairs_file, "--output", output, *options).status == 0
    assert SteeringVector.load(output).name.startswith("ab[0m")


# What it says ---------------------------------------------------------------------------------------------------------


def test_verbose_says_which_way_is_taken(steering, model_folder, pairs_file, tmp_path):
    train = ["train", pairs_file, "--output", tmp_path / "v.safetensors", "--model", model_folder, "--method", "caa"]
    assert "INFO" not in steering(*train).err
    assert "INFO steering.training.pipeline: The method offers no scorer" in steering(*train, "--verbose").err
    assert "INFO" not in steering(*train).err  # it is not left switched on


def test_a_method_that_cannot_be_loaded_is_one_line(steering, model_folder, pairs_file, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        install(patch, EntryPoint("broken", "no_such_package:METHOD", registry.ENTRY_POINTS))
        output = tmp_path / "v.safetensors"
        done = steering("train", pairs_file, "--output", output, "--model", model_folder, "--method", "caa")
    registry.methods.cache_clear()
    assert done.status == 0
    first, *_ = done.err.splitlines()
    assert first.startswith("warning: Method broken (no_such_package:METHOD) is left out: ModuleNotFoundError(")
    assert "Traceback" not in done.err
