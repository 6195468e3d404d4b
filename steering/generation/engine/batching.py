"""Rows of several prompts decoded together: they join after their prompt was read and leave when they end.

Rows of a shared batch are padded on the left to the longest, the padding masked out and positions counted without it,
so that each row gives what it gives alone. The key-value caches are laid together, which only plain ones allow; whether
a model's can be is found out by comparing. Where they cannot, batches are stepped one after another.
Where the lean step writes, its lanes stand in for both (see `lanes`).
"""

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache, DynamicLayer

from steering.generation.engine.decoder import Batch, Decoder, probe_ids
from steering.generation.engine.llama.parallel import Lanes
from steering.intervention.additions import Additions
from steering.intervention.hooks import steered


class SeparateBatches:
    """Batches of one prompt each, stepped one after another: for any model, and the plain way for a single batch.

    Attributes:
        members: the batches, in the order of their rows.
    """

    def __init__(self) -> None:
        self.members: list[Batch] = []

    def join(self, batch: Batch) -> None:
        """Take in a batch that has read its prompt."""
        self.members.append(batch)

    def logits(self) -> list[Tensor]:
        """For each member: float32 [its rows, vocabulary] for the next token of every row."""
        return [batch.logits() for batch in self.members]

    def advance(self, chosen: list[Tensor], going: list[list[int]]) -> None:
        """For each member: append its rows' tokens, keep only the rows at these places; one without any leaves."""
        for batch, tokens, places in zip(self.members, chosen, going, strict=True):
            batch.advance(tokens, places)
        self.members = [batch for batch in self.members if batch.rows]

    def leave(self, batch: Batch) -> None:
        """Free a member's rows, if it has any."""
        self.members = [member for member in self.members if member is not batch]


class SharedBatch:
    """Batches of one prompt each, stepped together as one.

    Attributes:
        members: the batches, in the order of their rows.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.members: list[Batch] = []
        self._cache: Cache | None = None
        self._mask = torch.empty(0, 0, dtype=torch.long, device=decoder.device)  # [rows, cached positions]
        self._additions: Additions = {}

    @torch.inference_mode()
    def join(self, batch: Batch) -> None:
        """Take in a batch that has read its prompt; its cache moves here."""
        cache, batch.cache = batch.cache, None
        mask = torch.ones(len(batch.rows), batch.tokens.shape[1] - 1, dtype=torch.long, device=self.decoder.device)
        if self._cache is None:
            self._cache, self._mask = cache, mask
        else:
            longest = max(mask.shape[1], self._mask.shape[1])
            for ours, theirs in zip(self._cache.layers, cache.layers, strict=True):
                ours.keys = torch.cat([_padded(ours.keys, longest), _padded(theirs.keys, longest)])
                ours.values = torch.cat([_padded(ours.values, longest), _padded(theirs.values, longest)])
            self._mask = torch.cat([pad(part, (longest - part.shape[1], 0)) for part in (self._mask, mask)])
        self.members.append(batch)
        self._collect_additions()

    @torch.inference_mode()
    def logits(self) -> list[Tensor]:
        """For each member: float32 [its rows, vocabulary] for the next token of every row."""
        positions = self._mask.sum(dim=1, keepdim=True)
        self._mask = pad(self._mask, (0, 1), value=1)
        with steered(self.decoder.blocks, self._additions):
            output = self.decoder.network(
                input_ids=torch.cat([batch.tokens[:, -1:] for batch in self.members]),
                attention_mask=self._mask,
                position_ids=positions,
                past_key_values=self._cache,
                use_cache=True,
                **self.decoder.head_once,
            )
        return list(output.logits[:, -1].float().split([len(batch.rows) for batch in self.members]))

    def advance(self, chosen: list[Tensor], going: list[list[int]]) -> None:
        """For each member: append its rows' tokens, keep only the rows at these places; one without any leaves."""
        keep, start = [], 0
        for batch, tokens, places in zip(self.members, chosen, going, strict=True):
            keep += [start + place for place in places]
            start += len(batch.rows)
            batch.advance(tokens, places)
        self._keep(keep)

    def leave(self, batch: Batch) -> None:
        """Free a member's rows."""
        start = 0
        for member in self.members:
            if member is batch:
                stop, total = start + len(batch.rows), len(self._mask)
                batch.rows = []
                self._keep([*range(start), *range(stop, total)])
                return
            start += len(member.rows)

    @torch.inference_mode()
    def _keep(self, keep: list[int]) -> None:
        if len(keep) == len(self._mask):
            return
        self.members = [batch for batch in self.members if batch.rows]
        self._collect_additions()
        if not keep:
            self._cache = None
            return
        rows = torch.tensor(keep, device=self._mask.device)
        self._mask = self._mask[rows]
        unused = int((self._mask.cumsum(dim=1) == 0).sum(dim=1).min())  # padding that no row needs any more
        self._mask = self._mask[:, unused:]
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys[rows, :, unused:], layer.values[rows, :, unused:]

    def _collect_additions(self) -> None:
        """layer -> [rows, hidden_size]; a token that is written is steered by both token scopes."""
        parts: dict[int, dict[int, Tensor]] = {}
        for place, batch in enumerate(self.members):
            for additions in batch.additions.values():
                for layer, rows in additions.items():
                    known = parts.setdefault(layer, {})
                    known[place] = known[place] + rows if place in known else rows
        self._additions = {}
        for layer, known in parts.items():
            some = next(iter(known.values()))
            nothing = {
                place: some.new_zeros(len(batch.rows), some.shape[1]) for place, batch in enumerate(self.members)
            }
            self._additions[layer] = torch.cat(list({**nothing, **known}.values()))


