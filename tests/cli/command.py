"""Running the `steering` command, and what it needs: pairs, vectors, the keys of its answers."""

import csv
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from steering.vectors.vector import SteeringVector

ROOT = Path(__file__).parents[2]
COMMANDS = ["play", "train", "generate", "evaluate", "report", "reproduce", "list", "show", "import", "export"]
TRAIN_KEYS = ["vector", "method", "layer", "norm", "steps", "seconds", "train_pairs", "test_pairs", "evaluation"]
RESULT_KEYS = [
    "multiplier",
    "preference_accuracy",
    "preference_margin",
    "pairs",
    "accuracy_interval",
    "margin_interval",
    "pairs_moved",
    "margin_per_token",
    "chosen_logps",
    "rejected_logps",
]


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


def in_a_process(*arguments: object, **environment: str) -> Done:
    """Run the command as a user's shell does."""
    command = [sys.executable, "-m", "steering", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, encoding="utf-8")
    return Done(done.returncode, done.stdout, done.stderr)


def write_pairs(path: Path, numbers: range, header: str = "prompt,chosen,rejected") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = [[f"Do you want {i}?", f"Yes, {i}", "No" + "!" * (i % 3)] for i in numbers]
        csv.writer(file).writerows([header.split(","), *rows])
    return path


def vector_of(name: str, scale: float = 3.0, **fields: Any) -> SteeringVector:
    """A vector for the tiny model, strong enough to change what it says."""
    direction = torch.randn(32, generator=torch.Generator().manual_seed(len(name)))
    return SteeringVector({1: scale * direction}, name=name, **fields)
