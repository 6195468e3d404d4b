"""How and where a vector acts: its operators and token scopes, and the checks of its numbers."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from steering.errors import SteeringError

TOKEN_SCOPES = ("all", "answer")
"""Where a vector acts: at every position, or only where the next token is one of the answer's (from the prompt's last
token on)."""

PLAIN = "add"
NORM_KEEPING = (PLAIN, "add-norm")
"""Operators under which vectors of one layer are added up before anything else happens."""

OPERATORS = (*NORM_KEEPING, "ablate", "set", "clamp", "cap")
"""What a vector v does to the hidden state h, with u = v / |v|, p = h.u, multiplier m and target t:

    add        h + m v
    add-norm   (h + m v) |h| / |h + m v|
    ablate     h - m p u                     1 takes the direction out, negative values strengthen what is there
    set        h + (m t - p) u               the projection becomes m t, wherever it was
    clamp      projection at least m t       (at most, for a negative m t)
    cap        projection within +-|m t|
"""

MAX_MULTIPLIER = 100.0
"""Far beyond use: 1 is the strength at which a vector was trained, and the sliders go to 3."""

MAX_VALUE = 1e6
"""Of one number of a direction. No residual stream comes near; times `MAX_MULTIPLIER` its square, 1e16, is far from
float32's largest number, 3.4e38, so that norms stay finite."""

MAX_LAYERS = 10_000
"""One above the greatest layer number; file tensors `layer.<k>` have at most four digits."""

FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
"""Number types that a direction may be stored in; in memory it is float32."""


def check_multiplier(value: float) -> float:
    """Return the multiplier as a float; raise SteeringError unless it is a number from -100 to 100."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) <= MAX_MULTIPLIER:  # nan fails too
        raise SteeringError(
            f"The multiplier {str(value)[:40]} is not a number between {-MAX_MULTIPLIER:g} and {MAX_MULTIPLIER:g}."
        )
    return number


def checked_direction(layer: int, direction: Tensor) -> Tensor:
    """Return a copy of a direction, float32 on the CPU; SteeringError for an unsound layer, shape or value."""
    if isinstance(layer, bool) or not isinstance(layer, int) or not 0 <= layer < MAX_LAYERS:
        raise SteeringError(f"Layer {str(layer)[:20]} does not exist; layers count from 0.")
    if direction.dim() != 1 or not len(direction) or direction.dtype not in FLOATS:
        kind = f"a tensor {list(direction.shape)} of {str(direction.dtype).removeprefix('torch.')}"
        raise SteeringError(f"Layer {layer} holds {kind}; a direction is [hidden_size] of float32.")
    direction = direction.detach().to("cpu", torch.float32, copy=True).contiguous()
    if not direction.abs().max() <= MAX_VALUE:  # nan fails too
        raise SteeringError(f"Layer {layer} holds values that are not finite or beyond {MAX_VALUE:,.0f}; make it anew.")
    return direction


def checked_targets(targets: Mapping, directions: Mapping[int, Tensor]) -> dict[int, float]:
    """Return layer -> target of a file's `targets`, whose keys are texts; SteeringError for what cannot be one."""
    checked = {}
    for key, value in targets.items():
        layer = int(key) if str(key).isdecimal() else -1
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
        if layer not in directions or not abs(number) <= MAX_VALUE:
            raise SteeringError(
                f"Its target {str(value)[:20]} for layer {str(key)[:20]} is not a number for a layer it has."
            )
        checked[layer] = number
    return checked