def _padded(states: Tensor, length: int) -> Tensor:
    """Keys or values [rows, heads, positions, head_dim] with zeros before them."""
    return pad(states, (0, 0, length - states.shape[2], 0))


def rows_for(decoder: Decoder, count: int) -> SharedBatch | SeparateBatches | Lanes:
    """What steps `count` batches best."""
    if decoder.lean is not None:
        return Lanes(decoder)
    return SharedBatch(decoder) if count > 1 and lays_together(decoder) else SeparateBatches()


def lays_together(decoder: Decoder) -> bool:
    """Whether rows of different prompts can be decoded as one batch; tried out when first asked."""
    if decoder.lean is not None:
        return True
    if decoder.lays_together is None:
        decoder.lays_together = decoder.on_step_cores(lambda: _can_lay_together(decoder))
    return decoder.lays_together


@torch.inference_mode()
def _can_lay_together(decoder: Decoder) -> bool:
    """Whether rows of different prompts, laid together, give what each gives alone, on a few tokens."""
    ids = probe_ids(decoder.network)
    pushes = torch.randn(2, 1, decoder.hidden_size, generator=torch.Generator().manual_seed(1)).to(decoder.device)
    middle = len(decoder.blocks) // 2
    requests = [(ids, {"all": {middle: pushes[0]}, "answer": {}}), (ids[2:5], {"all": {}, "answer": {0: pushes[1]}})]
    tolerance = 1e-3 if decoder.network.dtype == torch.float32 else 5e-2
    try:
        alone = [Batch(decoder, *request, [0]) for request in requests]
        joined, shared = [Batch(decoder, *request, [0]) for request in requests], SharedBatch(decoder)
        for batch in (*alone, *joined):
            batch.logits()
            batch.advance(torch.tensor(ids[:1], device=decoder.device), [0])
        for batch in joined:
            if not all(type(layer) is DynamicLayer for layer in batch.cache.layers):
                return False
            shared.join(batch)
        for token in ids[1:4]:
            chosen = torch.tensor([token], device=decoder.device)
            for batch, got in zip(alone, shared.logits(), strict=True):
                want = batch.logits()
                batch.advance(chosen, [0])
                if not (got - want).abs().max() <= tolerance * want.std():
                    return False
            shared.advance([chosen, chosen], [[0], [0]])
    except Exception:  # whatever way an architecture has to refuse, one after another remains
        return False
    return True
