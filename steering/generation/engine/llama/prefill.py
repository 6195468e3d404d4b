"""Prefill of Llama-like models with float16 weights: several prompts in one pass, without padding.

The matrix products, which take most of the time, run over the tokens of all prompts at once; attention runs prompt by
prompt. Each prompt is one row up to its first steered layer. There it becomes a row for each of its settings, as adding
their vectors makes several rows of one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from steering.generation.engine.llama.model import LlamaModel
from steering.intervention.additions import Additions, added

MASKED_TOKENS = 512
"""Tokens of a prompt whose masked attention is computed at a time: a mask of 512 x 8,192 positions takes 16 MB."""


@dataclass(frozen=True)
class PrefillRequest:
    """One prompt, to be prefilled for one or several settings.

    Attributes:
        ids: its tokens that are not cached, at least the last.
        cached: for each setting the keys and values [layers, 2, kv_heads, positions, head_dim] of the tokens before.
        additions: layer -> [settings, hidden_size], or [settings, len(ids), hidden_size] where it differs by position.
    """

    ids: Sequence[int]
    cached: Sequence[Tensor]
    additions: Additions

    @property
    def start(self) -> int:
        """The position of the first token to read."""
        return self.cached[0].shape[3] if self.cached else 0


@torch.inference_mode()
def prefill(
    model: LlamaModel, requests: Sequence[PrefillRequest], masked_tokens: int = MASKED_TOKENS
) -> list[tuple[Tensor, list[Tensor]]]:
    """Read prompts; for each float32 [settings, vocabulary], the next token's logits, and its keys and values.

    These are [2, settings, kv_heads, positions, head_dim] for each layer; up to the first steered layer 1 for settings.
    """
    hidden = model.embed(torch.tensor([token for request in requests for token in request.ids]))
    keys_values: list[list[Tensor]] = [[] for _ in requests]
    rows = [1] * len(requests)  # that each prompt has become
    rotation = _rotation(model, requests, rows)
    for layer, block in enumerate(model.blocks):
        projected = model.attention_input(block, hidden, *rotation)
        attended = []
        for request, count, layers, own in zip(
            requests, rows, keys_values, projected.split(_sizes(requests, rows)), strict=True
        ):
            own = own.view(count, len(request.ids), *own.shape[1:]).transpose(1, 2)  # [rows, heads, tokens, head_dim]
            states = own[:, model.heads :].unflatten(1, (2, -1)).transpose(0, 1).contiguous()
            if request.cached:
                before = torch.stack([cached[layer] for cached in request.cached[:count]], dim=1)
                states = torch.cat([before, states], dim=3)
            layers.append(states)
            attended.append(_attention(own[:, : model.heads], states, model.scale, masked_tokens))
        hidden = model.block_output(block, hidden, torch.cat(attended))
        if any(layer in request.additions for request in requests):
            hidden, steered_rows = _steer(hidden, requests, rows, layer)
            if steered_rows != rows:
                rows = steered_rows
                rotation = _rotation(model, requests, rows)
    lengths = [len(request.ids) for request, count in zip(requests, rows, strict=True) for _ in range(count)]
    logits = model.logits(hidden[torch.tensor(lengths).cumsum(0) - 1])
    return list(zip(logits.split(rows), keys_values, strict=True))


@torch.inference_mode()
def next_token_logits(
    model: LlamaModel, hidden: Tensor, layers: range, additions: Additions, stop: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """Run one prompt through some of the last blocks, without a KV cache, as a next-token preview does.

    Args:
        hidden: [tokens, hidden_size], the input of the first of these blocks.
        layers: numbers of the blocks, up to the last.
        additions: layer -> [1, hidden_size] or [1, tokens, hidden_size]; may name the layer before the first, too.
        stop: the block whose output is wanted as well.

    Returns float32 [vocabulary] after the last token, and the output of block `stop` [tokens, hidden_size].
    """
    rotation, output = model.rotation(torch.arange(len(hidden))), None
    for layer in (layers.start - 1, *layers):
        if layer in layers:
            block = model.blocks[layer]
            own = model.attention_input(block, hidden, *rotation)[None].transpose(1, 2)
            states = own[:, model.heads :].unflatten(1, (2, -1)).transpose(0, 1)
            hidden = model.block_output(block, hidden, _attention(own[:, : model.heads], states, model.scale, 0))
        if layer == stop:
            output = hidden
        if layer in additions:
            hidden = added(hidden, additions[layer][0])
    return model.logits(hidden[-1:])[0], output


def _steer(hidden: Tensor, requests: Sequence[PrefillRequest], rows: list[int], layer: int) -> tuple[Tensor, list[int]]:
    """Add the requests' vectors of a layer; the hidden states and each prompt's number of rows after it."""
    parts, counts = list(hidden.split(_sizes(requests, rows))), list(rows)
    for number, request in enumerate(requests):
        if layer in request.additions:
            addition = request.additions[layer]
            addition = addition[:, None] if addition.dim() == 2 else addition
            steered = added(parts[number].view(rows[number], len(request.ids), -1), addition)
            counts[number], parts[number] = len(steered), steered.flatten(0, 1)
    return torch.cat(parts), counts


def _sizes(requests: Sequence[PrefillRequest], rows: Sequence[int]) -> list[int]:
    return [count * len(request.ids) for request, count in zip(requests, rows, strict=True)]


def _rotation(model: LlamaModel, requests: Sequence[PrefillRequest], rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    positions = [torch.arange(request.start, request.start + len(request.ids)) for request in requests]
    return model.rotation(torch.cat([own.repeat(count) for own, count in zip(positions, rows, strict=True)]))


def _attention(query: Tensor, states: Tensor, scale: float, masked_tokens: int) -> Tensor:
    """Causal attention of the last tokens of a prompt.

    Args:
        query: [rows, heads, tokens, head_dim].
        states: keys and values [2, rows, kv_heads, positions, head_dim]; the last position is the last token's.
        masked_tokens: how many tokens are computed at a time, where a mask is needed.

    Returns [rows * tokens, heads * head_dim].
    """
    rows, heads, count, size = query.shape
    query = query.reshape(rows * states.shape[2], -1, count, size)  # heads that share keys stand together
    keys, values = states.flatten(1, 2)[:, :, None].expand(-1, -1, query.shape[1], -1, -1)
    seen = states.shape[3] - count
    if not seen:
        result = scaled_dot_product_attention(query, keys, values, is_causal=True, scale=scale)
    else:
        parts = []
        for own in query.split(masked_tokens, dim=2):
            seen += own.shape[2]
            mask = torch.ones(own.shape[2], seen, dtype=torch.bool).tril(seen - own.shape[2])
            parts.append(scaled_dot_product_attention(own, keys[:, :, :seen], values[:, :, :seen], mask, scale=scale))
        result = torch.cat(parts, dim=2)
    return result.view(rows, heads, count, size).transpose(1, 2).reshape(rows * count, -1)
