"""Continuous batching: rows of several prompts decoded together; they join after the prefill and leave when they end.

Where rows of different lengths can be one batch (`supports_ragged_batch`), one pass decodes all of them; elsewhere the
rows of each prompt are decoded by a pass of their own.
"""

from typing import Any

import torch
from torch import Tensor

from steering.generation.prompt_batch import PromptBatch


class RowGroup:
    """Rows decoded in one pass.

    Args:
        engine: the engine that runs them.

    Attributes:
        members: the batches whose rows these are, in order.
    """

    def __init__(self, engine: Any) -> None:
        self._engine, self._cache = engine, engine.new_cache()
        self.members: list[PromptBatch] = []
        self._additions: dict[int, Tensor] = {}  # layer -> [rows, hidden_size]

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
        """Of the members named, keep the rows at these places only; a member without rows leaves."""
        rows, start = [], 0
        for batch in self.members:
            count = len(batch.rows)
            continuing = places.get(batch, list(range(count)))
            if self._engine.uses_prefix_cache and batch.prefix_cache is not None:
                for place in set(range(count)).difference(continuing):
                    batch.store_prefix(place, self._cache.keys_values(start + place))
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
            self._additions[layer] = torch.cat(
                [
                    part[layer] if layer in part else some.new_zeros(len(batch.rows), some.shape[1])
                    for batch, part in zip(self.members, parts, strict=True)
                ]
            )


class ActiveRows:
    """All rows that are being decoded, of any number of prompts, in as few passes as the engine allows.

    When the decoder has gone back to its plain engine, here or for others, the rows go on there from their tokens.

    Args:
        decoder: runs them.
    """

    def __init__(self, decoder: Any) -> None:
        self._decoder, self._engine = decoder, decoder.engine
        self._groups: list[RowGroup] = []

    @property
    def members(self) -> list[PromptBatch]:
        """The batches whose rows these are, in the order of `logits`."""
        return [batch for group in self._groups for batch in group.members]

    def add_prefilled(self, batch: PromptBatch, chosen: Tensor, continuing: list[int]) -> None:
        """Take in a batch after its prefill, with its rows' first tokens; keep the rows at the places `continuing`."""
        batch.append(chosen)
        if not continuing:
            batch.keep_rows([])
            return
        self.join(batch)
        self._keep_rows({batch: continuing})

    def join(self, batch: PromptBatch) -> None:
        """Take in a batch whose cache holds all but the last of its tokens; the cache moves here."""
        self._follow_decoder()
        if batch.engine is not self._engine:
            self._engine.prefill_again(batch)
        if not self._groups or not self._decoder.supports_ragged_batch():
            self._groups.append(RowGroup(self._engine))
        self._groups[-1].join(batch)

    def logits(self) -> list[Tensor]:
        """Run one decode step; for each member float32 [its rows, vocabulary] for the next token."""

        def step(_: Any) -> list[Tensor]:
            self._follow_decoder()
            return [logits for group in self._groups for logits in group.logits()]

        return self._decoder.run(step)

    def append(self, chosen: list[Tensor], continuing: list[list[int]]) -> None:
        """For each member: append its rows' tokens, keep only the rows at these places; one without any leaves."""
        members = self.members
        for batch, tokens in zip(members, chosen, strict=True):
            batch.append(tokens)
        self._keep_rows(dict(zip(members, continuing, strict=True)))

    def leave(self, batch: PromptBatch) -> None:
        """Drop a batch's rows, if it is a member."""
        if batch in self.members:
            self._keep_rows({batch: []})

    def _keep_rows(self, places: dict[PromptBatch, list[int]]) -> None:
        for group in self._groups:
            group.keep_rows(places)
        self._groups = [group for group in self._groups if group.members]

    def _follow_decoder(self) -> None:
        """Move all rows to the decoder's engine, if that is another one now."""
        if self._engine is self._decoder.engine:
            return
        members, self._groups, self._engine = self.members, [], self._decoder.engine
        for batch in members:
            self.join(batch)
