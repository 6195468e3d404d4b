"""Relative dose: how large what is added is, beside what it is added to."""

from collections.abc import Sequence

from steering.evaluation.measures.registry import Measure, MeasureContext
from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs
from steering.pairs.tokenization import encode_pairs
from steering.scoring.scorer import PairScorer
from steering.vectors.vector import SteeringVector

PAIRS_READ = 4
"""Whose tokens' hidden states are measured: a few hundred tokens."""


def residual_norm(model: LanguageModel, vector: SteeringVector, pairs: Pairs) -> float:
    """Return the median norm of the residual stream at the vector's first layer, over the tokens of a few pairs."""
    layer = vector.layers[0]
    _, encoded = encode_pairs(model, pairs[:PAIRS_READ])
    return PairScorer(model, encoded, layer, fast=False).residual_norms([layer])[layer]


def _dose(context: MeasureContext) -> Sequence[float]:
    norm = residual_norm(context.model, context.vector, context.pairs)
    return [abs(m) * context.vector.norms[context.vector.layers[0]] / norm for m in context.multipliers]


MEASURES = (
    Measure(
        name="dose",
        label="Dose",
        description="abs(multiplier) * norm of the vector / norm of the residual stream at its first layer.",
        unit="",
        run=_dose,
    ),
)
