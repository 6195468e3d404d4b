"""Prompts read the lean way: those of several requests in one pass, without padding, and nothing that is known already.

The products, which take most of the time, run over the tokens of all prompts at once; attention runs prompt by prompt.
Each prompt is one row up to its first steered layer. There it becomes a row for each of its settings, as adding their
vectors makes one state several (see `decoding`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from steering.generation.engine.llama.decode_step import Lean
from steering.intervention.additions import Additions, added

MASKED = 512
"""Tokens of a prompt whose attention is worked out at a time."""


@dataclass(frozen=True)
class Reading:
    """One prompt, to be read for one or several settings.

    Attributes:
        ids: its tokens that are not known, at least the last.
        known: for each setting the keys and values [2, layers, kv_heads, positions, head_dim] of the tokens before.
        additions: layer -> [settings, hidden_size], or [settings, len(ids), hidden_size] where it differs by position.
    """

    ids: Sequence[int]
    known: Sequence[Tensor]
    additions: Additions

    @property
    def start(self) -> int:
        """The position of the first token to read."""
        return self.known[0].shape[3] if self.known else 0


@torch.inference_mode()
def read(lean: Lean, readings: Sequence[Reading]) -> list[tuple[Tensor, list[Tensor]]]:
    """Of each prompt: float32 [settings, vocabulary], what follows it, and its keys and values at each layer.

    These are [2, settings, kv_heads, positions, head_dim]; up to the first steered layer, one for all settings.
    """
    hidden = lean.embed(torch.tensor([token for each in readings for token in each.ids]))
    rows = [1] * len(readings)  # that each prompt has become
    cos, sin = _rotation(lean, hidden, readings, rows)
    states: list[list[Tensor]] = [[] for _ in readings]
    for layer in range(lean.layers):
        projected = [part.split(_sizes(readings, rows)) for part in lean.step.project(layer, hidden, cos, sin)]
        attended = []
        for each, count, kept, *own in zip(readings, rows, states, *projected, strict=True):
            query, *fresh = (part.view(count, len(each.ids), *part.shape[1:]).transpose(1, 2) for part in own)
            kept.append(torch.stack(fresh))
            if each.known:
                before = torch.stack([known[:, layer] for known in each.known[:count]], dim=1)
                kept[-1] = torch.cat([before, kept[-1]], dim=3)
            attended.append(_attend(query, kept[-1], lean.step.scale))
        hidden = lean.step.go_on(layer, hidden, torch.cat(attended))
        if any(layer in each.additions for each in readings):
            parts, before = list(hidden.split(_sizes(readings, rows))), list(rows)
            for number, each in enumerate(readings):
                if layer in each.additions:
                    addition = each.additions[layer]
                    addition = addition[:, None] if addition.dim() == 2 else addition
                    moved = added(parts[number].view(rows[number], len(each.ids), -1), addition)
                    rows[number], parts[number] = len(moved), moved.flatten(0, 1)
            hidden = torch.cat(parts)
            if rows != before:
                cos, sin = _rotation(lean, hidden, readings, rows)
    ends = torch.tensor([len(each.ids) for each, count in zip(readings, rows, strict=True) for _ in range(count)])
    logits = lean.step.logits(hidden[ends.cumsum(0) - 1])
    return list(zip(logits.split(rows), states, strict=True))


def _sizes(readings: Sequence[Reading], rows: Sequence[int]) -> list[int]:
    return [count * len(each.ids) for each, count in zip(readings, rows, strict=True)]


def _rotation(lean: Lean, hidden: Tensor, readings: Sequence[Reading], rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    places = [torch.arange(each.start, each.start + len(each.ids)) for each in readings]
    return lean.turned(hidden, torch.cat([own.repeat(count) for own, count in zip(places, rows, strict=True)]))


def _attend(query: Tensor, states: Tensor, scale: float) -> Tensor:
    """query [rows, heads, tokens, head_dim] to [rows * tokens, heads * head_dim]; the keys' last position is its own.

    Heads that share keys stand together, and look at the same ones.
    """
    rows, heads, count, size = query.shape
    shared, positions = states.shape[2:4]
    query = query.reshape(rows * shared, -1, count, size)
    keys, values = states.flatten(1, 2)[:, :, None].expand(-1, -1, query.shape[1], -1, -1)
    if positions == count:
        found = scaled_dot_product_attention(query, keys, values, is_causal=True, scale=scale)
    else:  # some tokens at a time, so that a mask stays small
        parts, seen = [], positions - count
        for own in query.split(MASKED, dim=2):
            seen += own.shape[2]
            later = torch.ones(own.shape[2], seen, dtype=torch.bool).triu(seen - own.shape[2] + 1)
            mask = torch.zeros(later.shape).masked_fill(later, -torch.inf)
            parts.append(scaled_dot_product_attention(own, keys[:, :, :seen], values[:, :, :seen], mask, scale=scale))
        found = torch.cat(parts, dim=2)
    return found.view(rows, heads, count, size).transpose(1, 2).reshape(rows * count, heads * size)
