"""One training at a time: who trains, who waits, at which place and for about how long."""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Self

from steering.errors import SteeringError
from steering.interface.html import duration, roughly
from steering.limits import NO_LIMITS, LimitExceeded, Limits
from steering.training.progress import Progress

POLL_SECONDS = 0.5
"""How often one who waits looks whether the turn has come, and is told how far it is."""
REMEMBERED = 5
"""Latest trainings whose mean length predicts the next ones'."""


@dataclass(frozen=True)
class TrainingStatus:
    """How far the running training is; all zero before its first step.

    Attributes:
        step, total_steps: steps taken, and in all.
        seconds_left: estimated to the end; None while nothing is known.
    """

    step: int = 0
    total_steps: int = 0
    seconds_left: float | None = None

    @classmethod
    def of(cls, progress: Progress) -> Self:
        """Take the figures from a report of the training."""
        return cls(progress.step, progress.total_steps, progress.seconds_left)

    def words(self) -> str:
        """Say it as `step 3 of 24, about 40 s left`, or `just begun`."""
        if not self.step:
            return "just begun"
        left = "" if self.seconds_left is None else f", about {duration(self.seconds_left)} left"
        return f"step {self.step} of {self.total_steps}{left}"


@dataclass(frozen=True)
class Place:
    """Where somebody who waits stands.

    Attributes:
        place: 1 for the next one.
        seconds: until the turn comes, about; None while it is not known.
        running: how far the running training is; empty where something else, such as a measurement, holds the machine.
    """

    place: int
    seconds: float | None
    running: str

    def words(self) -> str:
        """Say it in a sentence or two."""
        if not self.running:
            return "A moment: the speed of this machine is being measured."
        if self.place == 1:
            return f"Another training is running ({self.running}). Yours starts by itself when it ends."
        when = "" if self.seconds is None else f", in about {roughly(self.seconds)}"
        return (
            f"Another training is running ({self.running}); you are number {self.place} in the queue. "
            f"Yours starts by itself{when}."
        )


class NobodyWaits(SteeringError):
    """Whoever waited for a turn does not want it any more."""


class TrainingQueue:
    """Lets one training work at a time, of the page and of the API, in the order in which they came.

    Args:
        limits: how many may wait, and how many one visitor may have.

    Attributes:
        status: how far the running training is; None where none runs.
    """

    def __init__(self, limits: Limits = NO_LIMITS) -> None:
        self.limits = limits
        self.status: TrainingStatus | None = None
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()  # those who may be next, in order
        self._visitor_of: dict[object, str] = {}  # of those who wait, and of the one who works
        self._busy = False
        self._lengths: deque[float] = deque(maxlen=REMEMBERED)

    @property
    def how_far(self) -> str:
        """`status` as the end of a sentence, such as ` (step 3 of 24)`; empty where no training runs."""
        return f" ({self.status.words()})" if self.status else ""

    @property
    def is_busy(self) -> bool:
        """Whether a training, or other work, holds the machine."""
        return self._busy

    def turn(self, visitor: str, over: Callable[[], bool] = lambda: False) -> Generator[Place, None, None]:
        """Wait for the turn of a visitor's training, and hold it until the generator is closed.

        Yields a place while others come first, at least every `POLL_SECONDS`, then place 0: whoever is given that
        trains, sets `status`, and closes the generator when it is done.

        Raises LimitExceeded if too many wait already, NobodyWaits if `over` says that the turn is not wanted any more.
        """
        me, began = object(), 0.0
        self._join(me, visitor)
        try:
            while not self._take(me, POLL_SECONDS):
                if over():
                    raise NobodyWaits("Stopped before the training began.")
                yield self._place(me)
            began = time.monotonic()
            self.status = TrainingStatus()
            yield Place(0, 0.0, "")
        finally:
            self._leave(me)
            if began:
                self._lengths.append(time.monotonic() - began)
                self.status = None
                self.release()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the machine for work that is no visitor's training, as `threading.Lock.acquire` does."""
        me = object()
        with self._changed:
            self._waiting.append(me)
        try:
            return self._take(me, 0 if not blocking else None if timeout < 0 else timeout)
        finally:
            self._leave(me)

    def release(self) -> None:
        """Give the machine back after `acquire`."""
        with self._changed:
            self._busy = False
            self._changed.notify_all()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _join(self, me: object, visitor: str) -> None:
        most, most_own = self.limits.trainings_waiting, self.limits.visitor_trainings

        def may_wait() -> bool:
            own = sum(self._visitor_of.get(each) == visitor for each in self._waiting)
            return most_own is None or own < most_own

        with self._changed:
            # One that was superseded by this one leaves at its next look.
            if not self._changed.wait_for(may_wait, 3 * POLL_SECONDS):
                raise LimitExceeded("A training of yours is waiting already; stop it or let it end first.")
            if most is not None and len(self._waiting) >= most:
                raise LimitExceeded(f"{len(self._waiting)} trainings are waiting already; try again in a few minutes.")
            self._waiting.append(me)
            self._visitor_of[me] = visitor

    def _take(self, me: object, seconds: float | None) -> bool:
        """Wait for the machine; return whether it was given, which leaves the queue."""
        with self._changed:
            mine = lambda: not self._busy and self._waiting[0] is me  # noqa: E731
            if not self._changed.wait_for(mine, seconds):
                return False
            self._busy = True
            self._waiting.popleft()
            return True

    def _leave(self, me: object) -> None:
        with self._changed:
            self._visitor_of.pop(me, None)
            if me in self._waiting:
                self._waiting.remove(me)
            self._changed.notify_all()

    def _place(self, me: object) -> Place:
        with self._changed:
            place = self._waiting.index(me) + 1
            status = self.status
        left = status.seconds_left if status else None
        each = sum(self._lengths) / len(self._lengths) if self._lengths else None
        before = 0.0 if place == 1 else None if each is None else each * (place - 1)
        seconds = None if left is None or before is None else left + before
        return Place(place, seconds, status.words() if status else "")
