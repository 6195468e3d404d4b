"""Losses and settings in the trackers people use, really written and read back."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from steering.errors import SteeringError
from steering.pairs.dataset import Pairs
from steering.training import tracking, training_run
from steering.training.tracking import PACKAGES, Tracking

ROOT = Path(__file__).parents[2]


def test_every_tracker_of_accelerate_is_known():
    from accelerate.utils import LoggerType

    assert set(PACKAGES) <= set(map(str, LoggerType))
    assert {"trackio", "tensorboard", "wandb", "mlflow"} <= set(PACKAGES)


def test_none_is_fine(tiny, pairs, tmp_path):
    with Tracking([], "mine", tmp_path) as tracker:
        for report in training_run(tiny, pairs, Pairs.of([]), layer=1, epochs=1):
            tracker.hear(report)
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_told_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    for name, words in (("wandb", "pip install wandb"), ("tensorboard", "pip install tensorboardX")):
        with pytest.raises(SteeringError, match=words) as error:
            Tracking([name], "mine", tmp_path)
        assert str(error.value).endswith(".") and "\n" not in str(error.value)
    with pytest.raises(SteeringError, match="nothing called 'paper'"):
        Tracking(["paper"], "mine", tmp_path)


def test_tensorboard_files(tiny, pairs, tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    with Tracking(["tensorboard"], "mine", tmp_path) as tracker:
        *reports, done = training_run(tiny, pairs[:5], pairs[5:], layer=1, epochs=3)
        for report in [*reports, done]:
            tracker.hear(report)
    (events,) = tmp_path.glob("mine-*/steering-playground/events.*")
    data, seen = events.read_bytes(), {}
    while data:
        length = int.from_bytes(data[:8], "little")
        for value in Event.FromString(data[12 : 12 + length]).summary.value:
            seen.setdefault(value.tag, []).append(value.simple_value)
        data = data[12 + length + 4 :]
    steps = [report for report in reports if report.stage == "training"]
    assert seen["loss"] == pytest.approx([report.loss for report in steps])
    measured = [report.held_out[0].preference_margin for report in steps if report.held_out]
    assert seen["held_out/margin_plus"] == pytest.approx(measured)
    (settings,) = tmp_path.rglob("hparams.yml")
    assert "signs: drawn" in settings.read_text() and "layer: 1" in settings.read_text()


def test_trackio_by_the_command(tiny, tmp_path):
    """What trackio says goes to people, and its database has every step."""
    tiny.network.save_pretrained(tmp_path / "model")
    tiny.tokenizer.save_pretrained(tmp_path / "model")
    rows = [{"prompt": f"Take {i}?", "chosen": f"Yes, {i}", "rejected": "No"} for i in range(8)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    environment = os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    options = ["--output", "mine.safetensors", "--model", "model", "--epochs", "2", "--report-to", "trackio", "--json"]
    command = [sys.executable, "-m", "steering", "train", "pairs.jsonl", *options]
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    with sqlite3.connect(tmp_path / "trackio" / "steering-playground.db") as database:
        logged = [json.loads(text) for (text,) in database.execute("select metrics from metrics order by step")]
        (settings,) = database.execute("select config from configs").fetchone()
    assert len([figures for figures in logged if "loss" in figures]) == answer["steps"]
    assert "held_out/accuracy_minus" in logged[-1]
    assert json.loads(settings)["token_scope"] == "all"
