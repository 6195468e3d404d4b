"""What the commands tell people, all of it on stderr: sentences, progress bars, log lines; and tables on stdout."""

import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from threading import Event
from typing import Any

from tqdm import tqdm


def say(text: str) -> None:
    """Write a line to stderr; above a progress bar, if there is one."""
    tqdm.write(text, file=sys.stderr)


class Bar(contextlib.AbstractContextManager):
    """A progress bar for people at a terminal, from the first report on; in a log or a pipe it would only be noise."""

    def __init__(self, what: str, unit: str, *, silent: bool = False) -> None:
        self._options = {"desc": what, "unit": unit, "file": sys.stderr, "disable": silent or None}
        self._bar: tqdm | None = None

    def show(self, done: int, total: int | None, **figures: str) -> None:
        """Move the bar to `done` of `total` (None: not known), with the figures beside it."""
        if self._bar is None:
            self._bar = tqdm(total=total, **self._options)
        self._bar.total = total  # the first report may not know it yet
        self._bar.set_postfix(figures, refresh=False)
        self._bar.update(done - self._bar.n)

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()


DEPRECATIONS = ("transformers.utils.generic",)
"""Loggers through which transformers tells programmers of renamed arguments, such as `past_key_values`. The versions
that this package supports need the older name, so a user at a terminal can do nothing about it."""


def _no_deprecation(record: logging.LogRecord) -> bool:
    return "deprecated" not in record.getMessage()


class _Lines(logging.Handler):
    """Log records as lines on stderr; a warning in one line unless everything is wanted."""

    def __init__(self, verbose: bool) -> None:
        super().__init__()
        self._verbose = verbose

    def emit(self, record: logging.LogRecord) -> None:
        if self._verbose:
            say(self.format(record))
        else:
            say(f"{record.levelname.lower()}: {' '.join(record.getMessage().split())}")


@contextlib.contextmanager
def logging_to_stderr(verbose: bool = False) -> Iterator[None]:
    """Within this context show the package's log: warnings in one line each, or, verbose, all from INFO upwards.

    What transformers logs stays as it is, but for deprecations, which only a verbose command shows.
    """
    package = logging.getLogger("steering")
    handler, level = _Lines(verbose), package.level
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    package.addHandler(handler)
    package.setLevel(logging.INFO if verbose else logging.WARNING)
    theirs = [] if verbose else [logging.getLogger(name) for name in DEPRECATIONS]
    for logger in theirs:
        logger.addFilter(_no_deprecation)
    try:
        yield
    finally:
        for logger in theirs:
            logger.removeFilter(_no_deprecation)
        package.removeHandler(handler)
        package.setLevel(level)


def results_table(results: list[dict[str, Any]]) -> str:
    """Lay out results on pairs, a multiplier a line, each figure with its 95 % interval."""
    rows = [
        f"{row['multiplier']:+10g}  {row['preference_accuracy']:8.2f} {_interval(row['accuracy_interval'], '.2f'):14}"
        f"  {row['preference_margin']:+13.2f} {_interval(row['margin_interval'], '+.2f')}"
        for row in results
    ]
    count = f"{results[0]['pairs']} pairs, in brackets the 95 % interval"
    return "\n".join([count, "multiplier  accuracy                 margin (nats)", *rows])


def _interval(ends: Sequence[float], spec: str) -> str:
    return f"[{ends[0]:{spec}}, {ends[1]:{spec}}]"


@contextlib.contextmanager
def ctrl_c_stops(on_stop: Callable[[], None]) -> Iterator[Event]:
    """Within this context the first Ctrl-C calls `on_stop` and sets the event; a second one interrupts as ever."""
    stopped = Event()

    def ask(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        stopped.set()
        on_stop()

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)
