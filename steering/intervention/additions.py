"""What steering adds to the residual stream: the weighted sums of the vectors of each row's setting."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from steering.models.loading import LanguageModel
from steering.vectors.vector import TOKEN_SCOPES, SteeringVector, check_multiplier

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
