"""Rows that answer one prompt, each under its own setting: their tokens, additions and, until they join, KV cache."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from steering.generation.engine.prefix_cache import PrefixCache
from steering.intervention.additions import Additions, placed
from steering.intervention.operators import joined


class PromptBatch:
    """Rows that answer one prompt. A row that has ended leaves.

    Args:
        ids: the prompt's tokens.
        additions: token scope (`all`, `answer`) -> layer -> float32 [rows, width], see `Additions`.
        rows: the request's numbers for the rows.
        device: where the tokens are to lie.
        prefix_cache: what need not be prefilled again; only the Llama engine looks at it.

    Attributes:
        rows: numbers of the rows still decoded, in order.
        tokens: int64 [rows, positions], prompt and answers so far.
        prompt_length: how many of the positions are the prompt's.
        cache: the prompt's keys and values in the form of the engine that prefilled it; None before the prefill, after
            the rows have joined others, and for a model without a cache.
        engine: the engine that prefilled it.
    """

    def __init__(
        self,
        ids: Sequence[int],
        additions: dict[str, Additions],
        rows: Sequence[int],
        device: torch.device,
        prefix_cache: PrefixCache | None = None,
    ) -> None:
        self.additions, self.rows, self.prefix_cache = additions, list(rows), prefix_cache
        self.tokens = torch.tensor([list(ids)] * len(self.rows), device=device)  # one prompt for all: no padding
        self.prompt_length = len(ids)
        self.cache: Any = None
        self.engine: object = None

    def append(self, chosen: Tensor) -> None:
        """Append each row's next token, int64 [rows]."""
        self.tokens = torch.cat([self.tokens, chosen[:, None]], dim=1)

    def keep_rows(self, places: list[int]) -> None:
        """Drop the rows that are not at these places."""
        self.rows = [self.rows[place] for place in places]
        index = torch.tensor(places, dtype=torch.long, device=self.tokens.device)
        self.tokens, self.additions = self.tokens[index], _rows_of(self.additions, index)

    def step_additions(self) -> dict[int, Tensor]:
        """Sum what both token scopes add while a token is decoded: layer -> float32 [rows, width], see `Additions`."""
        total: dict[int, Tensor] = {}
        for of_scope in self.additions.values():
            for layer, rows in of_scope.items():
                total[layer] = joined(total[layer], rows) if layer in total else rows
        return total

    def pass_additions(self, start: int, stop: int, places: Tensor | None = None) -> Additions:
        """Return what a pass over the positions `start` to `stop` adds to the rows at `places` (all if None)."""
        additions = self.additions if places is None else _rows_of(self.additions, places)
        return placed(additions["all"], additions["answer"], stop - start, self.prompt_length - 1 - start)

    def distinct_rows(self) -> tuple[Tensor, Tensor]:
        """Find rows with the same additions: they share one row of the prefill.

        Returns places of distinct rows, int64 [distinct], and for each row the index of its like, int64 [rows].
        Rows steered as b, a, b, a give [0, 1] and [0, 1, 0, 1].
        """
        seen: dict[tuple[bytes, bytes], int] = {}
        places: list[int] = []
        index: list[int] = []
        for place in range(len(self.rows)):
            steering = self._steering(place)
            if steering not in seen:
                seen[steering] = len(places)
                places.append(place)
            index.append(seen[steering])
        device = self.tokens.device
        return torch.tensor(places, device=device), torch.tensor(index, device=device)

    def cached_prefixes(self, places: Sequence[int]) -> list[Tensor]:
        """Return the keys and values of the prompt's beginning that the prefix cache has for each of these rows.

        Each is [layers, 2, kv_heads, positions, head_dim], all cut to the shortest; an empty list if one row has none.
        The prompt's last token is never among the positions: the logits after it are wanted.
        """
        if self.prefix_cache is None:
            return []
        ids, prefixes = self.tokens[0, : self.prompt_length - 1].tolist(), []
        for place in places:
            everywhere, in_answers = self._steering(place)
            prefix = None if in_answers else self.prefix_cache.longest_prefix(everywhere, ids)
            if prefix is None:
                return []
            prefixes.append(prefix)
        length = min(prefix.shape[3] for prefix in prefixes)
        return [prefix[:, :, :, :length] for prefix in prefixes]

    def store_prefix(self, place: int, keys_values: Tensor) -> None:
        """Store a row's keys and values [layers, 2, kv_heads, positions, head_dim] in the prefix cache, if any.

        A row steered in its answer only is not stored: in the next turn the answer is prompt, which is not steered so.
        """
        if self.prefix_cache is None:
            return
        everywhere, in_answers = self._steering(place)
        if not in_answers:
            self.prefix_cache.store(everywhere, self.tokens[place, : keys_values.shape[3]].tolist(), keys_values)

    def _steering(self, place: int) -> tuple[bytes, bytes]:
        """Return what is added to a row everywhere and in answers only, as bytes that are equal for equal additions."""

        def as_bytes(additions: Additions) -> bytes:
            rows = ((layer, additions[layer][place]) for layer in sorted(additions))
            return b"".join(layer.to_bytes(4, "big") + row.cpu().numpy().tobytes() for layer, row in rows if row.any())

        return as_bytes(self.additions["all"]), as_bytes(self.additions["answer"])


def _rows_of(additions: dict[str, Additions], places: Tensor) -> dict[str, Additions]:
    return {scope: {layer: rows[places] for layer, rows in of_scope.items()} for scope, of_scope in additions.items()}
