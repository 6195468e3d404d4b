"""A ZeroGPU Space in one process, but for the GPU: the `spaces` package forks real workers, CUDA is stubbed.

Run by test_workers.py, in a process of its own since `spaces` changes much of what it is loaded into. Prints JSON.
"""

import json
import os
import sys
import tempfile
import threading
import types
from pathlib import Path
from typing import Any

os.environ["SPACES_ZERO_GPU"] = "true"
os.environ["SPACES_ZERO_DEVICE_API_URL"] = "http://127.0.0.1:9"

stub = types.ModuleType("spaces.zero.torch")
for name in ("patch", "unpatch", "init", "move", "enter_mode"):
    setattr(stub, name, lambda *arguments, **options: None)
stub.pack = stub.size = lambda *arguments: 0  # type: ignore[attr-defined]
stub.is_in_bad_fork = lambda: False  # type: ignore[attr-defined]
sys.modules["spaces.zero.torch"] = stub

import spaces  # noqa: E402, F401 - before torch, as app.py has it
from spaces.zero import client  # noqa: E402

asked: list[tuple[str, float]] = []
FORKS = types.SimpleNamespace(allowToken="token", nvidiaIndex=0, nvidiaUUID="GPU-0", idle=True)


def schedule(task_id: int, request: Any, duration: Any, gpu_size: Any) -> types.SimpleNamespace:
    asked.append((str(task_id), duration.total_seconds()))
    return FORKS


client.schedule, client.allow = schedule, lambda token: None
client.release = lambda *arguments, **options: None

import torch  # noqa: E402

from steering.errors import SteeringError  # noqa: E402
from steering.generation.next_token import Preview  # noqa: E402
from steering.generation.stream import generate  # noqa: E402
from steering.interface.app_state import AppState  # noqa: E402
from steering.interface.zero_gpu import workers  # noqa: E402
from steering.interface.zero_gpu.page import ZeroGpu  # noqa: E402
from steering.limits import Limits  # noqa: E402
from steering.pairs.dataset import Pairs, PreferencePair  # noqa: E402
from steering.training import pipeline  # noqa: E402
from steering.vectors.library import Library  # noqa: E402
from steering.vectors.vector import SteeringVector  # noqa: E402
from tests.tiny_models import tiny_model  # noqa: E402


def in_a_thread(work: Any) -> Any:
    """Do the work as gradio's handlers do: in a thread that is not the main one."""
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(work()))
    thread.start()
    thread.join(120)
    return result[0]


def last_of(shots: Any) -> list[str]:
    *_, last = (shot for shot in shots if not isinstance(shot, int))
    return [column.text for column in last]


def main() -> None:
    torch.set_num_threads(2)
    model = tiny_model()
    pairs = Pairs.of(PreferencePair(f"Take {n}?", f"Yes, all of {n}", "No, thanks", line=n + 1) for n in range(12))
    training, held_out = pairs.split(0.2, 0)
    vector = SteeringVector({1: torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(0))}, name="v")
    columns = [{}, {vector: 1.5}]
    own = AppState(model, Library(Path(tempfile.mkdtemp()), Path(tempfile.mkdtemp())))
    # The page has answered, with threads, before anything is forked.
    before = last_of(own.decode_server("float16").stream("Hello", columns, max_new_tokens=8))
    expected = [column.text for column in generate(model, "Hello", columns, max_new_tokens=8)]
    forecast = Preview(model).next_token("Hello", columns[1], top=3)

    app = AppState(model, own.visitors, gpu=ZeroGpu(model, writes=True, device="cpu"))
    result: dict[str, Any] = {"pid": os.getpid(), "before": before, "expected": expected}
    server = app.decode_server("float16")
    result["generated"] = in_a_thread(lambda: last_of(server.stream("Hello", columns, max_new_tokens=8)))
    again = in_a_thread(lambda: last_of(server.stream("Hello", columns, max_new_tokens=8)))
    result["again"] = again
    result["settings_are_ours"] = [
        list(column.setting) == list(setting)
        for column, setting in zip(list(server.stream("Hello", columns, max_new_tokens=4))[-1], columns, strict=True)
    ]
    preview = in_a_thread(lambda: app.preview("float16").next_token("Hello", columns[1], top=3))
    result["preview"] = [[chance.text for chance in each.steered] + [round(each.kl, 5)] for each in (forecast, preview)]
    saved: list[SteeringVector] = []
    settings = {"epochs": 1, "layer": 1, "seed": 0}

    def train(**options: Any) -> list[Any]:
        return list(
            app.run_training(model, training, held_out, "bipo", name="w", save=saved.append, **settings | options)
        )

    reports = in_a_thread(train)
    result["stages"] = sorted({report.stage for report in reports})
    (here,) = [
        r.vector for r in pipeline.run(model, training, held_out, "bipo", name="w", **settings) if r.stage == "done"
    ]
    result["same_vector"] = torch.allclose(saved[-1].directions[1], here.directions[1], rtol=1e-4, atol=1e-6)
    result["saved"] = [len(saved), saved[-1].name, len(saved[-1].metrics["held_out"])]

    steps: list[int] = []
    stopped = in_a_thread(
        lambda: [
            steps.append(report.step) or report.stopped
            for report in app.run_training(
                model, training, held_out, "bipo", should_stop=lambda: len(steps) > 2, **settings | {"epochs": 1000}
            )
        ]
    )
    result["stopped"] = stopped[-1]
    closed = app.run_training(model, training, held_out, "bipo", **settings | {"epochs": 1000})
    next(closed), next(closed)
    closed.close()
    try:
        train(layer=99)
    except SteeringError as error:
        result["failure"] = str(error)
    try:
        list(server.stream("", [{}]))
    except SteeringError as error:
        result["empty"] = str(error)
    drafts = in_a_thread(lambda: list(app.gpu.draft("cheerful", count=1, limits=Limits(training_seconds=20))))
    result["draft"] = drafts[-1].done
    result["seconds_asked"] = sorted({seconds for _, seconds in asked})
    result["decorated"] = all(
        hasattr(each, "zerogpu") for each in (workers.generate, workers.preview, workers.train, workers.draft)
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
