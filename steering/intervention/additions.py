"""Compute what steering does to the residual stream: for each row of a batch what its setting's vectors do together."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from steering.intervention.operators import joined, operated, projection, row_of, widened
from steering.models.loading import LanguageModel
from steering.vectors.action import NORM_KEEPING, PLAIN, TOKEN_SCOPES, check_multiplier
from steering.vectors.vector import SteeringVector

Setting = Mapping[SteeringVector, float]
"""Multipliers of any number of vectors, applied together. The empty setting is the untouched model."""

Additions = Mapping[int, Tensor]
"""Layer k -> what steers the output of block k: float32 [width] or [rows, width], at every position, or
[rows, positions, width]. The width is hidden_size for plain addition, more with other operators (see `operators`)."""


def additions_for(
    model: LanguageModel, settings: Sequence[Setting], scopes: Sequence[str] = TOKEN_SCOPES
) -> dict[int, Tensor]:
    """Put together per layer what each row's vectors do at their multipliers.

    Vectors that are added are summed up first; then the other operators act one after the other, in the order of the
    setting. Multiplier 0 is off under every operator.

    Args:
        model: the model to be steered; the rows are on its device.
        settings: one a row of the batch.
        scopes: only vectors of these token scopes are taken. The others' projections have their places left free, so
            that rows of different scopes can be `joined`.

    Returns:
        Layer -> float32 [len(settings), width], see `Additions`. A layer that no row steers is left out, so that a
        batch of untouched rows runs the untouched model, bit for bit.

    Raises:
        SteeringError: a multiplier is no number from -100 to 100, or a vector does not fit the model.

    Example:
        >>> additions = additions_for(model, [{}, {vector: 1.5}])  # the baseline, and one steered row
        >>> {layer: tuple(rows.shape) for layer, rows in additions.items()}
        {14: (2, 576)}
    """
    rows_at: dict[int, dict[int, Tensor]] = {}  # layer -> row -> what steers it
    for row, setting in enumerate(settings):
        used: list[tuple[SteeringVector, float]] = []
        for vector, multiplier in setting.items():
            multiplier = check_multiplier(multiplier)
            vector.check_fits(model.hidden_size, model.num_layers, model.name)
            if multiplier:
                used.append((vector, multiplier))
        for layer in {layer for vector, _ in used if vector.token_scope in scopes for layer in vector.directions}:
            here = [(vector, multiplier) for vector, multiplier in used if layer in vector.directions]
            rows_at.setdefault(layer, {})[row] = _row_at(layer, here, scopes)
    additions = {}
    for layer, steered in sorted(rows_at.items()):
        rows = torch.zeros(len(settings), max(len(row) for row in steered.values()))
        for row, numbers in steered.items():
            rows[row, : len(numbers)] = numbers
        additions[layer] = rows.to(model.device)
    return additions


def _row_at(layer: int, used: Sequence[tuple[SteeringVector, float]], scopes: Sequence[str]) -> Tensor:
    """Put together what steers one row at one layer; each vector has a direction there."""
    total, keeps_norm, projections = torch.zeros(used[0][0].hidden_size), False, []
    for vector, multiplier in used:
        direction, in_scope = vector.directions[layer], vector.token_scope in scopes
        if vector.operator not in NORM_KEEPING:
            numbers = projection(direction, vector.operator, multiplier, vector.targets.get(layer))
            projections.append(numbers if in_scope else torch.zeros_like(numbers))
        elif in_scope:
            total += multiplier * direction
            keeps_norm |= vector.operator != PLAIN
    return row_of(total, keeps_norm, projections)


def added(hidden: Tensor, addition: Tensor) -> Tensor:
    """Steer hidden states: add vectors (BiPO, Cao et al. 2024; CAA), and apply operators if the rows hold any.

    Args:
        hidden: output of a decoder block, [rows, positions, hidden_size] or [rows, hidden_size].
        addition: of a shape that broadcasts to it, but for the width (see `Additions`).
    """
    if addition.shape[-1] == hidden.shape[-1]:
        return hidden + addition.to(hidden.dtype)
    return operated(hidden, addition)


def stacked(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate rows [n, width] of one layer, padded to the widest."""
    width = max(part.shape[-1] for part in parts)
    return torch.cat([widened(part, width) for part in parts])


def placed(everywhere: Additions, answers: Additions, length: int, first: int) -> Additions:
    """Combine the additions of both token scopes for one forward pass.

    Args:
        everywhere: layer -> [rows, width] of scope `all`, at every position.
        answers: layer -> [rows, width] of scope `answer`.
        length: positions of the pass.
        first: first position of the pass that predicts a token of the answer; `answers` act from there on.

    Returns:
        `everywhere` itself if there are no `answers`; else layer -> [rows, length, width] where both meet or only
        `answers` steer, and [rows, width] elsewhere.
    """
    if not answers:
        return everywhere
    where = (torch.arange(length) >= first)[None, :, None]
    additions = dict(everywhere)
    for layer, rows in answers.items():
        there = where.to(rows.device) * rows[:, None]
        additions[layer] = joined(additions[layer][:, None], there) if layer in additions else there
    return additions
