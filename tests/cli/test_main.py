"""The `steering` command: what it prints, what it writes, how it fails. Most of it runs in this process."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from steering import __version__
from steering.cli import main as cli
from steering.cli import output as cli_output
from steering.evaluation import PreferenceResult, evaluate
from steering.generation.stream import Sampling, generate
from steering.models.loading import load_model
from steering.pairs.dataset import read_pairs
from steering.training import METHODS, Progress
from steering.training.methods.bipo.presets import EFFORTS
from steering.vectors.library import Library
from steering.vectors.vector import SteeringVector

ROOT = Path(__file__).parent.parent
COMMANDS = ["play", "train", "generate", "evaluate", "list", "show", "import", "export"]
TRAIN_KEYS = ["vector", "method", "layer", "norm", "steps", "seconds", "train_pairs", "test_pairs", "evaluation"]
RESULT_KEYS = ["multiplier", "preference_accuracy", "preference_margin"]


@dataclass
class Done:
    """What a command left: exit status, stdout, stderr."""

    status: int
    out: str
    err: str

    @property
    def answer(self) -> dict[str, Any]:
        """The one JSON object on stdout; NaN and Infinity are no JSON."""
        assert self.status == 0, self.err
        assert self.out.endswith("\n") and self.out.count("\n") == 1
        found = json.loads(self.out, parse_constant=lambda word: pytest.fail(f"{word} in JSON"))
        assert isinstance(found, dict)
        return found

    def assert_refused(self, message: str) -> None:
        assert self.status == 2 and self.out == ""
        assert re.fullmatch(rf"steering: .*{message}.*\n", self.err), self.err  # `.` matches no line break: one line
        assert "Traceback" not in self.err


@pytest.fixture
def steering(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run the command in this process."""

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        status = cli.main([str(argument) for argument in arguments])
        return Done(status, *capsys.readouterr())

    return run


