"""One decode step of a Llama-like model with float16 weights: the next token's logits for every row."""

import torch
from torch import Tensor

from steering.generation.engine.llama.model import LlamaModel
from steering.intervention.additions import Additions, added


@torch.inference_mode()
def decode_step(model: LlamaModel, tokens: Tensor, cached: Tensor, starts: Tensor, additions: Additions) -> Tensor:
    """Run one token a row; float32 [rows, vocabulary] after it.

    Args:
        tokens: int64 [rows].
        cached: [layers, 2, rows, kv_heads, positions, head_dim], keys and values. The last position is the tokens':
            their keys and values are written there.
        starts: int64 [rows], where each row's positions begin; what lies before is masked out.
        additions: layer -> float32 [rows, hidden_size], what steering adds to the block's output.
    """
    rows, length, head_dim = len(tokens), cached.shape[-2], cached.shape[-1]
    cos, sin = model.rotation(length - 1 - starts)
    mask = _mask(starts, length, model.kv_heads)
    # For each layer, heads that share keys stand as the queries of one: [rows * kv_heads, positions, head_dim].
    keys = cached[:, 0].flatten(1, 2).transpose(2, 3).unbind(0)
    values = cached[:, 1].flatten(1, 2).unbind(0)
    written = cached[..., -1, :].transpose(1, 2).unbind(0)  # [rows, 2, kv_heads, head_dim] each
    hidden = model.embed(tokens)
    for layer, block in enumerate(model.blocks):
        projected = model.attention_input(block, hidden, cos, sin)
        written[layer].copy_(projected[:, model.heads :].unflatten(1, (2, -1)))
        query = projected[:, : model.heads].reshape(rows * model.kv_heads, -1, head_dim)
        scores = torch.baddbmm(mask, query, keys[layer], alpha=model.scale).softmax(-1)
        hidden = model.block_output(block, hidden, torch.bmm(scores, values[layer]).view(rows, -1))
        if layer in additions:
            hidden = added(hidden, additions[layer])
    return model.logits(hidden)


def _mask(starts: Tensor, length: int, kv_heads: int) -> Tensor:
    """Make a mask to add to scores: -inf before a row's start, [rows * kv_heads, 1, length]; [1, 1, 1] if all are 0."""
    if not starts.any():
        return torch.zeros(1, 1, 1)
    before = torch.arange(length) < starts.repeat_interleave(kv_heads)[:, None]
    return torch.zeros(before.shape).masked_fill(before, -torch.inf)[:, None]
