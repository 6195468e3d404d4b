"""Many visitors on one model: their requests join one running decode batch and leave it, whatever the others do.

One thread decodes. In turn it prefills one waiting prompt and runs a decode step for all active rows, so that nobody
whose answer is being written stands still for long and nobody who waits is passed by. A model whose rows cannot be one
batch (see `engine.batching`) serves one request after another.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from steering.errors import SteeringError
from steering.generation.engine.decoder import decoder_of
from steering.generation.engine.prefix_cache import PrefixCache
from steering.generation.request import Request
from steering.generation.request_queue import ActiveBatch, QueueEntry
from steering.generation.results import Column
from steering.generation.sampling import Sampling
from steering.intervention.additions import Setting
from steering.limits import NO_LIMITS, Limits
from steering.models.chat_template import DEFAULT_SYSTEM_PROMPT, Conversation
from steering.models.loading import LanguageModel

logger = logging.getLogger(__name__)

IDLE_SECONDS = 5.0
"""After which the decoding thread ends: longer than a visitor takes from one answer to the next click."""


class DecodeServer:
    """Decodes requests of any number of visitors together.

    Args:
        model: the model; `weights` as in `generation.stream`.
        max_rows: most rows decoded at a time, over all requests; a request with more of its own runs alone.
        max_waiting: most requests that may wait for their turn.
        idle_seconds: without a request after which the decoding thread ends.
        limits: what one request may ask for.

    Attributes:
        prefix_cache: keys and values of earlier requests that need not be computed again.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        weights: str = "full",
        max_rows: int = 32,
        max_waiting: int = 32,
        idle_seconds: float = IDLE_SECONDS,
        limits: Limits = NO_LIMITS,
    ) -> None:
        self.model, self.max_rows, self.max_waiting = model, max_rows, max_waiting
        self.idle_seconds, self.limits = idle_seconds, limits
        self.prefix_cache = PrefixCache()
        self._decoder = decoder_of(model, weights)
        self._waiting: deque[QueueEntry] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        if not self.decodes_together:
            logger.info("%s: requests are served one after another", model.name)

    @property
    def decodes_together(self) -> bool:
        """Whether requests are decoded in one batch; False serves one after another."""
        return self._decoder.supports_ragged_batch()

    @property
    def is_running(self) -> bool:
        """Whether the decoding thread runs; it ends `idle_seconds` after the last request."""
        return self._thread is not None

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return sum(not entry.abandoned for entry in list(self._waiting))

    def stream(
        self,
        prompt: str,
        columns: Sequence[Setting] = ({},),
        *,
        should_stop: Callable[[], bool] = lambda: False,
        sampling: Sampling | None = None,
        system: str = DEFAULT_SYSTEM_PROMPT,
        before: Conversation = (),
        histories: Sequence[Conversation] | None = None,
        trace: bool = False,
        **sampling_options: Any,
    ) -> Iterator[list[Column] | int]:
        """As `generation.stream`: yield all columns after each token; bad input raises SteeringError at once.

        The request queues up when the first item is asked for, which raises SteeringError if the queue is full. While
        it waits its place in the queue is yielded, 1 for the next, whenever it changes; 0 when it is served.
        Closing the generator, or `should_stop` (called by the decoding thread), frees its rows within one token.
        """
        request = Request(
            self.model,
            prompt,
            columns,
            system=system,
            before=before,
            histories=histories,
            sampling=sampling or Sampling(**sampling_options),
            trace=trace,
            limits=self.limits,
        )
        return self._events_of(QueueEntry(request, should_stop))

    def _events_of(self, entry: QueueEntry) -> Iterator[list[Column] | int]:
        self._enqueue(entry)
        try:
            while (event := entry.events.get()) is not None:
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            entry.abandoned = True
            with self._changed:
                self._changed.notify()

    def _enqueue(self, entry: QueueEntry) -> None:
        with self._changed:
            if self.waiting >= self.max_waiting:
                raise SteeringError(f"{self.waiting} requests are waiting already; try again in a minute.")
            entry.tell_place(self.waiting + 1)
            self._waiting.append(entry)
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="steering-decode", daemon=True)
                self._thread.start()

    def _serve(self) -> None:
        """Decode until there has been nothing to do for a while."""
        active = ActiveBatch(self._decoder)
        while True:
            with self._changed:
                if not active.entries and not self._changed.wait_for(lambda: self._waiting, self.idle_seconds):
                    self._thread = None
                    return
            try:
                self._turn(active)
            except Exception as error:  # of the model: all who shared the step get it
                logger.warning("a decode step failed for %d requests", len(active.entries), exc_info=error)
                for entry in active.entries:
                    entry.end(error)
                active = ActiveBatch(self._decoder)

    def _turn(self, active: ActiveBatch) -> None:
        """Remove who has left, admit who is next, prefill a prompt, decode one more token in every row."""
        for entry in [entry for entry in active.entries if entry.is_over()]:
            active.remove(entry)
        while (admitted := self._admit(active)) is not None:
            active.entries.append(admitted)
            admitted.begin(self._decoder, self.prefix_cache)
        for entry in active.entries:
            if entry.restore_prompts(self._decoder):
                for batch in entry.batches:
                    active.rows.join(batch)
        active.prefill()  # one prompt a turn: the others have a token decoded in between
        active.step()

    def _admit(self, active: ActiveBatch) -> QueueEntry | None:
        """Take the next request out of the queue, if there is room for its rows."""
        with self._changed:
            over = [each for each in self._waiting if each.is_over()]
            self._waiting = deque(each for each in self._waiting if each not in over)
            used = sum(each.rows for each in active.entries)
            room = self.max_rows - used if self.decodes_together else 0
            fits = self._waiting and (not active.entries or self._waiting[0].rows <= room)
            entry = self._waiting.popleft() if fits else None
            for place, other in enumerate(self._waiting, 1):
                other.tell_place(place)
        if entry is not None:
            entry.tell_place(0)
        return entry