def in_a_process(*arguments: object, **environment: str) -> Done:
    """Run the command as a user's shell does."""
    command = [sys.executable, "-m", "steering", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, encoding="utf-8")
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def model_folder(tiny, tmp_path_factory) -> Path:
    """The tiny Llama as a folder that --model takes."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny.network.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    return folder


def write_pairs(path: Path, numbers: range, header: str = "prompt,chosen,rejected") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = [[f"Do you want {i}?", f"Yes, {i}", "No" + "!" * (i % 3)] for i in numbers]
        csv.writer(file).writerows([header.split(","), *rows])
    return path


@pytest.fixture
def pairs_file(tmp_path) -> Path:
    return write_pairs(tmp_path / "pairs.csv", range(10))


def vector_of(name: str, scale: float = 3.0, **fields: Any) -> SteeringVector:
    """A vector for the tiny model, strong enough to change what it says."""
    direction = torch.randn(32, generator=torch.Generator().manual_seed(len(name)))
    return SteeringVector({1: scale * direction}, name=name, **fields)


@pytest.fixture
def vector_file(tmp_path) -> Path:
    return vector_of("bold").save(tmp_path / "bold.safetensors")


# Training ------------------------------------------------------------------------------------------------------------


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
    assert done.err == "Read 10 rows of pairs.csv: 10 pairs kept, none dropped.\n"
    assert [path.name for path in output.parent.iterdir()] == ["mine.safetensors"]


def test_train_without_json_is_for_people(steering, model_folder, pairs_file, tmp_path):
    output = tmp_path / "mine.safetensors"
    done = steering(
        "train", pairs_file, "--output", output, "--model", model_folder, "--epochs", 1, "--name", "So bold!"
    )
    assert done.status == 0
    head, columns, *rows = done.out.splitlines()
    assert re.fullmatch(rf"{re.escape(str(output))}: layer 2, norm \d+\.\d\d, 2 steps in \d+ s", head)
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
    assert answer["evaluation"] == [result.as_dict() for result in measured]


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
    for effort in EFFORTS:
        assert steering(*common, "--effort", effort, "--max-steps", 2).status == 0
        wanted = EFFORTS[effort].settings | {"max_steps": 2}
        wanted.pop("layer", None)  # the file holds the layer that was found
        assert wanted.items() <= SteeringVector.load(output).method.items()
    steering(*common, "--effort", "paper", "--epochs", 1, "--learning-rate", 0.01)
    method = SteeringVector.load(output).method
    assert (method["epochs"], method["learning_rate"], method["schedule_epochs"]) == (1, 0.01, 100)


def test_a_stopped_training_goes_on(steering, model_folder, pairs_file, tmp_path, monkeypatch):
    """Stopped by Ctrl-C after 3 steps, the same command goes on; with --fresh it begins anew."""
    real, output = cli_output.Bar.show, tmp_path / "mine.safetensors"
    train = ("train", pairs_file, "--model", model_folder, "--epochs", 4, "--json", "--output", output)

    def show(bar, done, *arguments, **figures):
        real(bar, done, *arguments, **figures)
        if done == 3 and not pressed:
            pressed.append(True)
            signal.raise_signal(signal.SIGINT)

    wanted = steering(*train).answer
    for options, told, steps in (((), "Going on after step 3", 8), (("--fresh",), "none dropped.\n", 8)):
        pressed: list[bool] = []
        with monkeypatch.context() as patch:
            patch.setattr(cli_output.Bar, "show", show)
            assert json.loads(steering(*train).out)["steps"] == 3
        done = steering(*train, *options)
        assert told in done.err and ("Going on" in done.err) == (not options)
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
        r"steering: 1 of 2 vectors could not be trained \(the others are written\); long: .*too long", done.err
    )
    assert [path.name for path in (tmp_path / "v").iterdir()] == ["pairs.safetensors"]


@pytest.fixture
def plain_method(monkeypatch) -> list[Any]:
    """A method with other settings than BiPO's; the list hears with which it was called."""

    @dataclass
    class Settings:
        layer: int | None = None
        seed: int = 7

    heard: list[Any] = []

    def run(model, pairs, held_out, settings, should_stop):
        heard.append(settings)
        numbers = {"train": len(pairs), "held_out": len(held_out)}
        vector = vector_of("", method={"name": "plain"}, pairs=numbers, metrics={"of its own": 1})
        yield Progress("preparing", note="Something to know.")
        yield Progress("done", step=1, total_steps=1, vector=vector)

    monkeypatch.setitem(METHODS, "plain", (run, Settings))
    return heard


def test_a_method_hears_only_what_was_asked_for(steering, plain_method, model_folder, pairs_file, tmp_path):
    output = tmp_path / "mine.safetensors"
    common = ["train", pairs_file, "--output", output, "--model", model_folder, "--method", "plain"]
    done = steering(*common, "--layer", 3)
    assert done.status == 0 and (plain_method[0].layer, plain_method[0].seed) == (3, 0)
    assert done.err.endswith("none dropped. Something to know.\n")
    assert SteeringVector.load(output).metrics.keys() == {"of its own", "held_out"}
    steering(*common, "--beta", 1).assert_refused("plain has no setting 'beta'; it has: layer, seed.")


def test_a_vector_is_kept_if_measuring_it_fails(
    steering, plain_method, model_folder, pairs_file, tmp_path, monkeypatch
):
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("steering.evaluation.evaluate", interrupted)
    output = tmp_path / "mine.safetensors"
    done = steering("train", pairs_file, "--output", output, "--model", model_folder, "--method", "plain")
    assert done.status == 130 and done.err.endswith("\nsteering: Interrupted.\n")
    assert SteeringVector.load(output).name == "mine"


def test_a_name_that_no_file_can_hold_costs_no_training(steering, plain_method, model_folder, pairs_file, tmp_path):
    output = tmp_path / "mine.safetensors"
    options = ["--model", model_folder, "--method", "plain", "--name", "a\udcffb\x1b[0m\n" + "x" * 200]
    assert steering("train", pairs_file, "--output", output, *options).status == 0
    assert SteeringVector.load(output).name.startswith("ab[0m")


