"""Where a run starts, and how far it may go: both measured by how far the two answers of a pair lie apart."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from steering.models.loading import LanguageModel
from steering.pairs.tokenization import EncodedPair
from steering.training.activations import answer_activations
from steering.training.methods.bipo.config import START, START_PAIRS
from steering.training.methods.caa import mean_difference

RATE_PAIRS = 8
"""Pairs that tell how far answers lie apart, where the mean difference itself is not needed. Over the example sets the
norms of single pairs' differences spread by a third, so the mean of eight is right within 12 %."""

Difference = tuple[Tensor, float]
"""(mean over pairs of chosen minus rejected, float32 [hidden_size]; mean over pairs of that difference's norm)"""


def mean_differences(
    model: LanguageModel, pairs: Sequence[EncodedPair], layers: Sequence[int], most: int = START_PAIRS
) -> dict[int, Difference]:
    """Measure the activations of both answers (mean over their tokens) of the first `most` pairs at each layer."""
    batches = list(answer_activations(model, pairs[:most], layers))
    found = {}
    for layer in layers:
        chosen, rejected = (torch.cat([getattr(b, side)[layer] for b in batches]) for side in ("chosen", "rejected"))
        found[layer] = mean_difference(chosen, rejected), float((chosen - rejected).norm(dim=-1).mean())
    return found


def starting_point(differences: Mapping[int, Difference], start: str) -> tuple[list[float], dict[int, Tensor]]:
    """Return (each layer's pair norm, the vectors before the first step).

    Args:
        start: `zero`, or `mean_difference`: its direction with `START` times the pair norm.
    """
    norms = [norm for _, norm in differences.values()]
    if start == "zero":
        return norms, {layer: torch.zeros_like(mean) for layer, (mean, _) in differences.items()}
    scaled = {
        layer: mean * (START * norm / max(float(mean.norm()), 1e-12)) for layer, (mean, norm) in differences.items()
    }
    return norms, scaled
