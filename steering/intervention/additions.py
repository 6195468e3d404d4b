"""Compute what steering adds to the residual stream: for each row the weighted sum of its setting's vectors."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from steering.models.loading import LanguageModel
from steering.vectors.vector import TOKEN_SCOPES, SteeringVector, check_multiplier

Setting = Mapping[SteeringVector, float]
"""Multipliers of any number of vectors, applied together. The empty setting is the untouched model."""

Additions = Mapping[int, Tensor]
"""Layer k -> what is added to the output of block k: float32 [hidden_size] or [rows, hidden_size], at every position,
or [rows, positions, hidden_size]."""


def additions_for(
    model: LanguageModel, settings: Sequence[Setting], scopes: Sequence[str] = TOKEN_SCOPES
) -> dict[int, Tensor]:
    """Sum up each row's vectors, times their multipliers, per layer.

    Args:
        model: the model to be steered; the sums are on its device.
        settings: one a row of the batch.
        scopes: only vectors of these token scopes are taken.

    Returns:
        Layer -> float32 [len(settings), hidden_size]. A layer that no row steers is left out, so that a batch of
        untouched rows runs the untouched model, bit for bit.

    Raises:
        SteeringError: a multiplier is no number from -100 to 100, or a vector does not fit the model.

    Example:
        >>> additions = additions_for(model, [{}, {vector: 1.5}])  # the baseline, and one steered row
        >>> {layer: tuple(rows.shape) for layer, rows in additions.items()}
        {14: (2, 576)}
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
    """Add vectors to hidden states: what steering is (the addition of BiPO, Cao et al. 2024, and of CAA).

    Args:
        hidden: output of a decoder block, [rows, positions, hidden_size].
        addition: of a shape that broadcasts to it.
    """
    return hidden + addition


def placed(everywhere: Additions, answers: Additions, length: int, first: int) -> Additions:
    """Combine the additions of both token scopes for one forward pass.

    Args:
        everywhere: layer -> [rows, hidden_size] of scope `all`, added at every position.
        answers: layer -> [rows, hidden_size] of scope `answer`.
        length: positions of the pass.
        first: first position of the pass that predicts a token of the answer; `answers` are added from there on.

    Returns:
        `everywhere` itself if there are no `answers`; else layer -> [rows, length, hidden_size] where both meet or only
        `answers` steer, and [rows, hidden_size] elsewhere.
    """
    if not answers:
        return everywhere
    where = (torch.arange(length) >= first)[None, :, None]
    additions = dict(everywhere)
    for layer, rows in answers.items():
        there = where.to(rows.device) * rows[:, None]
        additions[layer] = there + additions[layer][:, None] if layer in additions else there
    return additions
