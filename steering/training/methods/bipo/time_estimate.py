"""How long a BiPO run will take on this machine, predicted before it runs.

Nearly all of a run's time goes into tokens, and how many there are follows from the lengths of the pairs: the shared
prefix once a batch, each pair's own tokens once (see `scoring`). So one real batch is run in the three ways in which a
run uses it, and the seconds per token are multiplied by the tokens to come.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from steering.evaluation.preference import BATCH
from steering.models.loading import LanguageModel
from steering.pairs.tokenization import EncodedPair, shared_prefix
from steering.scoring.scorer import PairScorer
from steering.training.methods.bipo.config import CURVE_PAIRS, START_PAIRS, BiPOConfig
from steering.training.methods.bipo.layer_sweep import middle
from steering.training.methods.bipo.start import RATE_PAIRS
from steering.training.methods.bipo.step import bipo_sums

SAMPLE = 2
"""At most this many pairs are run to measure the speed: one for each of two cores, a few seconds."""
NORM_PAIRS = 4
"""Conversations that `PairScorer.residual_norms` runs."""


@dataclass(frozen=True)
class Lengths:
    """Numbers of tokens of preference pairs in a packed batch.

    Attributes:
        prefix: tokens with which every prompt begins, run once a batch.
        own: for each pair, in order, its other tokens: prompt after the prefix, chosen, rejected.
    """

    prefix: int = 0
    own: tuple[int, ...] = ()

    @classmethod
    def of(cls, pairs: Sequence[EncodedPair]) -> "Lengths":
        """Count the tokens of these pairs; those with which all prompts begin are the prefix."""
        prefix = len(shared_prefix(pair.prompt[:-1] for pair in pairs))
        # The last token of an answer is never run: nothing follows that it would predict.
        return cls(prefix, tuple(len(p.prompt) - prefix + len(p.chosen) - 1 + len(p.rejected) - 1 for p in pairs))

    def tokens(self, batch_size: int) -> int:
        """Return the tokens run in one pass through all pairs, `batch_size` at a time."""
        batches = -(-len(self.own) // batch_size)
        return batches * self.prefix + sum(self.own)


@dataclass(frozen=True)
class Speed:
    """Seconds per token of a packed batch, on this machine for one model and one layer.

    Attributes:
        setup: making a scorer, per token of its longest pair (on which the fast way is compared).
        untouched: the pass through the whole model that every pair takes once.
        step: a training step, forward and backward through the blocks after the layer.
        scoring: the same blocks forward only, as on held-out pairs.
    """

    setup: float
    untouched: float
    step: float
    scoring: float

    def seconds(self, settings: BiPOConfig, pairs: Lengths, training: int) -> float:
        """Predict the seconds of a run from its start to its last report, without a sweep over layers.

        Args:
            settings: of the run.
            pairs: lengths of the training pairs, which come first, and of the held-out pairs.
            training: the number of training pairs.
        """
        train = Lengths(pairs.prefix, pairs.own[:training])
        held_out = Lengths(pairs.prefix, pairs.own[training:][:CURVE_PAIRS])
        steps = settings.steps(training)
        first_epoch = min(steps, settings.steps_per_epoch(training))
        each_step = train.tokens(settings.batch_size) / settings.steps_per_epoch(training)
        each_measurement = held_out.tokens(BATCH)

        norm = self.untouched * train.tokens(1) / training * min(training, NORM_PAIRS)
        most = START_PAIRS if settings.start != "zero" else RATE_PAIRS
        both = Lengths(pairs.prefix, train.own[:most])  # each answer runs with its prompt, not packed
        start = self.untouched * (both.tokens(1) + pairs.prefix * len(both.own))
        preparation = norm + start + self.setup * max((*train.own, *held_out.own))
        caching = self.untouched * (first_epoch * each_step + each_measurement)
        training_steps = self.step * steps * each_step * (2 if settings.signs == "both" else 1)
        measuring = self.scoring * 2 * -(-steps // settings.measure_every(training)) * each_measurement
        return preparation + caching + training_steps + measuring


def measure_speed(model: LanguageModel, pairs: Sequence[EncodedPair], layer: int) -> Speed:
    """Measure the speed on a batch of at most two pairs of about median length; a few seconds on the bundled model.

    Raises SteeringError for a layer that the model does not have, ValueError without pairs.
    """
    if not pairs:
        raise ValueError("There are no pairs to measure with.")
    model.check_layer(layer)
    sample = middle(pairs, SAMPLE)
    lengths = Lengths.of(sample)
    batch, tokens = range(len(sample)), lengths.tokens(SAMPLE)
    v = torch.zeros(model.hidden_size, device=model.device)

    # In this order: making the scorer warms the machine up, the untouched pass caches hidden states for the later ones.
    with stopwatch() as setup:
        scorer = PairScorer(model, sample, layer)
    with stopwatch() as untouched:
        scorer.reference_logps(batch).tolist()  # a list, because a GPU works on until it is asked for numbers
    with stopwatch() as step:
        bipo_sums(scorer, batch, {layer: v}, (1.0,), beta=BiPOConfig().beta).tolist()
    with stopwatch() as scoring:
        scorer.logps(batch, {layer: v}).tolist()
    return Speed(setup[0] / max(lengths.own), untouched[0] / tokens, step[0] / tokens, scoring[0] / tokens)


@contextmanager
def stopwatch() -> Iterator[list[float]]:
    """Yield a list that holds the seconds once the context has ended."""
    seconds: list[float] = []
    began = time.perf_counter()
    yield seconds
    seconds.append(time.perf_counter() - began)
