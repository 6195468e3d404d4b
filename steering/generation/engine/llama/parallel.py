"""Rows stepped the lean way, in one lane a core."""

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor

from steering.generation.engine.decoder import Batch, Decoder
from steering.generation.engine.llama.decode_step import Lane
from steering.runtime.cpu_threads import side_by_side

WORTH_A_LANE = 2
"""Rows that make a lane of their own pay: fewer are done as soon in one lane, which reads the weights once."""


class Lanes:
    """Batches of one prompt each; their rows step in lanes that run at the same time, whichever batch a row is of.

    Attributes:
        members: the batches, in the order of their rows.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self.members: list[Batch] = []
        self._lanes = [Lane(decoder.lean) for _ in range(decoder.cores)]
        self._rows: list[list[tuple[Batch, int]]] = [[] for _ in self._lanes]  # whose row each of a lane's is

    def join(self, batch: Batch) -> None:
        """Take in a batch that has read its prompt; its cache moves here."""
        cache, batch.cache = batch.cache, None
        self.members.append(batch)
        taken: list[list[int]] = [[] for _ in self._lanes]
        total = sum(map(len, self._lanes)) + len(batch.rows)
        open_lanes = range(max(1, min(len(self._lanes), total // WORTH_A_LANE)))
        for place, row in enumerate(batch.rows):
            shortest = min(open_lanes, key=lambda lane: len(self._rows[lane]))
            taken[shortest].append(place)
            self._rows[shortest].append((batch, row))
        additions: dict[int, Tensor] = {}  # a token that is written is steered by both token scopes
        for of_scope in batch.additions.values():
            for layer, rows in of_scope.items():
                additions[layer] = additions[layer] + rows if layer in additions else rows
        joining = [
            partial(lane.join, cache, additions, places)
            for lane, places in zip(self._lanes, taken, strict=True)
            if places
        ]
        self._decoder.on_step_cores(lambda: side_by_side(joining))

    def logits(self) -> list[Tensor]:
        """For each member: float32 [its rows, vocabulary] for the next token of every row."""
        last = {
            (batch, row): token
            for batch in self.members
            for row, token in zip(batch.rows, batch.tokens[:, -1].tolist(), strict=True)
        }
        used = [(lane, rows) for lane, rows in zip(self._lanes, self._rows, strict=True) if rows]
        steps = side_by_side([partial(lane.step, [last[row] for row in rows]) for lane, rows in used])
        found = {}
        for (_, rows), logits in zip(used, steps, strict=True):
            found.update(zip(rows, logits, strict=True))
        return [torch.stack([found[batch, row] for row in batch.rows]) for batch in self.members]

    def advance(self, chosen: list[Tensor], going: list[list[int]]) -> None:
        """For each member: append its rows' tokens, keep only the rows at these places; one without any leaves."""
        for batch, tokens, places in zip(self.members, chosen, going, strict=True):
            if len(places) < len(batch.rows):
                self._remember(batch, set(range(len(batch.rows))) - set(places))
            batch.advance(tokens, places)
        self._free()

    def leave(self, batch: Batch) -> None:
        """Free a member's rows, if it has any."""
        if batch in self.members:
            self._remember(batch, range(len(batch.rows)))
            batch.rows = []
            self._free()

    def _remember(self, batch: Batch, places: Iterable[int]) -> None:
        """Keep what these rows of a batch have read and written, for those who go on from there."""
        if batch.prefixes is None:
            return
        wanted = {(batch, batch.rows[place]): place for place in places}
        for lane, rows in zip(self._lanes, self._rows, strict=True):
            for number, row in enumerate(rows):
                if row in wanted:
                    batch.remember(wanted[row], lane.states(number))

    def _free(self) -> None:
        """Let go of the rows that their batches no longer have."""
        self.members = [batch for batch in self.members if batch.rows]
        for place, (lane, rows) in enumerate(zip(self._lanes, self._rows, strict=True)):
            kept = [number for number, (batch, row) in enumerate(rows) if row in batch.rows]
            if len(kept) < len(rows):
                self._rows[place] = [rows[number] for number in lane.keep(kept)]
