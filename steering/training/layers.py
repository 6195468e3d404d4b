"""Which layer to steer: a short look at a few layers of the middle, before the long training at one of them.

Cao et al. (arXiv 2406.00045) choose the layer by a sweep on held-out questions. Two short looks take its place here.

1. The slopes of all layers at once. At the zero vector the gradient of BiPO's loss is -beta/2 times the mean gradient
   of Delta, so one forward and backward pass tells how fast the preference margin would grow along it at each layer.
2. A few steps at the layers with the steepest slopes, each step with both signs so that little is left to chance,
   measured on held-out pairs as `bipo.run` measures.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle, islice

import torch

from steering.encoding import EncodedPair
from steering.evaluation.preference import BATCH, preference_gaps
from steering.intervention import observed
from steering.models import LanguageModel, hidden_of
from steering.scoring import PairScorer
from steering.training.bipo import BiPOSettings, bipo_loss, step_loss
from steering.training.estimate import middle

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

    @classmethod
    def merged(cls, sweeps: Iterable["LayerSweep"]) -> "LayerSweep":
        """One sweep of the layers of several, as processes did that shared the work."""
        results = {result.layer: result for sweep in sweeps for result in sweep.results}
        return cls(tuple(results[layer] for layer in sorted(results)))


def candidate_layers(num_layers: int, count: int = 5) -> tuple[int, ...]:
    """At most `count` layers spread evenly from 30 % to 75 % of the depth, where steering has been found to work."""
    low, high = 0.3 * (num_layers - 1), 0.75 * (num_layers - 1)
    spots = (low + (high - low) * (i / (count - 1) if count > 1 else 0.5) for i in range(count))
    return tuple(sorted({round(spot) for spot in spots}))


def residual_norms(model: LanguageModel, pairs: Sequence[EncodedPair], layers: Iterable[int]) -> dict[int, float]:
    """For each layer what `PairScorer.residual_norm` gives, all in the same passes."""
    with torch.no_grad(), ExitStack() as stack:
        outputs = {layer: stack.enter_context(observed(model.blocks[layer])) for layer in layers}
        for pair in pairs[:NORM_PAIRS]:
            model.network(input_ids=torch.tensor([pair.prompt + pair.chosen], device=model.device), use_cache=False)
    norms = {
        k: torch.cat([hidden_of(output)[0].float().norm(dim=-1) for output in seen]) for k, seen in outputs.items()
    }
    return {layer: float(each.median()) for layer, each in norms.items()}


def slopes(scorer: PairScorer, norms: Mapping[int, float]) -> dict[int, float]:
    """For each layer the norm of Delta's mean gradient at the zero vector, times the residual norm.

    That is the preference margin, in nats, of a vector along the gradient and as long as the residual norm, to first
    order.
    """
    model, count = scorer.model, len(scorer.pairs)
    zeros = {layer: torch.zeros(model.hidden_size, device=model.device, requires_grad=True) for layer in norms}
    for batch in batches(count):
        scores = scorer.scores(batch, zeros)
        (scores[:, 0] - scores[:, 1]).sum().backward()
    return {layer: float(zero.grad.norm()) / count * norms[layer] for layer, zero in zeros.items()}


def sweep_layers(
    model: LanguageModel,
    pairs: Sequence[EncodedPair],
    held_out: Sequence[EncodedPair],
    *,
    layers: Sequence[int] | None = None,
    settings: BiPOSettings,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> LayerSweep:
    """Train a few steps at each layer on a few of `pairs` and measure on a few of `held_out`.

    Args:
        layers: train at all of these (processes that share the work take some each); by default at the FINALISTS with
            the steepest slopes among `candidate_layers`.
        settings: beta and fast are heeded; the sweep has its own rate, steps and batches.
        on_progress: hears (steps done, steps in all); `should_stop`: asked before each step, once True the sweep ends
            with the layers it has finished.

    Raises SteeringError for a layer the model does not have, ValueError without pairs or held-out pairs.
    """
    if not pairs or not held_out:
        raise ValueError("A sweep needs pairs to train on and held-out pairs to measure.")
    layers_are_ours = layers is None
    layers = sorted({model.check_layer(k) for k in (candidate_layers(model.num_layers) if layers_are_ours else layers)})
    # Made once, at the lowest layer: the untouched pass serves every layer, and cached states do from there upwards.
    scorer = PairScorer(model, middle(pairs, TRAIN_PAIRS), layers[0], fast=settings.fast)
    watched = PairScorer(model, middle(held_out, HELD_OUT_PAIRS), layers[0], fast=settings.fast)
    norms = residual_norms(model, scorer.pairs, layers)
    if layers_are_ours:
        steepness = slopes(scorer, norms)
        layers = sorted(sorted(layers, key=steepness.get)[-FINALISTS:])
    steps = list(islice(cycle(batches(len(scorer.pairs))), STEPS))
    results: list[LayerResult] = []
    for layer in layers:
        v = torch.zeros(model.hidden_size, device=model.device, requires_grad=True)
        # Adam moves each coordinate by about the rate a step.
        optimizer = torch.optim.Adam([v], lr=TRAVEL * norms[layer] / (math.sqrt(model.hidden_size) * STEPS))
        for step, batch in enumerate(steps, start=1):
            if should_stop():
                return LayerSweep(tuple(results))
            optimizer.zero_grad()
            for d in (1.0, -1.0):
                step_loss(scorer, batch, {layer: d * v}, d, settings.beta)[0].backward()
            optimizer.step()
            if on_progress:
                on_progress(len(results) * STEPS + step, len(layers) * STEPS)
        results.append(measured(watched, layer, v, settings.beta))
    return LayerSweep(tuple(results))


def measured(watched: PairScorer, layer: int, v: torch.Tensor, beta: float) -> LayerResult:
    """What the vector v, [hidden_size], does at the layer to the scorer's pairs."""
    untouched, moved = preference_gaps(watched, {+1.0: {layer: v}, -1.0: {layer: -v}})
    deltas = {d: gap - untouched for d, gap in moved.items()}
    loss = sum(float(bipo_loss(delta, d, beta)) for d, delta in deltas.items()) / 2
    return LayerResult(layer, loss, float(deltas[+1.0].mean()), float(deltas[-1.0].mean()))


def batches(count: int) -> list[range]:
    """Indices of `count` pairs in batches of four."""
    return [range(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]
