"""What two processes do together; `test_processes.py` launches it and reads what each of them wrote."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from steering.errors import SteeringError
from steering.evaluation import evaluate
from steering.models.loading import load_model
from steering.pairs.dataset import read_pairs
from steering.runtime.distributed import Processes, launched
from steering.scoring.scorer import PairScorer
from steering.training import training_run
from steering.training.methods.bipo import layer_sweep

VARIED = {"layer": (0, 2), "signs": "both", "l2": 0.5, "batch_size": 3, "epochs": 3, "learning_rate": 0.05, "seed": 2}
USUAL = {"layer": 1, "epochs": 6, "learning_rate": 0.05}


def described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def failure(processes: Processes, work: Callable[[], object]) -> str:
    """Do the work on all processes together; return the error that this one gets, or nothing."""
    try:
        processes.together(work)
    except SteeringError as error:
        return described(error)
    return ""


def main(folder: Path) -> None:
    processes = launched()
    torch.set_num_threads(1)
    model, pairs = load_model(str(folder / "model"), device=processes.device), read_pairs(folder / "pairs.csv")
    training, held_out = pairs[:7], pairs[7:]
    facts: dict = {"index": processes.index, "count": processes.count, "device": processes.device}

    def run(settings, **options):
        return training_run(model, training, held_out, processes=processes, **options, **settings)

    def saved(name, vector):
        vector.save(folder / f"{name}-{processes.index}.safetensors")

    *reports, done = run(VARIED)
    saved("varied", done.vector)
    facts["losses"] = [report.loss for report in reports if report.loss]
    facts["margins"] = [report.margin for report in reports if report.loss]
    facts["held_out"] = [r.as_dict() for r in reports[-1].held_out]
    measured = evaluate(model, done.vector, held_out, processes=processes)
    facts["evaluation"] = [result.as_dict() for result in measured]

    swept = []
    layer_sweep.measured = lambda *arguments, done=layer_sweep.measured: swept.append(arguments[2]) or done(*arguments)
    *_, done = run(USUAL | {"layer": "sweep", "epochs": 1})
    facts["swept"] = [swept, list(done.vector.layers)]

    asked: list[int] = []

    def stop() -> bool:  # only the second process is asked to stop, before its 6th step
        asked.append(1)
        return processes.index == 1 and len(asked) == 6

    checkpoint = folder / f"run-{processes.index}.safetensors"  # as on two machines that share no disk
    *_, done = run(USUAL, should_stop=stop, checkpoint=checkpoint)
    facts["stopped"] = [done.stopped, done.step, checkpoint.exists()]
    first, *_, done = run(USUAL, checkpoint=checkpoint)
    facts["went on"] = [first.step, done.step, checkpoint.exists()]
    saved("usual", done.vector)

    value_and_grad, calls = PairScorer.value_and_grad, []

    def broken(self, *arguments, **options):
        calls.append(1)
        if processes.index == 1 and len(calls) == 3:
            raise RuntimeError("out of memory")
        return value_and_grad(self, *arguments, **options)

    PairScorer.value_and_grad = broken
    try:
        list(run(USUAL))
    except SteeringError as error:
        facts["failed"] = described(error)
    PairScorer.value_and_grad = value_and_grad
    facts["prepared"] = failure(
        processes, lambda: read_pairs(folder / f"{'pairs' if processes.is_main else 'none'}.csv")
    )
    facts["the same everywhere"] = failure(processes, lambda: read_pairs(folder / "nobody.csv"))
    facts["gathered"] = processes.gathered(processes.index)
    facts["shares"] = [processes.share(batch) for batch in ([0, 1, 2, 3], [0, 2, 4, 6], [1], [5, 3, 2])]
    (folder / f"facts-{processes.index}.json").write_text(json.dumps(facts))

    if processes.index == 1:  # it dies in the middle of a run; the other must not wait for it
        PairScorer.value_and_grad = lambda *arguments, **options: os.kill(os.getpid(), signal.SIGKILL)
    try:
        list(run(USUAL))
    except SteeringError as error:
        (folder / "left alone.txt").write_text(described(error))
    processes.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
