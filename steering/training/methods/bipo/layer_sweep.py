"""Which layer to steer: a short comparison of a few layers, before the long training at one of them.

Cao et al. (arXiv 2406.00045) choose the layer by training at each and comparing on held-out questions. Two cheap
measurements take the place of that here.

1. The slopes of all candidate layers at once. At the zero vector the gradient of BiPO's loss is -beta/2 times the mean
   gradient of Delta, so one forward and backward pass shows how fast the preference margin would grow along it at each
   layer.
2. A few training steps at the layers with the steepest slopes, each step in both directions so that little is left to
   chance, compared by the loss on held-out pairs.

Where vectors are chosen by text, `sweep_by_text` takes their place.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import torch
from torch import Tensor

from steering.evaluation.preference import BATCH, log_ratio, preference_logps
from steering.models.loading import LanguageModel
from steering.pairs.tokenization import EncodedPair
from steering.runtime.distributed import ALONE, Processes
from steering.scoring.scorer import PairScorer
from steering.training.methods.bipo.config import TRAVEL as RUN_TRAVEL
from steering.training.methods.bipo.config import BiPOConfig
from steering.training.methods.bipo.start import mean_differences
from steering.training.methods.bipo.step import bipo_sums
from steering.training.objectives import bipo_loss
from steering.training.written_effect import SharedEffect

logger = logging.getLogger(__name__)

# These numbers keep a sweep short: 2 batches for the slopes, then 2 steps in both directions at 2 layers. They are
# chosen by hand, not tuned for finding the best layer.
FINALISTS = 2
"""Layers that are trained at, of the candidates, where the user names none."""
STEPS = 2
"""Optimiser steps at each layer."""
TRAVEL = 0.08
"""How far the vector gets, as a share of the residual norm, if all steps go the same way: a third of what a whole run
may travel (see `bipo.config`)."""
NORM_PAIRS = 2
"""Conversations whose tokens give the residual norms."""
TRAIN_PAIRS = 8
HELD_OUT_PAIRS = 8
"""Pairs trained on, and measured: those of about median length, because the shortest are often of another kind."""
SHALLOWEST, DEEPEST = 0.3, 0.75
"""Shares of the depth between which candidates lie. They stand on little: BiPO steers layer 15 and CAA (Rimsky et al.,
arXiv 2312.06681) layer 13 of Llama-2-7B's 32, which are 0.41 to 0.48 of the depth; the range is that with room on both
sides, more above because models differ."""


@dataclass(frozen=True)
class LayerResult:
    """What a few steps at a layer did to held-out pairs.

    Attributes:
        layer: layer k.
        loss: BiPO's loss, mean over both directions; log 2 is a vector that does nothing, lower is better.
        margin_up, margin_down: preference margin at multiplier +1 and -1, in nats.
    """

    layer: int
    loss: float
    margin_up: float
    margin_down: float


@dataclass(frozen=True)
class LayerSweep:
    """Results of the layers that were trained at, in the order of layers."""

    results: tuple[LayerResult, ...] = ()

    @property
    def best(self) -> int | None:
        """The layer with the lowest loss; None when the sweep was stopped before it finished any."""
        return min(self.results, key=lambda result: result.loss).layer if self.results else None


def candidate_layers(num_layers: int, count: int = 5) -> tuple[int, ...]:
    """Return at most `count` layers spread evenly from `SHALLOWEST` to `DEEPEST`.

    Example: `candidate_layers(30)` is `(9, 12, 15, 18, 22)`.
    """
    low, high = SHALLOWEST * (num_layers - 1), DEEPEST * (num_layers - 1)
    spots = (low + (high - low) * (i / (count - 1) if count > 1 else 0.5) for i in range(count))
    return tuple(sorted({round(spot) for spot in spots}))


def slopes(scorer: PairScorer, indices: Sequence[int], norms: Mapping[int, float]) -> dict[int, float]:
    """Return for each layer the norm of Delta's mean gradient at the zero vector, times the residual norm.

    That is, to first order, the preference margin in nats of a vector along the gradient and as long as the residual
    norm.

    Args:
        indices: the scorer's pairs.
        norms: layer -> residual norm.
    """
    zeros = {layer: torch.zeros(scorer.model.hidden_size, device=scorer.model.device) for layer in norms}

    def summed_delta(indices: Sequence[int], logps: Tensor, reference_logps: Tensor) -> Tensor:
        return log_ratio(logps - reference_logps).sum()

    gradients = [scorer.value_and_grad(batch, zeros, summed_delta)[1] for batch in in_batches(indices)]
    sums = {layer: torch.stack([gradient[layer] for gradient in gradients]).sum(dim=0) for layer in norms}
    return {layer: float(sums[layer].norm()) / len(indices) * norm for layer, norm in norms.items()}


def sweep_layers(
    model: LanguageModel,
    pairs: Sequence[EncodedPair],
    held_out: Sequence[EncodedPair],
    *,
    settings: BiPOConfig,
    layers: Sequence[int] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    processes: Processes = ALONE,
) -> LayerSweep:
    """Train a few steps at each layer on a few of `pairs`, and measure on a few of `held_out`.

    Args:
        settings: beta, token_scope and fast are used; the sweep has its own learning rate, steps and batches.
        layers: train at all of these; by default at the `FINALISTS` with the steepest slopes of `candidate_layers`.
        should_stop: asked before each step; once it returns True the sweep ends with the layers it has finished.
        processes: those that share the layers out.

    Raises SteeringError for a layer the model does not have, ValueError without pairs or held-out pairs.
    """
    if not pairs or not held_out:
        raise ValueError("A sweep needs pairs to train on and held-out pairs to measure.")
    candidates = sorted({model.check_layer(k) for k in (layers or candidate_layers(model.num_layers))})
    trained, measured_pairs = middle(pairs, TRAIN_PAIRS), middle(held_out, HELD_OUT_PAIRS)

    def prepare() -> tuple[PairScorer, dict[int, float], list[int]]:
        # One scorer at the lowest layer: what it has cached serves that layer and all above.
        scorer = PairScorer(
            model, [*trained, *measured_pairs], candidates[0], scope=settings.token_scope, fast=settings.fast
        )
        norms = scorer.residual_norms(candidates, NORM_PAIRS)
        if layers:
            return scorer, norms, candidates
        steepness = slopes(scorer, range(len(trained)), norms)
        logger.info("Slopes by layer, in nats: %s", {layer: round(slope, 2) for layer, slope in steepness.items()})
        return scorer, norms, sorted(sorted(candidates, key=steepness.__getitem__)[-FINALISTS:])

    scorer, norms, finalists = processes.together(prepare)
    own_layers = processes.agreed(finalists)[processes.index :: processes.count]
    batches = list(islice(cycle(in_batches(range(len(trained)))), STEPS))

    def train_and_measure() -> list[LayerResult]:
        results: list[LayerResult] = []
        for layer in own_layers:
            v = torch.zeros(model.hidden_size, device=model.device)
            # Adam moves each coordinate by about the rate a step.
            optimizer = torch.optim.Adam([v], lr=TRAVEL * norms[layer] / (math.sqrt(model.hidden_size) * STEPS))
            for batch in batches:
                if should_stop():
                    return results
                sums = bipo_sums(scorer, batch, {layer: v}, (1.0, -1.0), beta=settings.beta)
                v.grad = sums[:-2] / (2 * len(batch))
                optimizer.step()
            results.append(measured(scorer, range(len(trained), len(scorer.pairs)), layer, v, settings.beta))
        return results

    of_processes = processes.gathered(processes.together(train_and_measure))
    results = (result for of_process in of_processes for result in of_process)
    return LayerSweep(tuple(sorted(results, key=lambda result: result.layer)))


def sweep_by_text(
    model: LanguageModel, pairs: Sequence[EncodedPair], effect: SharedEffect, token_scope: str
) -> int | None:
    """Return the candidate layer at which the pairs' mean difference writes best; None if stopped before any is scored.

    The mean difference costs one forward pass for all layers together and, at the norm that a run may travel, already
    turns the text, so it stands for the vector that a training there would find.
    """
    differences = mean_differences(model, pairs, candidate_layers(model.num_layers))
    scores: dict[int, float] = {}
    for layer, (mean, norm) in differences.items():
        probe = mean * (RUN_TRAVEL * norm / max(float(mean.norm()), 1e-12))
        score = effect.score({layer: probe}, token_scope)
        if score is None:
            break
        scores[layer] = score
    logger.info("Behavior times fluency by layer: %s", {layer: round(score, 3) for layer, score in scores.items()})
    return max(scores, key=lambda layer: scores[layer]) if scores else None


def measured(scorer: PairScorer, indices: Sequence[int], layer: int, v: Tensor, beta: float) -> LayerResult:
    """Measure what the vector v, [hidden_size], does at the layer to these of the scorer's pairs."""
    reference_logps, *steered = preference_logps(scorer, [{layer: v}, {layer: -v}], indices=indices)
    up, down = (log_ratio(logps - reference_logps) for logps in steered)
    loss = (bipo_loss(up, +1.0, beta).mean() + bipo_loss(down, -1.0, beta).mean()) / 2
    return LayerResult(layer, float(loss), float(up.mean()), float(down.mean()))


def in_batches(indices: Sequence[int]) -> list[Sequence[int]]:
    """Split indices into batches of `BATCH`, the last of which may be smaller."""
    return [indices[start : start + BATCH] for start in range(0, len(indices), BATCH)]


def middle(pairs: Sequence[EncodedPair], count: int) -> list[EncodedPair]:
    """Return at most `count` pairs, those of about median length, in order of length."""
    ordered = sorted(pairs, key=lambda p: len(p.prompt) + len(p.chosen) + len(p.rejected))
    start = max(0, (len(ordered) - count) // 2)
    return ordered[start : start + count]
