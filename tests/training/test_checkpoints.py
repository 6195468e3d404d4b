"""A run that was stopped, failed or was killed goes on to the vector it would have reached."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from steering import paths
from steering.models.loading import load_model
from steering.pairs.dataset import Pairs, read_pairs
from steering.training import Progress, checkpoints, default_checkpoint, training_run
from steering.training.methods.bipo.state import RunState
from steering.vectors.vector import SteeringVector

SETTINGS = {"layer": (1, 2), "learning_rate": 0.05, "batch_size": 2, "epochs": 6, "seed": 4}
ROOT = Path(__file__).parents[2]


def run(model, pairs, checkpoint=None, **options):
    return training_run(model, pairs[:5], pairs[5:], checkpoint=checkpoint, **{**SETTINGS, **options})


def same(one: SteeringVector, other: SteeringVector) -> None:
    """One vector, to what float32 leaves where pairs met in other batches, with the same history."""
    for k, direction in other.directions.items():
        assert (one.directions[k] - direction).norm() <= 1e-5 * direction.norm()
    assert one.method == other.method and one.pairs == other.pairs
    for a, b in zip(one.metrics["curve"], other.metrics["curve"], strict=True):
        assert a["step"] == b["step"] and a.keys() == b.keys()
        assert a["loss"] == pytest.approx(b["loss"], abs=2e-5)


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "checkpoints of a run" / "run.safetensors"


# Ways to end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
@pytest.mark.parametrize("end", ["stopped", "closed", "failed", "interrupted"])
def test_what_was_interrupted_goes_on_to_the_same_vector(end, fast, tiny, pairs, file, monkeypatch):
    *_, wanted = run(tiny, pairs, fast=fast)
    seen: list[Progress] = []
    began = run(tiny, pairs, file, fast=fast, should_stop=lambda: end == "stopped" and len(seen) > 7)
    seen.extend(itertools.islice(began, 8))
    if end == "stopped":
        assert [report.stopped for report in began] == ["asked"]
    elif end == "closed":
        began.close()
    else:
        error = RuntimeError if end == "failed" else KeyboardInterrupt

        def broken(*args, **kwargs):
            raise error("out of memory")

        with monkeypatch.context() as patch, pytest.raises(error):
            patch.setattr(type(tiny.blocks[-1]), "forward", broken)
            list(began)
    first, *rest, done = run(tiny, pairs, file, fast=fast)
    assert first.step == 7 and "Going on after step 7" in first.note
    assert [report.step for report in rest] == list(range(8, 19))
    assert rest[0].seconds > seen[7].seconds  # the time of both parts
    same(done.vector, wanted.vector)
    if not fast:  # where each row's figures do not depend on its neighbours
        assert all(torch.equal(done.vector.directions[k], wanted.vector.directions[k]) for k in (1, 2))
    assert not file.exists()


def test_every_single_step_may_be_the_last(tiny, pairs, file):
    """Interrupted after each step in turn: measurements, warm-up and the best vector included."""
    *_, wanted = run(tiny, pairs, patience=2, fast=False)
    for _ in range(60):
        reports = run(tiny, pairs, file, patience=2, fast=False)
        *_, last = itertools.islice(reports, 2)
        reports.close()
        if last.stage == "done":
            break
    assert torch.equal(last.vector.directions[1], wanted.vector.directions[1])
    assert (last.stopped, last.step) == (wanted.stopped, wanted.step)
    same(last.vector, wanted.vector)


def test_a_stop_after_going_on_keeps_what_there_is(tiny, pairs, file):
    list(itertools.islice(run(tiny, pairs, file), 8))[-1]
    *_, done = run(tiny, pairs, file, should_stop=lambda: True)
    assert (done.step, done.stopped) == (7, "asked") and done.vector.norm > 0
    assert file.exists()


# When it is written ---------------------------------------------------------------------------------------------------


def test_it_is_written_every_few_seconds_and_gone_at_the_end(tiny, pairs, file, monkeypatch):
    writes = []
    monkeypatch.setattr(checkpoints, "write_atomically", lambda path, data: writes.append(len(data)))
    list(run(tiny, pairs, file))
    assert writes == []  # shorter than the interval
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    list(run(tiny, pairs, file))
    assert len(writes) == 18


def test_a_finished_or_broken_run_leaves_none(tiny, pairs, file, monkeypatch):
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    list(run(tiny, pairs, file))
    assert not file.exists()
    done = [*run(tiny, pairs, file, learning_rate=4e5, warmup_steps=0)][-1]
    assert done.stopped == "broken" and not file.exists()


def test_a_full_disk_does_not_end_the_training(tiny, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    (tmp_path / "a file").touch()
    *reports, done = run(tiny, pairs, tmp_path / "a file" / "run.safetensors")
    assert "No checkpoint could be written" in reports[-1].note and done.step == 18


def test_only_the_newest_few_stay(tiny, pairs, monkeypatch):
    folder = paths.data_dir() / "checkpoints"
    for seed in range(13):
        path = default_checkpoint(tiny, pairs[:5], pairs[5:], **{**SETTINGS, "seed": seed})
        reports = run(tiny, pairs, path, seed=seed)
        list(itertools.islice(reports, 2))
        reports.close()
        os.utime(path, (seed, seed))
    assert sorted(path.stat().st_mtime for path in folder.iterdir())[0] >= 2
    assert len(list(folder.iterdir())) == checkpoints.MOST_CHECKPOINTS


# Whose it is ----------------------------------------------------------------------------------------------------------


def test_the_same_arguments_give_the_same_file(tiny, pairs, bundled_like):
    path = default_checkpoint(tiny, pairs[:5], pairs[5:], **SETTINGS)
    assert path == default_checkpoint(tiny, pairs[:5], pairs[5:], **{**SETTINGS, "layer": [1, 2]})
    assert path.parent == paths.data_dir() / "checkpoints"
    others = [
        default_checkpoint(tiny, pairs[:5], pairs[5:], **{**SETTINGS, "seed": 5}),
        default_checkpoint(tiny, pairs[:4], pairs[5:], **SETTINGS),
        default_checkpoint(tiny, pairs[:5], pairs[6:], **SETTINGS),
        default_checkpoint(bundled_like, pairs[:5], pairs[5:], **SETTINGS),
    ]
    assert len({path, *others}) == 5


@pytest.fixture
def bundled_like():
    from tests.tiny_models import tiny_model

    return tiny_model(seed=1)


def interrupted(tiny, pairs, file, **options) -> bytes:
    reports = run(tiny, pairs, file, **options)
    list(itertools.islice(reports, 8))
    reports.close()
    return file.read_bytes()


def test_fresh_starts_from_scratch(tiny, pairs, file):
    interrupted(tiny, pairs, file)
    first, *_, done = run(tiny, pairs, file, fresh=True)
    assert first.step == 0 and first.note == "" and done.step == 18


def test_a_checkpoint_of_another_run_is_left_aside(tiny, pairs, file):
    interrupted(tiny, pairs, file, seed=1)
    first, *_, done = run(tiny, pairs, file)
    assert first.step == 0 and "is of another run" in first.note and done.step == 18


def changed_metadata(data: bytes) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    figures = json.loads(header["__metadata__"]["checkpoint"])
    del figures["step"]
    header["__metadata__"]["checkpoint"] = json.dumps(figures)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def without_a_moment(data: bytes) -> bytes:
    state_of = RunState.from_bytes
    key = json.loads(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["checkpoint"])["run"]
    state = state_of(data, key, 32)
    del state.second[2]
    return state.to_bytes(key)


DAMAGES = {
    "empty": lambda data: b"",
    "cut short": lambda data: data[: len(data) // 2],
    "no checkpoint": lambda data: b"PK\x03\x04" + bytes(100),
    "a figure is missing": changed_metadata,
    "a tensor is missing": without_a_moment,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_left_aside(damage, tiny, pairs, file):
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(damage(interrupted(tiny, pairs, file)))
    first, *_, done = run(tiny, pairs, file)
    assert first.step == 0 and "is damaged, so the training starts from scratch" in first.note and done.step == 18


# Killed ---------------------------------------------------------------------------------------------------------------

PROGRAM = """
import sys
import torch
from pathlib import Path
from steering.models.loading import load_model
from steering.pairs.dataset import read_pairs
from steering.training import checkpoints, training_run
torch.set_num_threads(1)
checkpoints.EVERY = 0.05
folder, pairs, checkpoint = sys.argv[1:]
pairs = read_pairs(pairs)
for report in training_run(load_model(folder), pairs[:6], pairs[6:], checkpoint=Path(checkpoint), layer=1, epochs=200):
    pass
