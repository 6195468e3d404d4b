"""Answers to many prompts in one decode batch, for measurements: all begin together and are returned when all ended."""

from collections.abc import Callable, Sequence

from steering.generation.engine.decoder import decoder_of
from steering.generation.request import Request
from steering.generation.request_queue import ActiveBatch, QueueEntry
from steering.models.loading import LanguageModel


def complete(
    model: LanguageModel,
    requests: Sequence[Request],
    *,
    weights: str = "full",
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Decode all requests as one batch, to the end; their `columns` have the answers then.

    Nobody joins later, so the same requests give the same batches, and with that the same tokens to the last bit.
    A model whose rows cannot be one batch decodes the rows of each prompt on their own.

    Args:
        requests: new ones; each takes `Request.rows` rows.
        weights: as in `generation.stream`.
        should_stop: asked before each token; once True, decoding ends with unfinished answers.

    Returns False if it was stopped. Raises what a request failed with.
    """
    decoder = decoder_of(model, weights)
    active = ActiveBatch(decoder)
    active.entries = [QueueEntry(request, lambda: False) for request in requests]
    entries = list(active.entries)
    for entry in entries:
        entry.begin(decoder, None)
    while active.entries:
        if should_stop():
            return False
        if any(entry.to_prefill for entry in active.entries):
            active.prefill()
        else:
            active.step()
        for entry in entries:
            while not entry.events.empty():
                event = entry.events.get()
                if isinstance(event, Exception):
                    raise event
    return True
