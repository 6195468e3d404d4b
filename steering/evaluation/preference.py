"""Preference accuracy and preference margin of a vector on pairs it was not trained on."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from steering.intervention.additions import Additions, additions_for
from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs
from steering.pairs.tokenization import encode_pairs
from steering.runtime.distributed import ALONE, Processes
from steering.scoring.scorer import PairScorer
from steering.vectors.action import check_multiplier
from steering.vectors.vector import SteeringVector

DEFAULT_MULTIPLIERS = (-2.0, -1.0, 0.0, 1.0, 2.0)
RESAMPLES = 1000
"""Of the bootstrap: more would move the ends of an interval by less than a pair does."""
BATCH = 4
"""Pairs scored at a time. A packed batch's mask grows with its square; four pairs measured best on a CPU."""


@dataclass(frozen=True)
class PreferenceResult:
    """What a vector does at one multiplier.

    Attributes:
        multiplier: what the vector was scaled by.
        preference_accuracy: share of pairs with log p(chosen) > log p(rejected).
        preference_margin: mean of [log p(chosen) - log p(rejected)] steered minus the same unsteered, in nats.
        pairs: how many pairs were measured.
        accuracy_interval: 95 % interval of the accuracy (Wilson, "Probable inference", JASA 1927).
        margin_interval: the same of the margin, by a bootstrap over the pairs.
        pairs_moved: share of pairs whose own margin has the sign of the multiplier; 0 at multiplier 0.
        margin_per_token: the margin with each answer's log-probability divided by its number of tokens, in nats; None
            if the numbers of tokens are not known.
        chosen_logps, rejected_logps: mean log-probability of the answers, summed over tokens, in nats.
    """

    multiplier: float
    preference_accuracy: float
    preference_margin: float
    pairs: int
    accuracy_interval: tuple[float, float]
    margin_interval: tuple[float, float]
    pairs_moved: float = 0.0
    margin_per_token: float | None = None
    chosen_logps: float = 0.0
    rejected_logps: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes by name, as the command line's JSON has them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def evaluate(
    model: LanguageModel,
    vector: SteeringVector,
    pairs: Pairs,
    multipliers: Sequence[float] = DEFAULT_MULTIPLIERS,
    *,
    scorer: PairScorer | None = None,
    indices: Sequence[int] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    processes: Processes = ALONE,
) -> list[PreferenceResult]:
    """Measure `vector` on `pairs` at each multiplier.

    Args:
        scorer: one that has these pairs already, as after a training: they are not encoded again, and what it has
            cached is used. It must be of this model and of the vector's token scope, with a layer that is not after
            the vector's first.
        indices: which of the scorer's pairs they are; by default all.
        on_progress: called with (batches done, batches in all).
        processes: those that share the pairs out.

    Raises SteeringError for a vector that does not fit the model, a multiplier out of range, or pairs of which the
    model can read none; ValueError for a scorer that does not fit the vector.
    """
    additions = additions_at(model, vector, multipliers)
    if scorer is None:
        _, encoded = encode_pairs(model, pairs)
        scorer, indices = PairScorer(model, encoded, min(vector.layers), scope=vector.token_scope), None
    elif scorer.model is not model or scorer.scope != vector.token_scope or scorer.layer > min(vector.layers):
        raise ValueError("The scorer is of another model or token scope, or begins after the vector's first layer.")
    logps = preference_logps(
        scorer, list(additions.values()), indices=indices, on_progress=on_progress, processes=processes
    )
    return preference_results(logps, list(additions), answer_lengths(scorer, indices))


def answer_lengths(scorer: PairScorer, indices: Sequence[int] | None = None) -> Tensor:
    """Return the numbers of tokens of chosen and rejected answers, float32 [n, 2]."""
    places = range(len(scorer.pairs)) if indices is None else indices
    pairs = [scorer.pairs[place] for place in places]
    return torch.tensor([[len(pair.chosen), len(pair.rejected)] for pair in pairs], dtype=torch.float32)


def additions_at(
    model: LanguageModel, vector: SteeringVector, multipliers: Sequence[float]
) -> dict[float, dict[int, Tensor]]:
    """Return what is added to which layers at each multiplier; SteeringError for one out of range."""
    checked = [check_multiplier(m) for m in multipliers]
    return {m: {k: rows[0] for k, rows in additions_for(model, [{vector: m}]).items()} for m in checked}


@torch.no_grad()
def preference_logps(
    scorer: PairScorer,
    additions: Sequence[Additions],
    *,
    indices: Sequence[int] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    processes: Processes = ALONE,
) -> Tensor:
    """Score pairs untouched and under each of the additions, a few at a time.

    Args:
        indices: which of the scorer's pairs; by default all. Several processes share them out.

    Returns float32 [1 + len(additions), n, 2]: reference_logps first, then the steered ones; in the last dimension
    chosen and rejected.
    """
    indices = range(len(scorer.pairs)) if indices is None else indices
    own = range(processes.index, len(indices), processes.count)  # places in `indices`
    batches = [own[start : start + BATCH] for start in range(0, len(own), BATCH)]
    shape = (1 + len(additions), len(indices), 2)

    def own_logps() -> Tensor:
        logps = torch.zeros(shape, device=scorer.model.device)
        for done, places in enumerate(batches, start=1):
            batch = [indices[place] for place in places]
            rows = [scorer.reference_logps(batch), *(scorer.logps(batch, addition) for addition in additions)]
            logps[:, list(places)] = torch.stack(rows)
            if on_progress:
                on_progress(done, len(batches))
        return logps.flatten()

    return processes.total(own_logps, shape[0] * shape[1] * shape[2]).view(shape)


def preference_results(
    logps: Tensor, multipliers: Sequence[float], lengths: Tensor | None = None
) -> list[PreferenceResult]:
    """Compute what pairs show at each multiplier.

    Args:
        logps: [1 + multipliers, n, 2] as `preference_logps` returns it.
        lengths: numbers of tokens of the answers [n, 2], for the margin per token.
    """
    rows = logps.double().cpu()
    per_token = None if lengths is None else log_ratio(rows / lengths.double().cpu())
    return [
        _result(
            m,
            rows[0],
            rows[1 + place],
            None if per_token is None else float((per_token[1 + place] - per_token[0]).mean()),
        )
        for place, m in enumerate(multipliers)
    ]


def _result(multiplier: float, reference: Tensor, steered: Tensor, per_token: float | None) -> PreferenceResult:
    """Summarise pairs at one multiplier: float64 [n, 2] untouched and steered."""
    ratios = log_ratio(steered)
    margins = ratios - log_ratio(reference)
    count, accuracy = len(margins), float((ratios > 0).double().mean())
    drawn = torch.randint(count, (RESAMPLES, count), generator=torch.Generator().manual_seed(0))
    means = margins[drawn].mean(dim=1)
    low, high = (float(means.quantile(share)) for share in (0.025, 0.975))
    return PreferenceResult(
        multiplier,
        accuracy,
        float(margins.mean()),
        count,
        wilson_interval(accuracy, count),
        (low, high),
        float((multiplier * margins > 0).double().mean()),
        per_token,
        float(steered[:, 0].mean()),
        float(steered[:, 1].mean()),
    )


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share seen in `count` cases."""
    z = 1.959964
    centre, spread = share + z * z / (2 * count), z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return max(0.0, (centre - spread) / (1 + z * z / count)), min(1.0, (centre + spread) / (1 + z * z / count))


def log_ratio(logps: Tensor) -> Tensor:
    """Return log p(chosen) - log p(rejected), [..., n], of log-probabilities [..., n, 2]."""
    return logps[..., 0] - logps[..., 1]
