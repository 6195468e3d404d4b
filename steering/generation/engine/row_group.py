"""Rows of one or several prompts that are decoded in one pass: they join after the prefill and leave when they end."""

import torch
from torch import Tensor

from steering.generation.engine.protocol import DecodingEngine
from steering.generation.prompt_batch import PromptBatch
from steering.intervention.additions import stacked


class RowGroup:
    """Rows that an engine decodes in one pass.

    Attributes:
        members: the batches whose rows these are, in order.
    """

    def __init__(self, engine: DecodingEngine) -> None:
        self._cache = engine.new_cache()
        self.members: list[PromptBatch] = []
        self._additions: dict[int, Tensor] = {}  # layer -> [rows, width], see `Additions`

    @torch.inference_mode()
    def join(self, batch: PromptBatch) -> None:
        """Take in a batch whose cache holds all but the last of its tokens; the cache moves here."""
        self._cache.join(batch)
        self.members.append(batch)
        self._collect_additions()

    @torch.inference_mode()
    def logits(self) -> list[Tensor]:
        """Run one decode step; for each member float32 [its rows, vocabulary] for the next token."""
        logits = self._cache.step(self.members, self._additions)
        return list(logits.split([len(batch.rows) for batch in self.members]))

    @torch.inference_mode()
    def keep_rows(self, places: dict[PromptBatch, list[int]]) -> None:
        """Keep only the rows at these places of the members named; a member without rows leaves."""
        rows: list[int] = []
        start = 0
        for batch in self.members:
            count = len(batch.rows)
            continuing = places.get(batch, list(range(count)))
            for place in set(range(count)).difference(continuing):
                keys_values = self._cache.keys_values(start + place)
                if keys_values is not None:
                    batch.store_prefix(place, keys_values)
            rows += [start + place for place in continuing]
            start += count
            if len(continuing) < count:
                batch.keep_rows(continuing)
        if len(rows) == start:
            return
        self.members = [batch for batch in self.members if batch.rows]
        if rows:
            self._cache.keep_rows(rows)
            self._collect_additions()

    def _collect_additions(self) -> None:
        parts = [batch.step_additions() for batch in self.members]
        self._additions = {}
        for layer in sorted({layer for part in parts for layer in part}):
            some = next(part[layer] for part in parts if layer in part)
            self._additions[layer] = stacked(
                [
                    part[layer] if layer in part else some.new_zeros(len(batch.rows), some.shape[1])
                    for batch, part in zip(self.members, parts, strict=True)
                ]
            )