"""


def test_after_kill_9_it_goes_on_to_the_same_vector(tiny, pairs, tmp_path):
    folder, rows, file = tmp_path / "model", tmp_path / "pairs.jsonl", tmp_path / "run.safetensors"
    tiny.network.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    rows.write_text(
        "\n".join(json.dumps({"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected}) for p in pairs)
    )
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, folder, rows, file], cwd=ROOT)
    until = time.monotonic() + 120
    while not file.exists() and time.monotonic() < until and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    model, read = load_model(str(folder)), read_pairs(rows)
    settings = {"layer": 1, "epochs": 200}
    first, *_, done = training_run(model, read[:6], read[6:], checkpoint=file, **settings)
    assert first.step > 0 and f"Going on after step {first.step}" in first.note
    *_, wanted = training_run(model, read[:6], read[6:], **settings)
    assert wanted.step == done.step == 400
    same(done.vector, wanted.vector)
    assert not file.exists()


def test_pairs_without_held_out_ones_go_on_too(tiny, pairs, file):
    nothing = Pairs.of([])
    *_, wanted = training_run(tiny, pairs, nothing, fast=False, **SETTINGS)
    reports = training_run(tiny, pairs, nothing, fast=False, checkpoint=file, **SETTINGS)
    list(itertools.islice(reports, 6))
    reports.close()
    *_, done = training_run(tiny, pairs, nothing, fast=False, checkpoint=file, **SETTINGS)
    torch.testing.assert_close(done.vector.directions[1], wanted.vector.directions[1], rtol=1e-5, atol=1e-5)
