"""What the commands share: saying things to people, progress bars, tables."""

import argparse
import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

from tqdm import tqdm

from steering.errors import SteeringError


def add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", metavar="M", help="Hub id, folder or GGUF file (default: the bundled SmolLM2-135M-Instruct)"
    )
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1, ... (default: CUDA where there is one)")
    parser.add_argument("--dtype", metavar="T", help="float32, bfloat16, float16 or auto (default: float32 on the CPU)")
    parser.add_argument("--device-map", metavar="M", help="auto or balanced: spread a model too large for one device")
    parser.add_argument("--quantization", metavar="Q", help="8bit or 4bit: smaller weights, through bitsandbytes")


def model_options(options: argparse.Namespace, device: str | None = None) -> dict[str, Any]:
    """The arguments of `load_model`; `device` is where the model goes if the options do not say."""
    where = options.device or (None if options.device_map else device)
    names = ("dtype", "device_map", "quantization")
    return {"source": options.model, "device": where, **{name: getattr(options, name) for name in names}}


def say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)  # above a progress bar, if there is one


class Bar(contextlib.AbstractContextManager):
    """A progress bar for people at a terminal, from the first report on; in a log or a pipe it would only be noise."""

    def __init__(self, what: str, unit: str, *, silent: bool = False) -> None:
        self._options = {"desc": what, "unit": unit, "file": sys.stderr, "disable": silent or None}
        self._bar: tqdm | None = None

    def show(self, done: int, total: int, **figures: str) -> None:
        self._bar = self._bar or tqdm(total=total, **self._options)
        self._bar.set_postfix(figures, refresh=False)
        self._bar.update(done - self._bar.n)

    def __exit__(self, *error: object) -> None:
        if self._bar:
            self._bar.close()


def results_table(results: list[dict[str, float]]) -> str:
    rows = [
        f"{row['multiplier']:+10g}  {row['preference_accuracy']:8.2f}  {row['preference_margin']:+13.2f}"
        for row in results
    ]
    return "\n".join(["multiplier  accuracy  margin (nats)", *rows])


def column_map(text: str | None) -> dict[str, str] | None:
    """`prompt=A,chosen=B,rejected=C` as a mapping of roles to columns."""
    if not text:
        return None
    parts = [part.partition("=") for part in text.split(",")]
    if any(not equals for _, equals, _ in parts):
        raise SteeringError(f"--columns {text!r}: write it as prompt=A,chosen=B,rejected=C.")
    return {role.strip(): column.strip() for role, _, column in parts}


@contextlib.contextmanager
def ctrl_c_stops(say: Callable[[], None]) -> Iterator[Event]:
    """Within this context the first Ctrl-C calls `say` and sets the event; a second one interrupts as ever."""
    stopped = Event()

    def ask(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        stopped.set()
        say()

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)