# Evaluating ----------------------------------------------------------------------------------------------------------


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
    broken = [PreferenceResult(100.0, 0.5, float("nan")), PreferenceResult(-100.0, 0.5, float("-inf"))]
    monkeypatch.setattr("steering.evaluation.evaluate", lambda *arguments, **options: broken)
    answer = steering("evaluate", vector_file, pairs_file, "--model", model_folder, "--json").answer
    assert [row["preference_margin"] for row in answer["results"]] == [None, None]


def test_progress_is_shown_to_people_only(steering, model_folder, pairs_file, vector_file, monkeypatch):
    command = ["evaluate", vector_file, pairs_file, "--model", model_folder, "--multipliers=1"]
    assert "measuring" not in steering(*command).err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert "measuring: 100%" in steering(*command).err


# Generating ----------------------------------------------------------------------------------------------------------


def test_generate(steering, model_folder, vector_file):
    Library().add(vector_of("Bright side"))
    columns = [
        "",
        str(vector_file) + "=1.5",
        "bright-side=-1",
        "BRIGHT SIDE = 1, bold=2,",
        "bright-side=1,bright-side=1",
    ]
    Library().add(vector_of("bold", scale=1.0))
    given = [part for column in columns for part in ("--column", column)]
    options = ["--model", model_folder, "--max-new-tokens", 8, "--json"]
    answer = steering("generate", "--prompt", "Who are you?", *given, *options).answer
    assert list(answer) == ["prompt", "columns", "seconds", "tokens_per_second"]
    assert answer["prompt"] == "Who are you?"
    settings = [{}, {"bold": 1.5}, {"Bright side": -1.0}, {"Bright side": 1.0, "bold": 2.0}, {"Bright side": 2.0}]
    assert [column["setting"] for column in answer["columns"]] == settings
    assert all(list(column) == ["setting", "text", "tokens"] for column in answer["columns"])
    total = sum(column["tokens"] for column in answer["columns"])
    assert answer["tokens_per_second"] == pytest.approx(total / answer["seconds"])
    steered = {SteeringVector.load(vector_file): 1.5}
    expected = generate(load_model(str(model_folder)), "Who are you?", [{}, steered], max_new_tokens=8)
    assert [column["text"] for column in answer["columns"][:2]] == [column.text for column in expected]
    assert answer["columns"][0]["text"] != answer["columns"][1]["text"]


def test_generate_for_people(steering, model_folder, vector_file):
    options = ["--column", "", "--column", f"{vector_file}=-2", "--model", model_folder, "--max-new-tokens", 3]
    done = steering("generate", "--prompt", "Hi", *options)
    assert done.status == 0 and done.err == ""
    assert done.out.startswith("[baseline]\n") and "\n\n[bold -2]\n" in done.out


def test_without_a_column_the_untouched_model_answers(steering, model_folder):
    answer = steering("generate", "--prompt", "Hi", "--model", model_folder, "--max-new-tokens", 2, "--json").answer
    assert [column["setting"] for column in answer["columns"]] == [{}]


def test_system_prompt_and_sampling_arrive(steering, monkeypatch):
    heard = {}

    def listen(model: object, prompt: str, columns: list, **options: Any) -> list:
        heard.update(options, prompt=prompt, model=model)
        return []

    monkeypatch.setattr("steering.generation.stream.generate", listen)
    monkeypatch.setattr("steering.models.loading.load_model", lambda source, **where: f"loaded {source}")
    options = ["--temperature", 0.7, "--seed", 3, "--max-new-tokens", 9]
    assert steering("generate", "--prompt", "-1 or 1?", "--system", "", *options).status == 0
    sampling = heard["sampling"]
    assert (sampling.temperature, sampling.seed, sampling.max_new_tokens) == (0.7, 3, 9)
    assert (heard["system"], heard["prompt"], heard["model"]) == ("", "-1 or 1?", "loaded None")
    options = ["--top-p", 0.9, "--top-k", 40, "--repetition-penalty", 1.1, "--weights", "float16"]
    assert steering("generate", "--prompt", "Hi", *options).status == 0
    assert heard["sampling"] == Sampling(top_p=0.9, top_k=40, repetition_penalty=1.1)
    assert heard["weights"] == "float16"
    assert steering("generate", "--prompt", "Hi").status == 0
    assert (heard["sampling"], heard["weights"]) == (Sampling(), "full")
    assert heard["system"] == "You are a helpful, honest and concise assistant."


