"""A model that runs packed batches: its own forward pass, on copies with another attention and without an LM head."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

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
from steering.scoring.fast.onednn_linear import frozen_linears
from steering.scoring.fast.packing import PackedBatch

PACKED_ATTENTION = "steering_packed"
"""Name under which `packed_attention` is known to transformers."""


class PackedModel:
    """Runs packed batches up to the LM head: from their tokens, or from stored hidden states of layer k.

    Several threads may run it at once. Whether the results are the model's own is for the caller to check.

    Attributes:
        blocks: the blocks that `from_hidden_states` runs, for `steered`; those up to layer k do nothing.
    """

    def __init__(self, model: LanguageModel, layer: int) -> None:
        ALL_ATTENTION_FUNCTIONS.register(PACKED_ATTENTION, packed_attention)
        ALL_MASK_ATTENTION_FUNCTIONS.register(PACKED_ATTENTION, sdpa_mask)
        network, head = model.network, model.network.get_output_embeddings()
        self._layer = layer
        self._recorder = InputRecorder(head)
        self._whole = copy_sharing_weights(network, {**frozen_linears(network), head: self._recorder})
        configs: dict[int, Any] = {id(m.config): m.config for m in self._whole.modules() if hasattr(m, "config")}
        for config in configs.values():
            if getattr(config, "_attn_implementation", None) == "sdpa":
                config._attn_implementation = PACKED_ATTENTION  # noqa: SLF001 - the public setter is for whole models
        blocks: Any = self._whole.get_submodule(model.blocks_path)  # nn.ModuleList
        self._block = blocks[layer]
        self._replay = OutputReplay(blocks[layer])
        skipped = {block: OutputReplay(block) for block in blocks[:layer]}
        shared = {block: block for block in blocks[layer + 1 :]}
        self._later = copy_sharing_weights(self._whole, {**skipped, blocks[layer]: self._replay, **shared})
        self.blocks: Any = self._later.get_submodule(model.blocks_path)

    def from_tokens(self, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """Run the whole model, untouched.

        Returns the hidden states [1, T, hidden_size] at layer k and those [P, hidden_size] that enter the LM head.
        """
        with observed(self._block) as outputs:
            last = self._run(self._whole, batch)
        for block in self.blocks[: self._layer + 1]:
            block.gives_tuple = isinstance(outputs[0], tuple)
        return hidden_of(outputs[0]), last

    def from_hidden_states(self, hidden_states: Tensor, batch: PackedBatch) -> Tensor:
        """Run the blocks after layer k on the hidden states [1, T, hidden_size] at layer k; differentiable in them.

        Returns the hidden states [P, hidden_size] that enter the LM head.
        """
        self._replay.hidden_states = hidden_states
        try:
            return self._run(self._later, batch)
        finally:
            self._replay.hidden_states = None

    def _run(self, network: PreTrainedModel, batch: PackedBatch) -> Tensor:
        with _attending(batch):
            network(
                input_ids=batch.tokens,
                attention_mask=batch.mask,
                position_ids=batch.positions,
                logits_to_keep=batch.predicting,
                use_cache=False,
            )
        return self._recorder.release()[0]


_attended: ContextVar[tuple[tuple[int, ...], list[Tensor]]] = ContextVar("sizes and masks of the batch being run")


@contextlib.contextmanager
def _attending(batch: PackedBatch) -> Iterator[None]:
    """Within this context `packed_attention` knows the batch's sizes and each pair's mask [1, 1, own, prefix + own]."""
    of_prefix, *of_pairs = (rows.split(batch.sizes, dim=3) for rows in batch.mask.split(batch.sizes, dim=2))
    masks = [of_prefix[0]]
    masks += [torch.cat([columns[0], columns[number]], dim=3) for number, columns in enumerate(of_pairs, start=1)]
    token = _attended.set((batch.sizes, masks))
    try:
        yield
    finally:
        _attended.reset(token)


def packed_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attend pair by pair, by transformers' scaled dot-product attention: a pair sees the prefix and itself.

    The work grows with the sum of squares of the pairs' lengths, not with the square of their sum.

    Args:
        query, key, value: [1, heads, T, head_dim]; key and value may have fewer heads.
        attention_mask: [1, 1, T, T], as `sdpa_mask` passes it on; unused, each pair has its part of it already.
        options: scaling and so on, handed on.

    Returns [1, T, heads, head_dim], and None for the attention weights.
    """
    sizes, masks = _attended.get()
    queries, keys, values = (tensor.split(sizes, dim=2) for tensor in (query, key, value))
    outputs = []
    for number, mask in enumerate(masks):
        if not sizes[number]:
            continue
        own_keys, own_values = keys[number], values[number]
        if number and sizes[0]:
            own_keys = torch.cat([keys[0], own_keys], dim=2)
            own_values = torch.cat([values[0], own_values], dim=2)
        outputs.append(sdpa_attention_forward(module, queries[number], own_keys, own_values, mask, **options)[0])
    return torch.cat(outputs, dim=1), None
