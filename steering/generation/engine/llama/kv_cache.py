"""Keys and values of rows that are decoded together by the Llama decode step."""

from collections.abc import Sequence

import torch
from torch import Tensor

from steering.generation.engine.llama.decode_step import decode_step
from steering.generation.engine.llama.model import LlamaModel
from steering.generation.prompt_batch import PromptBatch
from steering.intervention.additions import Additions

GROWTH = 128
"""Positions by which the cache grows: copying it once in 128 steps takes under 1 % of them."""
SPARE_ROWS = 4
"""Rows that it makes or leaves room for, so that not every row that joins or leaves moves all others."""


class RowsKVCache:
    """Keys and values of rows whose positions all end at the same place, so that a step writes them in one copy.

    Args:
        model: decodes the rows; None for a cache that is only filled.
        growth: positions by which it grows.

    Attributes:
        starts: where each row's positions begin; `end`: where they all end.
    """

    def __init__(self, model: LlamaModel | None, growth: int = GROWTH) -> None:
        self._model, self._growth = model, growth
        self.starts: list[int] = []
        self.end = 0
        self._cached = torch.empty(0)  # [layers, 2, rows, kv_heads, positions, head_dim], rows and positions to spare

    def __len__(self) -> int:
        return len(self.starts)

    def join(self, batch: PromptBatch) -> None:
        """Take over the cache of a prefilled batch, whose last token is not in it yet."""
        cache, batch.cache = batch.cache, None
        self.add_rows(cache)

    @torch.inference_mode()
    def add_rows(self, keys_values: Sequence[Tensor]) -> None:
        """Append rows: for each layer [2, rows, kv_heads, positions, head_dim]."""
        _, joining, heads, length, size = keys_values[0].shape
        rows = len(self)
        if not rows:
            self._cached, self.end = keys_values[0].new_empty(len(keys_values), 2, 0, heads, 0, size), 0
        if rows + joining > self._cached.shape[2] or length > self.end:
            self._reallocate(rows + joining + (SPARE_ROWS if rows else 0), length)
        new = self._cached[:, :, rows : rows + joining]
        new[..., : self.end - length, :] = 0  # what a mask hides must be finite, too
        for layer, joined in zip(new, keys_values, strict=True):
            layer[..., self.end - length : self.end, :] = joined
        self.starts += [self.end - length] * joining

    @torch.inference_mode()
    def keep_rows(self, rows: list[int]) -> None:
        """Drop all other rows; `rows` are in ascending order."""
        for place, row in enumerate(rows):
            if place != row:
                self._cached[:, :, place, :, : self.end] = self._cached[:, :, row, :, : self.end]
        self.starts = [self.starts[row] for row in rows]
        if len(rows) + SPARE_ROWS < self._cached.shape[2]:
            self._reallocate(len(rows))

    def keys_values(self, row: int) -> Tensor:
        """Return a row's keys and values, [layers, 2, kv_heads, positions, head_dim]; a view."""
        return self._cached[:, :, row, :, self.starts[row] : self.end]

    @torch.inference_mode()
    def step(self, members: Sequence[PromptBatch], additions: Additions) -> Tensor:
        """Run every row's last token: float32 [rows, vocabulary] for the next.

        Args:
            members: the batches that have joined, in order.
            additions: layer -> float32 [rows, hidden_size].
        """
        assert self._model is not None
        if self.end == self._cached.shape[-2]:
            self._reallocate(self._cached.shape[2])
        tokens = torch.cat([batch.tokens[:, -1] for batch in members])
        cached, starts = self._cached[:, :, : len(self)], torch.tensor(self.starts)
        first = min(self.starts)
        logits = decode_step(self._model, tokens, cached[..., first : self.end + 1, :], starts - first, additions)
        self.end += 1
        return logits

    def _reallocate(self, capacity: int, length: int = 0) -> None:
        """Move the rows into a cache for `capacity` rows of at least `length` positions, with positions to grow."""
        first = min(self.starts, default=self.end)
        own = self.end - first
        end = max(own, length)
        layers, both, _, heads, _, size = self._cached.shape
        cached = self._cached.new_empty(layers, both, capacity, heads, end + self._growth, size)
        rows = len(self)
        cached[:, :, :rows, :, : end - own] = 0  # what a mask hides must be finite, too
        cached[:, :, :rows, :, end - own : end] = self._cached[:, :, :rows, :, first : self.end]
        self.starts = [start - self.end + end for start in self.starts]
        self._cached, self.end = cached, end
