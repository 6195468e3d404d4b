"""A model that runs packed batches: its own forward pass, with what it need not run left out."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from steering.intervention.hooks import observed
from steering.models.blocks import hidden_of
from steering.models.loading import LanguageModel
from steering.runtime.module_proxy import InputRecorder, OutputReplay, copy_sharing_weights
from steering.scoring.fast.onednn_linear import Arranged, FrozenLinear, frozen_linears, reading
from steering.scoring.fast.packing import PackedBatch
from steering.scoring.fast.prefix_sharing import Loan
from steering.scoring.fast.rmsnorm import frozen_norms

PACKED_ATTENTION = "steering_packed"


class PackedModel:
    """Runs packed batches without the head: from their tokens, or from stored hidden states of layer k.

    Several threads may run it at once.

    Attributes:
        blocks: what to steer in a run from stored states; blocks 0..k are stand-ins.
    """

    def __init__(self, model: LanguageModel, layer: int, arranged: Arranged | None = None) -> None:
        self.layer = layer
        head = model.network.get_output_embeddings()
        self._catch = InputRecorder(head)
        network = model.network
        self._whole = copy_sharing_weights(
            network, {**frozen_linears(network, arranged), **frozen_norms(network), head: self._catch}
        )
        for config in {id(m.config): m.config for m in self._whole.modules() if hasattr(m, "config")}.values():
            if getattr(config, "_attn_implementation", None) == "sdpa":
                config._attn_implementation = PACKED_ATTENTION
        blocks = self._whole.get_submodule(model.blocks_path)
        for block in blocks:
            block._forward_hooks.clear()  # another run's, copied along
        self._block = blocks[layer]
        self._replay = OutputReplay(blocks[layer])
        skipped = {block: OutputReplay(block) for block in blocks[:layer]}
        kept = {block: block for block in blocks[layer + 1 :]}
        self._later = copy_sharing_weights(self._whole, {**skipped, blocks[layer]: self._replay, **kept})
        self.blocks = self._later.get_submodule(model.blocks_path)

    def from_tokens(self, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """Hidden states [1, T, hidden_size] at layer k and [P, hidden_size] before the head, untouched."""
        with observed(self._block) as outputs:
            last = self._run(self._whole, batch)
        for block in self.blocks[: self.layer + 1]:
            block.gives_tuple = isinstance(outputs[0], tuple)
        return hidden_of(outputs[0]), last

    def from_states(self, states: Tensor, batch: PackedBatch, loan: Loan | None = None) -> Tensor:
        """Hidden states [P, hidden_size] before the head, from those [1, T, hidden_size] at layer k.

        loan: by which the keys and values of the prefix go to parts whose batches are without it.
        """
        self._replay.states = states
        try:
            return self._run(self._later, batch, loan)
        finally:
            self._replay.states = None

    @torch.enable_grad()
    def skip_unread(self, states: Tensor, batch: PackedBatch) -> None:
        """Find out which maps of the last block matter only where an answer is predicted, and leave them out elsewhere.

        Their outputs get no gradient from anywhere else. (What makes keys and values is not among them.)
        """
        maps = [m for m in self.blocks[-1].modules() if isinstance(m, FrozenLinear)]
        if not maps:
            return
        with contextlib.ExitStack() as stack:
            outputs = {m: stack.enter_context(observed(m)) for m in maps}
            last = self.from_states(states.detach().requires_grad_(), batch)
        anyhow = torch.randn(last.shape, generator=torch.Generator().manual_seed(0)).to(last)
        read = torch.zeros(batch.tokens.shape, dtype=torch.bool, device=last.device).index_fill(1, batch.places, True)
        for m, found in outputs.items():
            gradients = torch.autograd.grad((last * anyhow).sum(), found, retain_graph=True)
            m.of_read = all(g.shape[:2] == read.shape and not g[~read].any() for g in gradients)

    @property
    def later_maps(self) -> list[FrozenLinear]:
        """The linear maps of the blocks after k that have stand-ins and run at every token."""
        maps = (m for block in self.blocks[self.layer + 1 :] for m in block.modules() if isinstance(m, FrozenLinear))
        return [m for m in maps if not m.of_read]

    def _run(self, network: PreTrainedModel, batch: PackedBatch, loan: Loan | None = None) -> Tensor:
        with _attending(batch, loan), reading(batch.places):
            network(
                input_ids=batch.tokens,
                attention_mask=batch.mask[..., -batch.tokens.numel() :],
                position_ids=batch.positions,
                logits_to_keep=batch.places,
                use_cache=False,
            )
        return self._catch.release()[0]


_segments: ContextVar[tuple[tuple[int, ...], list[Tensor], Loan | None]] = ContextVar("segments of the batch being run")


@contextlib.contextmanager
def _attending(batch: PackedBatch, loan: Loan | None) -> Iterator[None]:
    """Within this context packed attention knows the batch: its sizes, each pair's mask [1, 1, own, prefix + own]."""
    rows = batch.mask.split(batch.sizes, dim=2)
    prefix = batch.mask.shape[-1] - sum(batch.sizes[1:])
    before, *columns = (each.split((prefix, *batch.sizes[1:]), dim=3) for each in rows)
    masks = [before[0], *(torch.cat([each[0], each[number]], dim=3) for number, each in enumerate(columns, start=1))]
    token = _segments.set((batch.sizes, masks, loan))
    try:
        yield
    finally:
        _segments.reset(token)


def packed_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: object
) -> tuple[Tensor, None]:
    """transformers' scaled dot-product attention, pair by pair: a pair sees the prefix and itself, so the work grows
    with the sum of squares of the pairs' lengths, not with the square of their sum.

    query, key, value: [1, heads, T, head_dim]. Returns [1, T, heads, head_dim].
    """
    sizes, masks, loan = _segments.get()
    queries, keys, values = (states.split(sizes, dim=2) for states in (query, key, value))
    prefix = (keys[0], values[0]) if loan is None else (loan(keys[0]), loan(values[0]))
    parts = []
    for number, mask in enumerate(masks):
        if not sizes[number]:
            continue
        own_keys, own_values = keys[number], values[number]
        if number and prefix[0].shape[2]:
            own_keys = torch.cat([prefix[0], own_keys], dim=2)
            own_values = torch.cat([prefix[1], own_values], dim=2)
        parts.append(sdpa_attention_forward(module, queries[number], own_keys, own_values, mask, **options)[0])
    return torch.cat(parts, dim=1), None


ALL_ATTENTION_FUNCTIONS.register(PACKED_ATTENTION, packed_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(PACKED_ATTENTION, sdpa_mask)
