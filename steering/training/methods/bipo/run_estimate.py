"""How long a whole BiPO run will take on this machine, the sweep over layers and the counting of tokens included.

The speed is measured once for a model and a layer, and remembered as long as the model lives; after that an estimate is
arithmetic. `time_estimate.py` says what is measured.
"""

import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice

from steering.evaluation.preference import BATCH
from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs
from steering.pairs.tokenization import EncodedPair, encode_pairs
from steering.training.methods.bipo.config import CURVE_PAIRS, SWEEP, BiPOConfig
from steering.training.methods.bipo.layer_sweep import FINALISTS, HELD_OUT_PAIRS, STEPS, TRAIN_PAIRS
from steering.training.methods.bipo.time_estimate import Lengths, Speed, measure_speed
from steering.training.methods.bipo.train import steered_layers

SAMPLED_PAIRS = 200
"""Training pairs whose tokens are counted; the others are taken to be like them. Tokenising 200 pairs of the example
sets takes less than a tenth of a second, 50,000 would keep the page waiting."""


@dataclass
class _Known:
    """What is remembered of one model: speeds by layer, and the pairs counted last, by their digests."""

    speeds: dict[int, Speed] = field(default_factory=dict)
    counted: tuple[tuple[str, str], "_Counted"] | None = None


@dataclass(frozen=True)
class _Counted:
    """Pairs that were tokenised, their lengths with the training pairs first, and the number of training pairs."""

    sample: Sequence[EncodedPair]
    lengths: Lengths
    training: int


_known: "weakref.WeakKeyDictionary[LanguageModel, _Known]" = weakref.WeakKeyDictionary()
_lock = threading.Lock()  # two measurements side by side would slow each other down and both be wrong


def estimate(model: LanguageModel, pairs: Pairs, held_out: Pairs, config: BiPOConfig) -> float:
    """Predict the seconds of a run with these arguments; measures for a few seconds where the layer is new.

    Raises SteeringError for a layer that the model does not have, or pairs of which it can read none.
    """
    layer = steered_layers(model, config.layer)[0]
    with _lock:
        known = _known.setdefault(model, _Known())
        counted = _counted(model, pairs, held_out, known)
        if layer not in known.speeds:
            known.speeds[layer] = measure_speed(model, counted.sample, layer)
        speed = known.speeds[layer]
    seconds = speed.seconds(config, counted.lengths, counted.training)
    if config.layer == SWEEP and held_out:
        seconds += sweep_seconds(speed, counted.lengths, counted.training)
    return seconds


def sweep_seconds(speed: Speed, pairs: Lengths, training: int) -> float:
    """Predict the seconds of `layer_sweep.sweep_layers`; of `pairs` the first `training` are those to train on."""
    trained_on = Lengths(pairs.prefix, pairs.own[:training][:TRAIN_PAIRS]).tokens(BATCH)
    measured_on = Lengths(pairs.prefix, pairs.own[training:][:HELD_OUT_PAIRS]).tokens(BATCH)
    slopes_and_steps = trained_on + 2 * FINALISTS * STEPS * trained_on / 2  # a step takes half the pairs, both signs
    return (
        speed.setup * max(pairs.own)
        + speed.untouched * (trained_on + measured_on)
        + speed.step * slopes_and_steps
        + speed.scoring * 2 * FINALISTS * measured_on
    )


def _counted(model: LanguageModel, pairs: Pairs, held_out: Pairs, known: _Known) -> _Counted:
    """Count the tokens of the pairs a run will read, once for the same pairs."""
    key = (pairs.sha256, held_out.sha256)
    if known.counted is None or known.counted[0] != key:
        _, sample = encode_pairs(model, pairs[:SAMPLED_PAIRS])
        measured = encode_pairs(model, held_out[:CURVE_PAIRS])[1] if held_out else []
        lengths = Lengths.of([*sample, *measured])
        trained_on = tuple(islice(cycle(lengths.own[: len(sample)]), len(pairs)))
        lengths = Lengths(lengths.prefix, (*trained_on, *lengths.own[len(sample) :]))
        known.counted = (key, _Counted(sample, lengths, len(trained_on)))
    return known.counted[1]
