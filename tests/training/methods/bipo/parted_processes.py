"""Meets, loads a model, parts, and prints the threads that are still there; `test_processes.py` launches it."""

import sys
from pathlib import Path

from steering.runtime.distributed import launched

processes = launched()
from steering.models.loading import load_model  # noqa: E402, as the command line does: what is imported now may keep the group

load_model(sys.argv[1], device=processes.device)
processes.gathered(processes.index)
processes.leave()
print(" ".join(task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")))
