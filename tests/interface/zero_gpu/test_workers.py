"""ZeroGPU: what touches the GPU works in a really forked worker, after the page has answered with its threads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What `forking_space` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.interface.zero_gpu.forking_space"],
        cwd=ROOT,
        env={**os.environ, "STEERING_DATA_DIR": str(tmp_path_factory.mktemp("data"))},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_answers_are_those_of_the_page_itself(space: dict) -> None:
    assert space["generated"] == space["again"] == space["expected"] and len(space["before"]) == 2
    assert space["settings_are_ours"] == [True, True]


def test_forecasts_are_those_of_the_page_itself(space: dict) -> None:
    here, there = space["preview"]
    assert here == there


def test_a_training_reports_saves_and_gives_the_same_vector(space: dict) -> None:
    assert space["stages"] == ["done", "measuring", "preparing", "trained", "training"]
    assert space["same_vector"] and space["saved"] == [2, "w", 5]


def test_stop_and_failures_reach_the_worker_and_come_back(space: dict) -> None:
    assert space["stopped"] == "asked" and space["draft"]
    assert "Layer 99 does not exist" in space["failure"] and "prompt is empty" in space["empty"]


def test_the_seconds_asked_for_fit_a_visitors_quota(space: dict) -> None:
    assert space["decorated"] and min(space["seconds_asked"]) > 0 and max(space["seconds_asked"]) <= 60
