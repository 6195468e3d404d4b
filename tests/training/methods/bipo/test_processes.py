"""Several processes train the vector that one would. Two of them, joined by gloo, started as a user starts them."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from steering.evaluation import evaluate
from steering.models.loading import load_model
from steering.pairs.dataset import read_pairs
from steering.runtime.distributed import ALONE, Processes, launched
from steering.training import training_run
from steering.vectors.vector import SteeringVector
from tests.training.methods.bipo.two_processes import USUAL, VARIED

ROOT = Path(__file__).parents[4]
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
LAUNCH += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]


def numbers(result):
    """A result without its intervals, which `pytest.approx` does not take."""
    return {key: value for key, value in result.items() if not isinstance(value, list)}


def together(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Two processes; a hang fails the test."""
    environment = os.environ | {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [*LAUNCH, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)


def write_pairs(path: Path, numbers: range) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = [[f"Do you want {i}?", f"Yes, {i}", "No" + "!" * (i % 3)] for i in numbers]
        csv.writer(file).writerows([["prompt", "chosen", "rejected"], *rows])
    return path


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    tiny.network.save_pretrained(folder / "model")
    tiny.tokenizer.save_pretrained(folder / "model")
    write_pairs(folder / "pairs.csv", range(10))
    return folder


@pytest.fixture(scope="module")
def done(folder) -> subprocess.CompletedProcess[str]:
    return together(Path(__file__).parent / "two_processes.py", folder)


@pytest.fixture(scope="module")
def facts(folder, done) -> list[dict]:
    assert (folder / "facts-1.json").exists(), done.stderr
    return [json.loads((folder / f"facts-{index}.json").read_text()) for index in (0, 1)]


@pytest.fixture(scope="module")
def alone(folder):
    """The same run in this process alone."""
    model, pairs = load_model(str(folder / "model")), read_pairs(folder / "pairs.csv")

    def run(settings):
        return list(training_run(model, pairs[:7], pairs[7:], **settings))

    return SimpleNamespace(run=run, model=model, held_out=pairs[7:])


def assert_close(one: SteeringVector, other: SteeringVector) -> None:
    assert one.layers == other.layers
    for k, direction in other.directions.items():
        assert (one.directions[k] - direction).norm() <= 1e-5 * direction.norm()


def test_two_processes_train_the_vector_of_one(folder, facts, alone):
    """Batches of 3 in both directions at two layers: a process may have no pair of a batch, or two."""
    assert [fact["count"] for fact in facts] == [2, 2] and facts[0]["device"] == "cpu"
    one, two = (SteeringVector.load(folder / f"varied-{index}.safetensors") for index in (0, 1))
    assert all(torch.equal(one.directions[k], two.directions[k]) for k in one.layers)
    *reports, wanted = alone.run(VARIED)
    assert_close(one, wanted.vector)
    steps = [report for report in reports if report.loss]
    for fact in facts:
        assert fact["losses"] == pytest.approx([report.loss for report in steps], rel=1e-5, abs=2e-6)
        assert fact["margins"] == pytest.approx([report.margin for report in steps], rel=1e-4, abs=2e-5)


def test_the_held_out_pairs_are_shared_out_too(folder, facts, alone):
    *_, last, done = alone.run(VARIED)
    measured = [result.as_dict() for result in evaluate(alone.model, done.vector, alone.held_out)]
    for fact in facts:
        for got, wanted in ((fact["held_out"], [r.as_dict() for r in last.held_out]), (fact["evaluation"], measured)):
            for a, b in zip(got, wanted, strict=True):
                assert numbers(a) == pytest.approx(numbers(b), rel=1e-4, abs=2e-5)


def test_the_layers_of_a_sweep_are_shared_out(facts, alone):
    wanted = list(alone.run(USUAL | {"layer": "sweep", "epochs": 1})[-1].vector.layers)
    assert [len(fact["swept"][0]) for fact in facts] == [1, 1]  # two finalists, one each
    assert [fact["swept"][1] for fact in facts] == [wanted, wanted]
    assert set(wanted) <= {fact["swept"][0][0] for fact in facts}


def test_a_wish_to_stop_on_one_stops_all_and_all_go_on(folder, facts, alone):
    assert facts[0]["stopped"] == ["asked", 5, True]
    assert facts[1]["stopped"] == ["asked", 5, False]  # the main process writes the checkpoint
    assert facts[0]["went on"] == facts[1]["went on"] == [5, 12, False]
    wanted = alone.run(USUAL)[-1].vector
    for index in (0, 1):
        assert_close(SteeringVector.load(folder / f"usual-{index}.safetensors"), wanted)


def test_what_fails_on_one_ends_all_with_the_same_sentence(facts):
    for fact in facts:
        assert fact["failed"] == "SharedError: Process 1 of 2: RuntimeError: out of memory"
        assert fact["prepared"].startswith("SharedError: Process 1 of 2: none.csv: there is no such file")
        assert fact["the same everywhere"].startswith("SharedError: nobody.csv: there is no such file")


def test_a_process_that_dies_leaves_none_waiting(folder, done):
    assert done.returncode != 0  # and it ended, well before the timeout
    left = folder / "left alone.txt"  # unless the launcher was quicker to end this one too
    assert not left.exists() or "Another of the 2 processes ended" in left.read_text()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are listed as Linux does")
def test_nothing_of_the_connection_outlives_it(folder):
    """A thread of gloo's that is still there when Python shuts down can abort the process after its work is done."""
    done = together(Path(__file__).parent / "parted_processes.py", folder / "model")
    assert done.returncode == 0, done.stderr
    assert "python" in done.stdout and "gloo" not in done.stdout


def test_everybody_knows_what_the_others_have(facts):
    assert [fact["gathered"] for fact in facts] == [[0, 1], [0, 1]]
    assert facts[0]["shares"] == [[0, 2], [0, 2], [], [2]]
    assert facts[1]["shares"] == [[1, 3], [4, 6], [1], [5, 3]]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares_are_even_whole_and_mostly_ones_own(count):
    everyone = [
        Processes(SimpleNamespace(process_index=i, num_processes=count, device=torch.device("cpu")))
        for i in range(count)
    ]
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0)).tolist()
    own = 0
    for batch in (order[i : i + 8] for i in range(0, 40, 8)):
        parts = [one.share(batch) for one in everyone]
        assert sorted(i for part in parts for i in part) == sorted(batch)
        assert max(map(len, parts)) == -(-len(batch) // count)
        own += sum(i % count == index for index, part in enumerate(parts) for i in part)
    assert own >= 25


# The command ----------------------------------------------------------------------------------------------------------


def test_the_command_on_two_processes(folder, tmp_path):
    options = ["--model", folder / "model", "--epochs", 2, "--json"]
    output = tmp_path / "two.safetensors"
    two = together("-m", "steering", "train", folder / "pairs.csv", "--output", output, *options)
    assert two.returncode == 0, two.stderr
    answer = json.loads(two.stdout)  # one object: only the main process prints
    assert two.stderr.count("Read 10 rows") == 1
    command = [
        sys.executable,
        "-m",
        "steering",
        "train",
        folder / "pairs.csv",
        "--output",
        tmp_path / "one.safetensors",
    ]
    one = subprocess.run([*map(str, [*command, *options])], cwd=ROOT, capture_output=True, text=True, check=True)
    assert_close(SteeringVector.load(output), SteeringVector.load(tmp_path / "one.safetensors"))
    for a, b in zip(answer["evaluation"], json.loads(one.stdout)["evaluation"], strict=True):
        assert numbers(a) == pytest.approx(numbers(b), rel=1e-4, abs=2e-5)


def test_many_behaviors_are_spread_over_the_processes(folder, tmp_path):
    files = [write_pairs(tmp_path / f"{name}.csv", range(i, i + 8)) for i, name in enumerate("abc")]
    options = ["--model", folder / "model", "--epochs", 1, "--json"]
    done = together("-m", "steering", "train", *files, "--output", tmp_path / "vectors", *options)
    assert done.returncode == 0, done.stderr
    runs = json.loads(done.stdout)["runs"]
    assert [Path(run["vector"]).name for run in runs] == [f"{name}.safetensors" for name in "abc"]
    for file, run in zip(files, runs, strict=True):
        pairs, held_out = read_pairs(file).split(0.2, 0)
        *_, wanted = training_run(load_model(str(folder / "model")), pairs, held_out, epochs=1)
        assert_close(SteeringVector.load(run["vector"]), wanted.vector)
        assert run["steps"] == 2 and len(run["evaluation"]) == 5


def test_bad_input_is_told_once(folder, tmp_path):
    output = ["--output", tmp_path / "x.safetensors", "--model", folder / "model", "--layer", 9]
    done = together("-m", "steering", "train", folder / "pairs.csv", *output)
    assert done.returncode != 0 and done.stdout == ""
    assert done.stderr.count("steering: Layer 9 does not exist in model") == 1


# One process ----------------------------------------------------------------------------------------------------------


def test_a_usual_run_imports_nothing_for_it(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert launched() is ALONE
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert launched() is ALONE
    monkeypatch.setenv("WORLD_SIZE", "8")  # as some batch systems set it, without a launcher
    monkeypatch.delenv("RANK", raising=False)
    assert launched() is ALONE


def test_alone_nothing_is_exchanged():
    assert (ALONE.index, ALONE.count, ALONE.is_main, ALONE.device) == (0, 1, True, None)
    assert ALONE.share([3, 1, 2]) == [3, 1, 2] and ALONE.gathered("x") == ["x"] and ALONE.agreed("x") == "x"
    assert ALONE.together(lambda: "x") == "x"
    with pytest.raises(ZeroDivisionError):
        ALONE.together(lambda: 1 / 0)
    ALONE.leave()
