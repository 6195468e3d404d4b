"""Continuous batching: the rows of all requests in as few groups as the engine allows.

Where rows of different lengths can be one batch (`supports_ragged_batch`), one pass decodes all of them; elsewhere the
rows of each prompt are decoded by a pass of their own.
"""

from torch import Tensor

from steering.generation.engine.decoder import Decoder
from steering.generation.engine.protocol import DecodingEngine
from steering.generation.engine.row_group import RowGroup
from steering.generation.prompt_batch import PromptBatch


class ActiveRows:
    """All rows that are being decoded, of any number of prompts, in as few passes as the engine allows.

    When the decoder has gone back to its plain engine, here or for others, the rows go on there from their tokens.
    """

    def __init__(self, decoder: Decoder) -> None:
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
            self._decoder.plain.prefill_again(batch)  # the only engine that is ever changed to
        if not self._groups or not self._decoder.supports_ragged_batch():
            self._groups.append(RowGroup(self._engine))
        self._groups[-1].join(batch)

    def logits(self) -> list[Tensor]:
        """Run one decode step; for each member float32 [its rows, vocabulary] for the next token."""

        def step(_: DecodingEngine) -> list[Tensor]:
            self._follow_decoder()
            return [logits for group in self._groups for logits in group.logits()]

        return self._decoder.run_step(step, sum(len(batch.rows) for batch in self.members))

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
