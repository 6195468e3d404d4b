"""What every trained vector says about itself: model, method with all settings, and pairs."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs
from steering.vectors.vector import SteeringVector


def trained_vector(
    directions: Mapping[int, Tensor],
    model: LanguageModel,
    pairs: Pairs,
    held_out: Pairs,
    method: Mapping[str, Any],
    **fields: Any,
) -> SteeringVector:
    """Make a vector that knows where it comes from.

    Args:
        directions: layer k -> [hidden_size].
        pairs, held_out: those that were used, without those that the model could not read.
        method: `name`, and every setting as JSON has it.
        fields: further ones of `SteeringVector`, such as `token_scope`.
    """
    return SteeringVector(
        directions=dict(directions),
        model_id=model.source,
        model_fingerprint=model.fingerprint,
        method=dict(method),
        pairs={
            "source": pairs.report.source,
            "sha256": pairs.sha256,
            "train": len(pairs),
            "held_out": len(held_out),
        },
        **fields,
    )
