"""Which layer to steer: a short look at a few layers of the middle, before the long training at one of them.

Cao et al. (arXiv 2406.00045) choose the layer by a sweep on held-out questions. Two short looks take its place here.

1. The slopes of all layers at once. At the zero vector the gradient of BiPO's loss is -beta/2 times the mean gradient
   of Delta, so one forward and backward pass tells how fast the preference margin would grow along it at each layer.
2. A few steps at the layers with the steepest slopes, each step with both signs so that little is left to chance,
   measured on held-out pairs as `bipo.run` measures.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import torch

from steering.evaluation.preference import BATCH, preference_gaps
from steering.models.loading import LanguageModel
from steering.pairs.tokenization import EncodedPair
from steering.runtime.distributed import ALONE, Processes
from steering.scoring.scorer import PairScorer
from steering.training.methods.bipo.config import BiPOSettings
from steering.training.methods.bipo.step import bipo_loss, summed_gradient

FINALISTS = 2
"""So many layers are trained at when the choice among the candidates is ours."""
STEPS = 2
"""Optimiser steps at each layer."""
TRAVEL = 0.08
"""Steps all in one direction carry the vector to this share of the residual norm."""
NORM_PAIRS = 2
"""So many conversations tell the residual norms."""
TRAIN_PAIRS = 8
HELD_OUT_PAIRS = 8
"""So many pairs of about median length are trained on, and measured: the shortest ones are often of another kind."""


@dataclass(frozen=True)
class LayerResult:
    """How a few steps at a layer did on held-out pairs.

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
    """At most `count` layers spread evenly from 30 % to 75 % of the depth, where steering has been found to work."""
    low, high = 0.3 * (num_layers - 1), 0.75 * (num_layers - 1)
    spots = (low + (high - low) * (i / (count - 1) if count > 1 else 0.5) for i in range(count))
    return tuple(sorted({round(spot) for spot in spots}))


def slopes(scorer: PairScorer, pairs: Sequence[int], norms: Mapping[int, float]) -> dict[int, float]:
    """For each layer the norm of Delta's mean gradient at the zero vector, times the residual norm.

    That is the preference margin, in nats, of a vector along the gradient and as long as the residual norm, to first
    order: at the zero vector the loss's gradient is -beta / 2 times that of Delta.
    """
    zeros = {layer: torch.zeros(scorer.model.hidden_size, device=scorer.model.device) for layer in norms}
    summed = sum(summed_gradient(scorer, batch, zeros, (1.0,), beta=2.0) for batch in in_fours(pairs))
    each = summed[:-2].split(scorer.model.hidden_size)
    return {layer: float(g.norm()) / len(pairs) * norms[layer] for layer, g in zip(norms, each, strict=True)}


def sweep_layers(
    model: LanguageModel,
    pairs: Sequence[EncodedPair],
    held_out: Sequence[EncodedPair],
    *,
    settings: BiPOSettings,
    layers: Sequence[int] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    processes: Processes = ALONE,
) -> LayerSweep:
    """Train a few steps at each layer on a few of `pairs` and measure on a few of `held_out`.

    Args:
        settings: beta, token scope and fast are heeded; the sweep has its own rate, steps and batches.
        layers: train at all of these; by default at the FINALISTS with the steepest slopes of `candidate_layers`.
        on_progress: hears (steps done, steps in all); `should_stop`: asked before each step, once True the sweep ends
            with the layers it has finished.
        processes: those that share the layers out.

    Raises SteeringError for a layer the model does not have, ValueError without pairs or held-out pairs.
    """
    if not pairs or not held_out:
        raise ValueError("A sweep needs pairs to train on and held-out pairs to measure.")
    chosen = sorted({model.check_layer(k) for k in (layers or candidate_layers(model.num_layers))})
    trained, watched = middle(pairs, TRAIN_PAIRS), middle(held_out, HELD_OUT_PAIRS)

    def prepared() -> tuple[PairScorer, dict[int, float], list[int]]:
        # One scorer at the lowest layer: its untouched pass serves every layer, its kept states do from there upwards.
        options = {"scope": settings.token_scope, "fast": settings.fast}
        scorer = PairScorer(model, [*trained, *watched], chosen[0], **options)
        norms = scorer.residual_norms(chosen, NORM_PAIRS)
        if layers:
            return scorer, norms, chosen
        steepness = slopes(scorer, range(len(trained)), norms)
        return scorer, norms, sorted(sorted(chosen, key=steepness.get)[-FINALISTS:])

    scorer, norms, finalists = processes.together(prepared)
    mine = processes.agreed(finalists)[processes.index :: processes.count]
    steps = list(islice(cycle(in_fours(range(len(trained)))), STEPS))

    def results() -> list[LayerResult]:
        found: list[LayerResult] = []
        for layer in mine:
            v = torch.zeros(model.hidden_size, device=model.device)
            # Adam moves each coordinate by about the rate a step.
            optimizer = torch.optim.Adam([v], lr=TRAVEL * norms[layer] / (math.sqrt(model.hidden_size) * STEPS))
            for step, batch in enumerate(steps, start=1):
                if should_stop():
                    return found
                summed = summed_gradient(scorer, batch, {layer: v}, (1.0, -1.0), beta=settings.beta)
                v.grad = summed[:-2] / (2 * len(batch))
                optimizer.step()
                if on_progress:
                    on_progress(len(found) * STEPS + step, len(mine) * STEPS)
            found.append(measured(scorer, range(len(trained), len(scorer.pairs)), layer, v, settings.beta))
        return found

    every = processes.gathered(processes.together(results))
    return LayerSweep(tuple(sorted((result for part in every for result in part), key=lambda result: result.layer)))


def measured(scorer: PairScorer, pairs: Sequence[int], layer: int, v: torch.Tensor, beta: float) -> LayerResult:
    """What the vector v, [hidden_size], does at the layer to these of the scorer's pairs."""
    untouched, moved = preference_gaps(scorer, {+1.0: {layer: v}, -1.0: {layer: -v}}, indices=pairs)
    deltas = {d: each - untouched for d, each in moved.items()}
    loss = sum(float(bipo_loss(delta, d, beta).mean()) for d, delta in deltas.items()) / 2
    return LayerResult(layer, loss, float(deltas[+1.0].mean()), float(deltas[-1.0].mean()))


def in_fours(places: Sequence[int]) -> list[Sequence[int]]:
    """The places in batches of four."""
    return [places[start : start + BATCH] for start in range(0, len(places), BATCH)]


def middle(pairs: Sequence[EncodedPair], count: int) -> list[EncodedPair]:
    """At most `count` pairs, those of about median length."""
    ordered = sorted(pairs, key=lambda p: len(p.prompt) + len(p.chosen) + len(p.rejected))
    start = max(0, (len(ordered) - count) // 2)
    return ordered[start : start + count]
