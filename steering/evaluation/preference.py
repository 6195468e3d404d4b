"""Preference accuracy and preference margin of a vector on pairs it was not trained on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from steering.intervention.additions import Additions, additions_for
from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs
from steering.pairs.tokenization import encode_pairs
from steering.runtime.distributed import ALONE, Processes
from steering.scoring.scorer import PairScorer
from steering.vectors.vector import SteeringVector, check_multiplier

DEFAULT_MULTIPLIERS = (-2.0, -1.0, 0.0, 1.0, 2.0)
BATCH = 4  # a packed batch's attention grows with its square; four pairs measured best on a CPU


@dataclass(frozen=True)
class PreferenceResult:
    """Attributes:
    multiplier: what the vector was scaled by.
    preference_accuracy: share of pairs with log p(chosen) > log p(rejected).
    preference_margin: mean of [log p(chosen) - log p(rejected)] steered minus the same unsteered, in nats.
    """

    multiplier: float
    preference_accuracy: float
    preference_margin: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


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
    """Measure `vector` on `pairs` at each multiplier; `on_progress` hears (batches done, batches in all).

    With a `scorer`, those of its pairs that `indices` name are measured in place of `pairs`.

    Raises SteeringError for a vector that does not fit the model, a multiplier out of range, or pairs of which the
    model can read none.
    """
    multipliers = [check_multiplier(m) for m in multipliers]
    additions = {m: {k: rows[0] for k, rows in additions_for(model, [{vector: m}]).items()} for m in multipliers}
    if scorer is None:
        _, encoded = encode_pairs(model, pairs)
        scorer = PairScorer(model, encoded, min(vector.layers), scope=vector.token_scope)
    return results(*preference_gaps(scorer, additions, indices=indices, on_progress=on_progress, processes=processes))


def preference_gaps(
    scorer: PairScorer,
    additions: Mapping[float, Additions],
    *,
    indices: Sequence[int] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    processes: Processes = ALONE,
) -> tuple[Tensor, dict[float, Tensor]]:
    """log p(chosen) - log p(rejected) of the scorer's pairs: [n] untouched, and [n] for each multiplier.

    `indices` are the pairs measured, all by default; several processes share them out.
    """
    scores = preference_scores(scorer, additions, indices=indices, on_progress=on_progress, processes=processes)
    untouched, *moved = (score_gap(each) for each in scores)
    return untouched, dict(zip(additions, moved, strict=True))


@torch.no_grad()
def preference_scores(
    scorer: PairScorer,
    additions: Mapping[float, Additions],
    *,
    indices: Sequence[int] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    processes: Processes = ALONE,
) -> Tensor:
    """The scores themselves, [1 + multipliers, n, 2]: untouched first, then at each multiplier, in order."""
    indices = range(len(scorer.pairs)) if indices is None else indices
    mine = range(processes.index, len(indices), processes.count)  # places in `indices`
    batches = [mine[start : start + BATCH] for start in range(0, len(mine), BATCH)]

    def measured() -> Tensor:
        scores = torch.zeros(1 + len(additions), len(indices), 2, device=scorer.model.device)
        for done, places in enumerate(batches, start=1):
            batch = [indices[place] for place in places]
            every = [scorer.reference(batch), *(scorer.scores(batch, addition) for addition in additions.values())]
            scores[:, list(places)] = torch.stack(every)
            if on_progress:
                on_progress(done, len(batches))
        return scores.flatten()

    size = (1 + len(additions)) * len(indices) * 2
    return processes.total(measured, size).view(1 + len(additions), len(indices), 2)


def results(untouched: Tensor, moved: Mapping[float, Tensor]) -> list[PreferenceResult]:
    """Accuracy and margin for each multiplier from what `preference_gaps` measured."""
    return [
        PreferenceResult(multiplier, float((gap > 0).double().mean()), float((gap - untouched).double().mean()))
        for multiplier, gap in moved.items()
    ]


def score_gap(scores: Tensor) -> Tensor:
    """log p(chosen) - log p(rejected) [n] of scores [n, 2]."""
    return scores[:, 0] - scores[:, 1]
