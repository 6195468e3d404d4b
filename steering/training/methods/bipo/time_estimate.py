"""How long a BiPO run will take on this machine, told before it runs.

Nearly all of a run's time goes into tokens, and a packed batch (packing.py) says how many there are: the shared prefix
once, each pair's own tokens once. So one real batch is run the three ways a run will run it, and what it took per token
is multiplied by the tokens to come.
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
from steering.training.methods.bipo.config import CURVE_PAIRS, BiPOSettings
from steering.training.methods.bipo.layer_sweep import middle
from steering.training.methods.bipo.step import summed_gradient

SAMPLE = 2
"""At most this many pairs are run to measure the speed."""
NORM_PAIRS = 4
"""So many conversations `PairScorer.residual_norms` runs."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of preference pairs as a packed batch counts them.

    Attributes:
        prefix: tokens with which every prompt begins, run once a batch.
        own: for each pair, in order, the tokens of its own: prompt after the prefix, chosen, rejected.
    """

    prefix: int = 0
    own: tuple[int, ...] = ()

    @classmethod
    def of(cls, pairs: Sequence[EncodedPair]) -> "Lengths":
        prefix = len(shared_prefix(pair.prompt[:-1] for pair in pairs))
        # The last token of an answer is never run (see packing.py).
        return cls(prefix, tuple(len(p.prompt) - prefix + len(p.chosen) - 1 + len(p.rejected) - 1 for p in pairs))

    def tokens(self, batch_size: int) -> int:
        """Tokens run in one pass through all pairs, `batch_size` at a time."""
        batches = -(-len(self.own) // batch_size)
        return batches * self.prefix + sum(self.own)


@dataclass(frozen=True)
class Speed:
    """What this machine takes for one model and one layer, in seconds per token of a packed batch.

    Attributes:
        setup: making a scorer, per token of its longest pair (on which the fast way is tried out).
        untouched: the pass through the whole model that every pair takes once.
        step: a training step, forward and backward through the blocks after the layer.
        scoring: the same blocks forward only, as on held-out pairs.
    """

    setup: float
    untouched: float
    step: float
    scoring: float

    def seconds(self, settings: BiPOSettings, pairs: Lengths, training: int) -> float:
        """Predicted seconds of `bipo.run`, from its start to its last report; without a sweep over layers.

        `pairs` are those for training, which come first, and then those held out.
        """
        train = Lengths(pairs.prefix, pairs.own[:training])
        watched = Lengths(pairs.prefix, pairs.own[training:][:CURVE_PAIRS])
        steps = settings.steps(training)
        first_epoch = min(steps, settings.steps_per_epoch(training))
        each_step = train.tokens(settings.batch_size) / settings.steps_per_epoch(training)
        each_measurement = watched.tokens(BATCH)

        norm = self.untouched * train.tokens(1) / training * min(training, NORM_PAIRS)
        preparation = norm + self.setup * max((*train.own, *watched.own))
        caching = self.untouched * (first_epoch * each_step + each_measurement)
        moving = self.step * steps * each_step * (2 if settings.signs == "both" else 1)
        measuring = self.scoring * 2 * -(-steps // settings.measure_every(training)) * each_measurement
        return preparation + caching + moving + measuring


def measure_speed(model: LanguageModel, pairs: Sequence[EncodedPair], layer: int) -> Speed:
    """Run a batch of at most two pairs of about median length; a few seconds on the bundled model.

    Raises SteeringError for a layer that the model does not have, ValueError without pairs.
    """
    if not pairs:
        raise ValueError("There are no pairs to measure with.")
    model.check_layer(layer)
    sample = middle(pairs, SAMPLE)
    lengths = Lengths.of(sample)
    batch, tokens = range(len(sample)), lengths.tokens(SAMPLE)
    v = torch.zeros(model.hidden_size, device=model.device)

    # In this order: trying out the fast way warms the machine up, the untouched pass keeps states for the later ones.
    with stopwatch() as setup:
        scorer = PairScorer(model, sample, layer)
    with stopwatch() as untouched:
        scorer.reference(batch).tolist()  # a list, because a GPU works on until it is asked for numbers
    with stopwatch() as step:
        summed_gradient(scorer, batch, {layer: v}, (1.0,), beta=BiPOSettings().beta).tolist()
    with stopwatch() as scoring, torch.no_grad():
        scorer.scores(batch, {layer: v}).tolist()
    return Speed(setup[0] / max(lengths.own), untouched[0] / tokens, step[0] / tokens, scoring[0] / tokens)


@contextmanager
def stopwatch() -> Iterator[list[float]]:
    """Gives a list that holds the seconds once the context has ended."""
    seconds: list[float] = []
    began = time.perf_counter()
    yield seconds
    seconds.append(time.perf_counter() - began)
