"""Prefill of Llama-like models with float16 weights.

A prompt is one row up to its first steered layer. There it becomes a row for each of its settings, as adding their
vectors makes several rows of one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from steering.generation.engine.llama.model import LlamaModel
from steering.intervention.additions import Additions, added

MASKED_TOKENS = 512
"""Tokens of a prompt whose masked attention is computed at a time: a mask of 512 x 8,192 positions takes 16 MB."""


@torch.inference_mode()
def prefill(
    model: LlamaModel,
    ids: Sequence[int],
    cached: Sequence[Tensor],
    additions: Additions,
    masked_tokens: int = MASKED_TOKENS,
) -> tuple[Tensor, list[Tensor]]:
    """Read a prompt for one or several settings.

    Args:
        ids: its tokens that are not cached, at least the last.
        cached: for each setting the keys and values [layers, 2, kv_heads, positions, head_dim] of the tokens before.
        additions: layer -> [settings, hidden_size], or [settings, len(ids), hidden_size] where it differs by position.

    Returns the next token's logits, float32 [settings, vocabulary], and the prompt's keys and values, for each layer
    [2, settings, kv_heads, positions, head_dim]. Up to the first steered layer there is one row for all settings.
    """
    start = cached[0].shape[3] if cached else 0
    rotation = model.rotation(torch.arange(start, start + len(ids)))
    hidden, keys_values = model.embed(torch.tensor([list(ids)])), []
    for layer in range(len(model.blocks)):
        before = [prefix[layer] for prefix in cached[: len(hidden)]]
        hidden, of_layer = _run_block(model, layer, hidden, rotation, before, masked_tokens)
        keys_values.append(of_layer)
        if layer in additions:
            hidden = _steered(hidden, additions[layer])
    return model.logits(hidden[:, -1]), keys_values


@torch.inference_mode()
def next_token_logits(
    model: LlamaModel, hidden: Tensor, after: int, additions: Additions, wanted: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """Run a prompt through the blocks after one, without a KV cache, as a next-token preview does.

    Args:
        hidden: [1, tokens, hidden_size], the output of block `after`, or the embeddings for -1.
        additions: layer -> [1, hidden_size] or [1, tokens, hidden_size]; block `after` may be among them.
        wanted: the block whose output is wanted as well.

    Returns float32 [vocabulary] after the last token, and the output of block `wanted`.
    """
    rotation, output = model.rotation(torch.arange(hidden.shape[1])), None
    for layer in range(after, len(model.blocks)):
        if layer > after:
            hidden, _ = _run_block(model, layer, hidden, rotation, [], MASKED_TOKENS)
        output = hidden if layer == wanted else output
        if layer in additions:
            hidden = _steered(hidden, additions[layer])
    return model.logits(hidden[:, -1])[0], output


def _steered(hidden: Tensor, addition: Tensor) -> Tensor:
    return added(hidden, addition[:, None] if addition.dim() == 2 else addition)


def _run_block(
    model: LlamaModel,
    layer: int,
    hidden: Tensor,
    rotation: tuple[Tensor, Tensor],
    before: Sequence[Tensor],
    masked_tokens: int,
) -> tuple[Tensor, Tensor]:
    """Run a block; its output, and the keys and values [2, rows, kv_heads, positions, head_dim].

    Args:
        hidden: [rows, tokens, hidden_size]; `rotation`: of the tokens' positions.
        before: for each row the keys and values [2, kv_heads, positions, head_dim] of the tokens before; or none.
    """
    rows, count, _ = hidden.shape
    block, flat = model.blocks[layer], hidden.flatten(0, 1)
    cos, sin = (part.repeat(rows, 1, 1) for part in rotation)
    projected = model.attention_input(block, flat, cos, sin).unflatten(0, (rows, count)).transpose(1, 2)
    keys_values = projected[:, model.heads :].unflatten(1, (2, -1)).transpose(0, 1).contiguous()
    if before:
        keys_values = torch.cat([torch.stack(list(before), dim=1), keys_values], dim=3)
    attended = _attention(projected[:, : model.heads], keys_values, model.scale, masked_tokens)
    return model.block_output(block, flat, attended).view_as(hidden), keys_values


def _attention(query: Tensor, keys_values: Tensor, scale: float, masked_tokens: int) -> Tensor:
    """Compute the causal attention of the last tokens of a prompt.

    Args:
        query: [rows, heads, tokens, head_dim].
        keys_values: [2, rows, kv_heads, positions, head_dim]; the last position is the last token's.
        masked_tokens: how many tokens are computed at a time, where a mask is needed.

    Returns [rows * tokens, heads * head_dim].
    """
    rows, heads, count, size = query.shape
    query = query.reshape(rows * keys_values.shape[2], -1, count, size)  # heads that share keys stand together
    keys, values = keys_values.flatten(1, 2)[:, :, None].expand(-1, -1, query.shape[1], -1, -1)
    seen = keys_values.shape[3] - count
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