# The shelf -----------------------------------------------------------------------------------------------------------


def test_import_list_show_export(steering, vector_file, tmp_path):
    answer = steering("import", vector_file, "--name", "Very bold", "--json").answer
    assert (answer["name"], answer["slug"]) == ("Very bold", "very-bold")
    assert list(answer) == ["name", "slug", "path"] and Path(answer["path"]).is_file()

    listed = steering("list", "--json").answer["vectors"]
    mine = listed[-1]
    assert (mine["slug"], mine["shipped"], mine["layers"]) == ("very-bold", False, [1])
    assert mine.keys() == {"name", "slug", "path", "shipped", "behavior", "model", "layers", "norm"}
    assert all(entry["shipped"] for entry in listed[:-1])
    assert steering("list").out.splitlines()[-1] == "very-bold"

    shown = steering("show", "VERY BOLD", "--json").answer
    assert (shown["name"], shown["hidden_size"], shown["layers"]) == ("Very bold", 32, [1])
    assert "name: Very bold\n" in steering("show", "very-bold").out

    exported = tmp_path / "out" / "copy.safetensors"
    answer = steering("export", "very-bold", "--output", exported, "--json").answer
    assert answer == {"path": str(exported), "format": "safetensors"}
    original, copy = SteeringVector.load(vector_file), SteeringVector.load(exported)
    assert torch.equal(original.directions[1], copy.directions[1])


def test_a_taken_name_gets_a_number(steering, vector_file):
    assert steering("import", vector_file).out == f"{vector_file} is on the shelf as bold.\n"
    assert steering("import", vector_file).out == f"{vector_file} is on the shelf as bold-2.\n"


@pytest.mark.parametrize(
    ("name", "options", "layer"), [("vec_ep9_layer3.pt", [], 3), ("v.pt", ["--layer", 2], 2), ("v_layer3.pth", [], 3)]
)
def test_files_of_the_bipo_authors_are_imported(steering, tmp_path, name, options, layer):
    torch.save(torch.ones(32), tmp_path / name)
    slug = steering("import", tmp_path / name, *options, "--json").answer["slug"]
    assert Library().get(slug).layers == (layer,)


def test_an_unreadable_file_is_told_and_the_others_listed(steering, own_shelf, vector_file):
    steering("import", vector_file)
    (own_shelf / "vectors" / "broken.safetensors").write_bytes(b"nonsense")
    done = steering("list", "--json")
    assert "bold" in [entry["slug"] for entry in done.answer["vectors"]]
    assert done.err.startswith("broken.safetensors: ") and done.err.count("\n") == 1


# The playground ------------------------------------------------------------------------------------------------------


def test_play_opens_the_page(steering, monkeypatch):
    heard: list[Any] = []
    page = SimpleNamespace(launch=lambda model, **options: heard.append((model["source"], model["dtype"], options)))
    monkeypatch.setitem(sys.modules, "steering.interface", page)
    monkeypatch.setattr("steering.models.loading.load_model", lambda **options: options)
    assert steering("play", "--model", "m", "--dtype", "bfloat16", "--port", 7861, "--share") == Done(0, "", "")
    assert steering("play", "--json").answer == {}
    assert heard == [("m", "bfloat16", {"port": 7861, "share": True}), (None, None, {"port": None, "share": False})]


def test_a_port_that_is_taken(steering, monkeypatch):
    def launch(model: object, **options: object) -> None:
        raise OSError("Cannot find empty port in range: 7860-7860")

    monkeypatch.setitem(sys.modules, "steering.interface", SimpleNamespace(launch=launch))
    steering("play").assert_refused("Cannot find empty port in range: 7860-7860; give a free one with --port")


