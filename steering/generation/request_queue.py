"""Requests on their way through the decode server: waiting, prefilling, decoding, finished."""

import logging
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from queue import SimpleQueue

from torch import Tensor

from steering.generation.engine.batching import ActiveRows
from steering.generation.engine.decoder import Decoder
from steering.generation.engine.prefix_cache import PrefixCache
from steering.generation.prompt_batch import PromptBatch
from steering.generation.request import Request
from steering.generation.results import Column

logger = logging.getLogger(__name__)


Event = list[Column] | int | Exception | None
"""What a visitor gets: the columns, a place in the queue, an error, None for the end."""


class Status(Enum):
    """In the queue, its prompts being read, its answers being written, over."""

    WAITING = auto()
    PREFILLING = auto()
    DECODING = auto()
    FINISHED = auto()


class QueueEntry:
    """One request on its way through the server.

    Args:
        should_stop: says whether the visitor wants no more; called by the decoding thread.

    Attributes:
        status: set by the decoding thread; `abandoned`: set by the visitor's, when the visitor has left.
        events: for the visitor.
        batches: its rows; `to_prefill`: those whose prompts are still to be read.
    """

    def __init__(self, request: Request, should_stop: Callable[[], bool]) -> None:
        self.request, self.status, self.abandoned = request, Status.WAITING, False
        self.events: SimpleQueue[Event] = SimpleQueue()
        self.batches: list[PromptBatch] = []
        self.to_prefill: deque[PromptBatch] = deque()
        self._prompt_logits: list[Tensor] = []
        self._should_stop, self._place = should_stop, -1

    @property
    def rows(self) -> int:
        """How many rows it takes up, or will."""
        return sum(len(batch.rows) for batch in self.batches) if self.batches else self.request.rows

    def tell_place(self, place: int) -> None:
        """Tell the visitor the place in the queue, if it is another one now."""
        if place != self._place:
            self._place = place
            self.events.put(place)

    def tell_columns(self) -> None:
        """Tell the visitor the columns as they are now."""
        self.events.put(list(self.request.columns))

    def end(self, error: Exception | None = None) -> None:
        """Tell the visitor that this is the end, or which error it is."""
        self.status = Status.FINISHED
        self.events.put(error)

    def is_over(self) -> bool:
        """Tell whether nobody wants more of it; asks `should_stop`, and ends it if that says so or raises."""
        if not self.abandoned and self.status is not Status.FINISHED:
            try:
                if self._should_stop():
                    self.end()
            except Exception as error:  # noqa: BLE001 - of the caller's own function: the caller gets it
                self.end(error)
        return self.abandoned or self.status is Status.FINISHED

    def begin(self, decoder: Decoder, prefix_cache: PrefixCache | None) -> None:
        """Make the rows, to be prefilled."""
        self.request.start_clock()
        self.batches = self.request.prompt_batches(decoder, prefix_cache)
        self.to_prefill.extend(self.batches)
        self.status = Status.PREFILLING

    def restore_prompts(self, decoder: Decoder) -> bool:
        """Restore the KV caches of all prompts from the prefix cache; return False if one is not there."""
        if self._prompt_logits or self.status is not Status.PREFILLING:
            return False
        if not all(decoder.engine.restore(batch) for batch in self.batches):
            return False
        self.to_prefill.clear()
        self.status = Status.DECODING
        return True

    def take_prompt_logits(self, logits: Tensor, rows: ActiveRows) -> None:
        """Take in the logits of its next prompt; after the last one choose the first tokens, and add to `rows`."""
        self.to_prefill.popleft()
        self._prompt_logits.append(logits)
        if self.to_prefill:
            return
        chosen = self.request.choose_tokens(self.batches, self._prompt_logits)
        self._prompt_logits.clear()
        for batch, tokens, continuing in zip(self.batches, *chosen, strict=True):
            rows.add_prefilled(batch, tokens, continuing)
        self.status = Status.DECODING
        self.tell_columns()


class ActiveBatch:
    """The requests that are being served.

    Attributes:
        entries: the requests; `rows`: those of their rows that are being decoded.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder, self.rows = decoder, ActiveRows(decoder)
        self.entries: list[QueueEntry] = []

    def remove(self, entry: QueueEntry) -> None:
        """Stop serving a request; its rows leave."""
        self.entries.remove(entry)
        for batch in entry.batches:
            self.rows.leave(batch)

    def prefill(self) -> None:
        """Prefill the next prompt. An error in it reaches only the request whose prompt it is."""
        entry = next((entry for entry in self.entries if entry.to_prefill), None)
        if entry is None:
            return
        batch = entry.to_prefill[0]
        try:
            entry.take_prompt_logits(self._decoder.run(lambda engine: engine.prefill(batch)), self.rows)
        except Exception as error:  # of the model
            logger.warning("a request failed in its prefill", exc_info=error)
            entry.end(error)
            self.remove(entry)
        self._remove_finished()

    def step(self) -> None:
        """Decode one more token in every row and tell the visitors."""
        if not self.rows.members:
            return

        logits = dict(zip(self.rows.members, self.rows.logits(), strict=True))
        results: dict[PromptBatch, tuple[Tensor, list[int]]] = {}
        for entry in self.entries:
            batches = [batch for batch in entry.batches if batch in logits]
            if batches:
                chosen = entry.request.choose_tokens(batches, [logits[batch] for batch in batches])
                results.update(zip(batches, zip(*chosen, strict=True), strict=True))
        tokens, continuing = zip(*(results[batch] for batch in self.rows.members), strict=True)
        self.rows.append(list(tokens), list(continuing))
        for entry in self.entries:
            if entry.status is Status.DECODING:
                entry.tell_columns()
        self._remove_finished()

    def _remove_finished(self) -> None:
        """End requests all of whose rows have finished."""
        for entry in list(self.entries):
            if entry.status is Status.DECODING and not any(batch.rows for batch in entry.batches):
                self.entries.remove(entry)
                entry.end()
