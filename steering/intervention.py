"""How steering vectors enter the residual stream. The one place that adds a vector to a hidden state."""

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from steering.models import LanguageModel, hidden_of, with_hidden
from steering.vectors import TOKEN_SCOPES, SteeringVector, check_multiplier

Setting = Mapping[SteeringVector, float]
"""Multipliers of any number of vectors, applied together. The empty setting is the untouched model."""

Additions = Mapping[int, Tensor]
"""layer k -> what is added to the output of block k: [hidden_size] or [rows, hidden_size] at every position, or
[rows, positions, hidden_size]."""


def additions_for(
    model: LanguageModel, settings: Sequence[Setting], scopes: Sequence[str] = TOKEN_SCOPES
) -> dict[int, Tensor]:
    """The weighted sums of vectors whose token scope is among `scopes`, per layer; row i runs under `settings[i]`.

    Returns layer -> float32 [len(settings), hidden_size]; a layer that no row steers is left out, so that a batch of
    untouched rows runs the untouched model, bit for bit.

    Raises SteeringError for a multiplier that is not a sound number or a vector that does not fit the model.
    """
    additions: dict[int, Tensor] = {}
    for row, setting in enumerate(settings):
        for vector, multiplier in setting.items():
            multiplier = check_multiplier(multiplier)
            vector.check_fits(model.hidden_size, model.num_layers, model.name)
            if multiplier == 0 or vector.token_scope not in scopes:
                continue
            for layer, direction in vector.directions.items():
                rows = additions.setdefault(layer, torch.zeros(len(settings), model.hidden_size))
                rows[row] += multiplier * direction
    return {layer: rows.to(model.device) for layer, rows in sorted(additions.items())}


def added(hidden: Tensor, addition: Tensor) -> Tensor:
    """Hidden states with vectors added: what steering is. (TorchScript compiles it, too; see `lean_step`.)"""
    return hidden + addition


def placed(everywhere: Additions, answers: Additions, length: int, first: int) -> Additions:
    """Additions [rows, hidden_size] of the scopes `all` and `answer` for a pass over `length` positions.

    Position `first` of the pass and those after it predict tokens of the answer.
    """
    if not answers:
        return everywhere
    where = (torch.arange(length) >= first)[None, :, None]
    additions = dict(everywhere)
    for layer, rows in answers.items():
        there = where.to(rows.device) * rows[:, None]
        additions[layer] = there + additions[layer][:, None] if layer in additions else there
    return additions


@contextlib.contextmanager
def steered(blocks: Sequence[nn.Module], additions: Additions) -> Iterator[None]:
    """Within this context, and on this thread only, add to the output of `blocks[k]`.

    Other threads that run the same model at the same time are untouched, whatever they do; when the context ends, by
    success, failure or cancel, the model carries no hook. Gradients flow into the additions.
    """
    owner = threading.get_ident()

    def hook_for(addition: Tensor):
        addition = addition[:, None, :] if addition.dim() == 2 else addition  # one row of the batch, every position

        def hook(block: nn.Module, args: tuple, output: object) -> object:
            if threading.get_ident() != owner:
                return None
            hidden = hidden_of(output)
            return with_hidden(output, added(hidden, addition.to(device=hidden.device, dtype=hidden.dtype)))

        return hook

    with contextlib.ExitStack() as handles:
        for layer, addition in additions.items():
            handle = blocks[layer].register_forward_hook(hook_for(addition))
            handles.callback(handle.remove)
        yield


@contextlib.contextmanager
def observed(block: nn.Module) -> Iterator[list[object]]:
    """Collect what `block` returns within this context, on this thread only."""
    owner = threading.get_ident()
    outputs: list[object] = []

    def hook(block: nn.Module, args: tuple, output: object) -> None:
        if threading.get_ident() == owner:
            outputs.append(output)

    handle = block.register_forward_hook(hook)
    try:
        yield outputs
    finally:
        handle.remove()