# Bad usage and bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "required: COMMAND"),
        ("trian", "invalid choice: 'trian'"),
        ("list extra", "unrecognized arguments: extra"),
        ("--json list", "unrecognized arguments: --json"),
        ("train", "required: PAIRS, --output"),
        ("train PAIRS --output new.pt", "a vector file ends in .safetensors; name it new.safetensors"),
        ("train PAIRS --output PAIRS/a/new.safetensors", "cannot be written; choose another place"),
        ("train PAIRS --output FOLDER.safetensors", "cannot be written; choose another place"),
        ("train PAIRS --output LONG.safetensors", "cannot be written; choose another place"),
        ("train none.csv --output new.safetensors", "none.csv: there is no such file"),
        ("train WRONG --output new.safetensors", "wrong.csv: .*column"),
        ("train PAIRS --output new.safetensors --columns prompt", "--columns 'prompt': write it as prompt=A"),
        ("train PAIRS --output new.safetensors --columns prompt=zz", "there is no column 'zz'"),
        ("train PAIRS --output new.safetensors --holdout 1", "held-out share is 1.0; give a number from 0"),
        ("train PAIRS --output new.safetensors --holdout nan", "held-out share is nan"),
        ("train PAIRS --output new.safetensors --holdout 0 --test-pairs PAIRS", "not allowed with argument"),
        ("train PAIRS --output new.safetensors --test-pairs PAIRS", "prompt also in"),
        ("train PAIRS --output new.safetensors --epochs 1.5", "argument --epochs: invalid int value: '1.5'"),
        ("train PAIRS --output new.safetensors --hold 0", "unrecognized arguments: --hold 0"),
        ("train PAIRS --output new.safetensors --model MODEL --layer 4", "Layer 4 does not exist in tiny; .* 0 to 3"),
        ("train PAIRS --output new.safetensors --model MODEL --layer -1", "Layer -1 does not exist"),
        (
            "train PAIRS --output new.safetensors --layer best",
            "'best' is no layer; give a whole number, several as 10,14",
        ),
        ("train PAIRS --output new.safetensors --layer 1,", "'1,' is no layer"),
        ("train PAIRS --output new.safetensors --model MODEL --layer 1,9", "Layer 9 does not exist"),
        ("train PAIRS --output new.safetensors --effort much", "invalid choice: 'much'"),
        (
            "train PAIRS --output new.safetensors --model MODEL --signs minus",
            "signs is 'minus'; choose one of: drawn, both",
        ),
        (
            "train PAIRS --output new.safetensors --model MODEL --token-scope x",
            "token_scope is 'x'; choose one of: all",
        ),
        ("train PAIRS --output new.safetensors --model MODEL --length-weight -1", "length_weight is -1.0"),
        ("train PAIRS --output new.safetensors --model MODEL --l2 nan", "l2 is nan"),
        ("train PAIRS --output new.safetensors --model MODEL --patience 0", "patience is 0"),
        ("train PAIRS --output new.safetensors --model MODEL --effort paper --epochs 200", "schedule_epochs is 100"),
        ("train PAIRS --output new.safetensors --report-to paper", "nothing called 'paper'.*trackio"),
        ("train PAIRS PAIRS --output folder", "Two of the files have the same name"),
        ("train PAIRS WRONG --output folder.safetensors", "several vectors need a folder"),
        ("train PAIRS WRONG --output folder --name n", "--name is for one vector"),
        ("train PAIRS WRONG --output folder --test-pairs PAIRS", "--test-pairs is for one vector"),
        ("train PAIRS WRONG --output folder", "wrong.csv: .*column"),
        ("train PAIRS --output new.safetensors --model MODEL --epochs 0", "epochs is 0"),
        ("train PAIRS --output new.safetensors --model MODEL --learning-rate nan", "learning_rate is nan"),
        ("train PAIRS --output new.safetensors --model MODEL --beta 0", "beta is 0"),
        ("train PAIRS --output new.safetensors --model MODEL --seed 99999999999999999999", "seed is 9+"),
        ("train PAIRS --output new.safetensors --model MODEL --method magic", "no method 'magic'; choose one of: bipo"),
        ("train PAIRS --output new.safetensors --model no/such/folder", "Model 'no/such/folder' cannot be loaded"),
        ("evaluate bold PAIRS", "no vector 'bold' on the shelf"),
        ("evaluate none.safetensors PAIRS", "none.safetensors: there is no such file"),
        ("evaluate PAIRS PAIRS", "pairs.csv: cannot read this kind of file"),
        ("evaluate VECTOR none.csv", "none.csv: there is no such file"),
        ("evaluate VECTOR PAIRS --multipliers=1,nan", "--multipliers: The multiplier nan is not a number"),
        ("evaluate VECTOR PAIRS --multipliers=inf", "--multipliers: The multiplier inf"),
        ("evaluate VECTOR PAIRS --multipliers=1e9", "--multipliers: The multiplier 1e9"),
        ("evaluate VECTOR PAIRS --multipliers=1,x", "--multipliers: The multiplier x"),
        ("evaluate VECTOR PAIRS --multipliers=", "--multipliers: The multiplier '' is not a number"),
        ("evaluate WIDE PAIRS --model MODEL", "'wide' has hidden size 7 but the model tiny has 32"),
        ("evaluate DEEP PAIRS --model MODEL", "'deep' steers layer 9 but the model tiny has only layers 0 to 3"),
        ("generate", "required: --prompt"),
        ("generate --prompt Hi --column bold", "names no multiplier; write it as NAME=1.5"),
        ("generate --prompt Hi --column =1", "no vector '' on the shelf"),
        ("generate --prompt Hi --column VECTOR=", "--column: The multiplier"),
        ("generate --prompt Hi --column VECTOR=nan", "--column: The multiplier nan"),
        ("generate --prompt Hi --column VECTOR=60,VECTOR=60 --model MODEL", "The multiplier 120.0 is not"),
        ("generate --prompt Hi --max-new-tokens 0", "max new tokens is 0"),
        ("generate --prompt Hi --temperature nan", "temperature is nan"),
        ("generate --prompt Hi --seed -1", "seed is -1"),
        ("generate --prompt Hi --top-p 2", "top p is 2.0"),
        ("generate --prompt Hi --weights int3", "invalid choice: 'int3'"),
        ("generate --prompt _ --model MODEL", "The prompt is empty"),
        ("generate --prompt Hi --column WIDE=1 --model MODEL", "hidden size 7"),
        ("generate --prompt Hi --model MODEL" + " --column _" * 17, "17 columns"),
        ("show bold", "no vector 'bold' on the shelf"),
        ("import none.pt", "none.pt: there is no such file"),
        ("import PAIRS", "pairs.csv: cannot read this kind of file"),
        ("import VECTOR --layer 3", "says that it steers layer 1; leave the layer out"),
        ("export VECTOR --output new.safetensors --format gguf", "no format 'gguf'; choose one of: safetensors"),
        ("export VECTOR --output new.txt", "a vector file ends in .safetensors"),
        ("play --port 70000", "'70000' is not a port; give a number from 1 to 65535"),
    ],
)
def test_bad_input_is_told_in_one_line(
    steering, model_folder, pairs_file, vector_file, tmp_path, monkeypatch, command, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.safetensors").mkdir()
    words = {
        "_": " ",
        "PAIRS": pairs_file,
        "WRONG": write_pairs(tmp_path / "wrong.csv", range(3), header="a,b,c"),
        "MODEL": model_folder,
        "VECTOR": vector_file,
        "WIDE": SteeringVector({1: torch.ones(7)}, name="wide").save(tmp_path / "wide.safetensors"),
        "DEEP": SteeringVector({9: torch.ones(32)}, name="deep").save(tmp_path / "deep.safetensors"),
        "FOLDER": tmp_path / "folder",
        "LONG": "x" * 300,
    }
    before = sorted(tmp_path.rglob("*.safetensors"))
    pattern = re.compile("|".join(sorted(words, key=len, reverse=True)))
    steering(*(pattern.sub(lambda found: str(words[found[0]]), word) for word in command.split())).assert_refused(
        message
    )
    assert sorted(tmp_path.rglob("*.safetensors")) == before


def test_a_mistyped_name_gets_a_hint(steering):
    Library().add(vector_of("sunny"))
    steering("generate", "--prompt", "Hi", "--column", "suny=1").assert_refused(r"\(did you mean 'sunny'\?\)")


def test_a_refused_run_makes_no_folder(steering, tmp_path):
    steering("train", tmp_path / "none.csv", "--output", tmp_path / "a" / "b" / "new.safetensors").assert_refused(
        "none"
    )
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("folder", ["a file/data", "~no-such-user/data"])
def test_a_data_folder_that_cannot_be_made(steering, tmp_path, monkeypatch, folder):
    (tmp_path / "a file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEERING_DATA_DIR", folder)
    steering("list").assert_refused("The folder for your vectors cannot be made .*; set STEERING_DATA_DIR")


def test_a_message_cannot_steer_the_terminal(steering):
    done = steering("train", "pairs.csv", "--output", "a\x1b[31mb\r\nc.pt")
    done.assert_refused("a vector file ends in .safetensors")
    assert "\x1b" not in done.err and "\r" not in done.err


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=lambda command: " ".join(command) or "-")
def test_help_and_version(command, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([*command, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: steering {' '.join(command)}")
    assert all(name in text for name in (["--model", "--json"] if command else COMMANDS))


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"steering {__version__}\n"


def test_what_a_library_prints_does_not_disturb_the_json(steering, monkeypatch):
    def noisy(self: Library) -> list:
        print("loading ...")
        return []

    monkeypatch.setattr(Library, "entries", noisy)
    done = steering("list", "--json")
    assert done.answer == {"vectors": []} and done.err == "loading ...\n"


# As a program --------------------------------------------------------------------------------------------------------


def test_the_whole_way_as_a_program(model_folder, pairs_file, tmp_path):
    output = tmp_path / "mine.safetensors"
    done = in_a_process("train", pairs_file, "--output", output, "--model", model_folder, "--epochs", 1, "--json")
    assert list(done.answer) == TRAIN_KEYS
    assert done.err == "Read 10 rows of pairs.csv: 10 pairs kept, none dropped.\n"
    columns = ["--column", "", "--column", f"{output}=2", "--max-new-tokens", 2]
    done = in_a_process("generate", "--prompt", "Hi", *columns, "--model", model_folder, "--json")
    assert len(done.answer["columns"]) == 2 and done.err == ""


def test_errors_as_a_program(tmp_path):
    in_a_process().assert_refused("required: COMMAND")
    in_a_process("show", "nobody").assert_refused("There is no vector 'nobody' on the shelf")
    torch.jit.save(torch.jit.trace(torch.nn.Identity(), torch.ones(2)), tmp_path / "script.pt")
    refused = in_a_process("import", tmp_path / "script.pt", "--layer", 1)  # torch warns of such files at length
    refused.assert_refused("script.pt: not a sound .pt file")


def test_help_does_not_wait_for_torch():
    program = (
        "import sys, steering.cli\n"
        "try: steering.cli.main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'gradio', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n[]\n")


def test_a_terminal_that_knows_no_emoji():
    Library().add(vector_of("Grüezi 👋"))
    done = in_a_process("show", "Grüezi 👋", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.status == 0 and "name: Gr\\xfcezi \\U0001f44b\n" in done.out
    done = in_a_process("show", "Grüezi 👋", "--json", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.answer["name"] == "Grüezi 👋"


def test_a_reader_that_went_away():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "steering", "list"]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(command, cwd=ROOT, env=buffered, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
