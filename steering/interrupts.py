"""Ctrl-C as a wish to stop in good order."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from threading import Event


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
