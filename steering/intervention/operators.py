"""Operators other than addition: how they are carried beside it in the rows that steer a batch, and applied.

What steers one row of a batch at one layer is a row of numbers. Under addition alone it is the sum of multiplier times
direction, [hidden_size]. With other operators it is wider,

    [ sum | keeps norm | projection 1 | projection 2 | ... ]

where `keeps norm` is 1 if the sum is to leave the hidden state's norm as it was, and each projection is a unit
direction u and five numbers that say what becomes of p = h.u:

    p' = p + scale p + shift, then at least `low` if `has_low`, at most `high` if `has_high`;   h' = h + (p' - p) u

Zeros do nothing, exactly: rows of a batch that use no operator pass unchanged. So rows of different widths can be
padded, chosen, multiplied by a mask of positions and differentiated like those of plain addition.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

NUMBERS = 6
"""How many follow the direction of a projection: scale, shift, has_low, low, has_high, high."""


def projection(direction: Tensor, operator: str, multiplier: float, target: float | None = None) -> Tensor:
    """Make the numbers of one projection, float32 [hidden_size + NUMBERS]; see `vectors.action.OPERATORS`.

    Args:
        direction: v, [hidden_size].
        operator: `ablate`, `set`, `clamp` or `cap`.
        target: t; by default the norm of v.
    """
    wanted = multiplier * (float(direction.norm()) if target is None else target)
    if operator == "ablate":
        return bounded(direction, scale=-multiplier)
    if operator == "set":
        return bounded(direction, scale=-1.0, shift=wanted)
    if operator == "clamp":
        return bounded(direction, low=wanted) if wanted >= 0 else bounded(direction, high=wanted)
    if operator == "cap":
        return bounded(direction, low=-abs(wanted), high=abs(wanted))
    raise ValueError(f"{operator!r} sets no projection")


def bounded(
    direction: Tensor, *, scale: float = 0.0, shift: float = 0.0, low: float | None = None, high: float | None = None
) -> Tensor:
    """Make the numbers of a projection on v / |v|, float32 [hidden_size + NUMBERS]; differentiable in v.

    Args:
        direction: v, [hidden_size].
        scale, shift: p becomes p + scale p + shift; low, high: then its bounds, None for none.
    """
    bounds = [float(low is not None), low or 0.0, float(high is not None), high or 0.0]
    unit = direction / direction.norm().clamp(min=1e-12)
    return torch.cat([unit, direction.new_tensor([scale, shift, *bounds])])


def row_of(addition: Tensor, keeps_norm: bool, projections: Sequence[Tensor]) -> Tensor:
    """Put together what steers one row at one layer; addition alone stays [hidden_size]."""
    if not keeps_norm and not projections:
        return addition
    return torch.cat([addition, addition.new_tensor([float(keeps_norm)]), *projections])


def widened(rows: Tensor, width: int) -> Tensor:
    """Pad rows [..., less] to [..., width] with numbers that do nothing."""
    return pad(rows, (0, width - rows.shape[-1])) if rows.shape[-1] < width else rows


def joined(first: Tensor, second: Tensor) -> Tensor:
    """Let both steer the same rows, each projection in its own place of them (see `additions_for`)."""
    width = max(first.shape[-1], second.shape[-1])
    return widened(first, width) + widened(second, width)


def operated(hidden: Tensor, rows: Tensor) -> Tensor:
    """Apply rows that are wider than the hidden state. Projections are computed in float32.

    Args:
        hidden: [rows, positions, hidden_size] or [rows, hidden_size].
        rows: [..., width], of a shape that broadcasts to it but for the width.
    """
    size, kind = hidden.shape[-1], hidden.dtype
    count, unfit = divmod(rows.shape[-1] - size - 1, size + NUMBERS)
    if unfit or count < 0:
        raise RuntimeError(f"rows of {rows.shape[-1]} numbers do not fit hidden states of {size}")
    moved = hidden + rows[..., :size].to(kind)
    keeps = rows[..., size : size + 1]
    if bool((keeps > 0).any()):
        shrink = hidden.float().norm(dim=-1, keepdim=True) / moved.float().norm(dim=-1, keepdim=True).clamp(min=1e-12)
        moved = torch.where(keeps > 0, (moved.float() * shrink).to(kind), moved)
    for numbers in rows[..., size + 1 :].unflatten(-1, (count, size + NUMBERS)).unbind(-2) if count else ():
        unit, settings = numbers[..., :size].float(), numbers[..., size:].float()
        scale, shift, has_low, low, has_high, high = settings.split(1, dim=-1)
        before = (moved.float() * unit).sum(dim=-1, keepdim=True)
        after = before + scale * before + shift
        after = torch.where(has_low > 0, torch.maximum(after, low), after)
        after = torch.where(has_high > 0, torch.minimum(after, high), after)
        moved = moved + ((after - before) * unit).to(kind)
    return moved
