"""The estimate: tokens counted as a run counts them, times made-up speeds."""

import pytest
import torch

from steering.errors import SteeringError
from steering.pairs.dataset import Pairs
from steering.pairs.tokenization import EncodedPair, encode_pairs, shared_prefix
from steering.scoring.fast.packing import pack
from steering.scoring.scorer import PairScorer
from steering.training import training_run
from steering.training.methods.bipo.config import CURVE_PAIRS, BiPOConfig
from steering.training.methods.bipo.layer_sweep import middle
from steering.training.methods.bipo.time_estimate import Lengths, Speed, measure_speed
from tests.tiny_models import tiny_model

PREFIX, TRAIN = 10, (20, 40, 60, 80, 100, 120)  # in batches of 4: two prefixes a pass
HELD_OUT = (30, 30)


def seconds(speed, settings, held_out=()):
    return speed.seconds(settings, Lengths(PREFIX, (*TRAIN, *held_out)), len(TRAIN))


def packed_tokens(pairs, batch_size):
    prefix = shared_prefix(pair.prompt[:-1] for pair in pairs)
    groups = [pairs[i : i + batch_size] for i in range(0, len(pairs), batch_size)]
    return sum(pack(g, prefix, torch.device("cpu"), torch.float32).tokens.shape[1] for g in groups)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 64])
def test_lengths_count_what_packing_packs(batch_size, tiny, pairs):
    _, encoded = encode_pairs(tiny, pairs)
    assert Lengths.of(encoded).tokens(batch_size) == packed_tokens(encoded, batch_size)
    assert Lengths.of(encoded[:1]).tokens(batch_size) == packed_tokens(encoded[:1], batch_size)
    assert Lengths.of([]).tokens(batch_size) == 0


# The arithmetic -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings, held_out, speed, wanted",
    [
        ({}, (), {"step": 1}, 4 * (420 + 2 * 10)),
        ({"epochs": 1}, (), {"step": 1}, 440),
        ({"batch_size": 1}, (), {"step": 1}, 4 * (420 + 6 * 10)),
        ({"max_steps": 3}, (), {"step": 1}, 3 * 220),
        ({}, HELD_OUT, {"step": 1}, 4 * 440),
        ({}, (), {"scoring": 1}, 0),
        ({}, HELD_OUT, {"scoring": 1}, 4 * 2 * 70),  # 8 steps, every 2
        ({"max_steps": 3}, HELD_OUT, {"scoring": 1}, 3 * 2 * 70),
        ({"max_steps": 1, "epochs": 9}, HELD_OUT, {"setup": 1}, 120),
        ({}, (), {"setup": 1}, 120),
        # Of each pair the norm of four and, for the rate, both answers with the prefix each: 480 + 6 * 10.
        ({}, (), {"untouched": 1}, 440 + 4 * 480 / 6 + 540),
        ({"max_steps": 1}, HELD_OUT, {"untouched": 1}, 220 + 70 + 4 * 480 / 6 + 540),
    ],
)
def test_seconds_are_tokens_times_speed(settings, held_out, speed, wanted):
    speed = Speed(**{"setup": 0, "untouched": 0, "step": 0, "scoring": 0, **speed})
    assert seconds(speed, BiPOConfig(**settings), held_out) == pytest.approx(wanted)


def test_parts_add_up():
    parts = [Speed(*(float(i == part) * (i + 1) for i in range(4))) for part in range(4)]
    total = seconds(Speed(1, 2, 3, 4), BiPOConfig(), HELD_OUT)
    assert total == pytest.approx(sum(seconds(part, BiPOConfig(), HELD_OUT) for part in parts))


def test_held_out_pairs_beyond_those_watched_cost_nothing():
    many, watched = (30,) * (CURVE_PAIRS + 5), (30,) * CURVE_PAIRS
    speed = Speed(1, 1, 1, 1)
    assert seconds(speed, BiPOConfig(), many) == seconds(speed, BiPOConfig(), watched)


def test_both_signs_take_two_steps_each():
    speed = Speed(0, 0, 1, 0)
    assert seconds(speed, BiPOConfig(signs="both")) == 2 * seconds(speed, BiPOConfig())


@pytest.mark.parametrize(
    "settings",
    [{"epochs": 3, "batch_size": 2}, {"epochs": 1, "batch_size": 4}, {"epochs": 7, "batch_size": 64}],
    ids=["usual", "less than four steps", "one batch"],
)
def test_a_run_spends_the_tokens_that_are_predicted(settings, tiny, pairs, monkeypatch):
    """Every pass of a real run after its preparation is counted."""
    spent = {"untouched": 0, "step": 0, "scoring": 0}
    seen: dict[PairScorer, set[int]] = {}
    logps, value_and_grad, reference = PairScorer.logps, PairScorer.value_and_grad, PairScorer.reference_logps

    def tokens(scorer, indices):
        lengths = Lengths.of(scorer.pairs)
        return lengths.prefix + sum(lengths.own[i] for i in indices)

    def counted_logps(scorer, indices, additions):
        spent["scoring"] += tokens(scorer, indices)
        return logps(scorer, indices, additions)

    def counted_steps(scorer, indices, vectors, loss, **options):
        spent["step"] += tokens(scorer, indices)
        return value_and_grad(scorer, indices, vectors, loss, **options)

    def counted_reference(scorer, indices):
        if new := set(indices) - seen.setdefault(scorer, set()):
            spent["untouched"] += tokens(scorer, new)
            seen[scorer] |= new
        return reference(scorer, indices)

    monkeypatch.setattr(PairScorer, "logps", counted_logps)
    monkeypatch.setattr(PairScorer, "value_and_grad", counted_steps)
    monkeypatch.setattr(PairScorer, "reference_logps", counted_reference)
    reports = list(training_run(tiny, pairs[:5], pairs[5:], layer=1, **settings))

    settings = BiPOConfig(**settings)
    lengths = Lengths.of(encode_pairs(tiny, pairs)[1])
    assert -(-settings.steps(5) // settings.measure_every(5)) == sum(report.held_out is not None for report in reports)
    for name in ("step", "scoring"):
        speed = Speed(**{"setup": 0, "untouched": 0, "step": 0, "scoring": 0, name: 1})
        assert speed.seconds(settings, lengths, 5) == pytest.approx(spent[name])
    finding_the_norm = 4 * Lengths(lengths.prefix, lengths.own[:5]).tokens(1) / 5
    both_answers = sum(lengths.own[:5]) + 2 * 5 * lengths.prefix
    wanted = spent["untouched"] + finding_the_norm + both_answers
    assert Speed(0, 1, 0, 0).seconds(settings, lengths, 5) == pytest.approx(wanted)


# Measuring ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["llama", "bloom"], ids=["fast", "reference"])
def test_every_speed_is_measured_and_the_model_is_as_it_was(architecture, pairs, no_hooks):
    model = tiny_model(architecture)
    _, encoded = encode_pairs(model, pairs)
    speed = measure_speed(model, encoded, 1)
    assert min(speed.setup, speed.untouched, speed.step, speed.scoring) > 0
    assert measure_speed(model, encoded[:1], 1).step > 0
    assert no_hooks(model)
    assert not any(p.requires_grad or p.grad is not None for p in model.network.parameters())


def test_pairs_of_median_length_are_taken():
    pairs = [EncodedPair((1,) * n, (2,), (3,)) for n in (9, 1, 8, 2, 7, 3, 6, 4, 5)]
    assert [len(pair.prompt) for pair in middle(pairs, 2)] == [4, 5]
    assert [len(pair.prompt) for pair in middle(pairs, 4)] == [3, 4, 5, 6]
    assert [len(pair.prompt) for pair in middle(pairs[:3], 4)] == [1, 8, 9]


def test_what_cannot_be_measured(tiny, pairs):
    _, encoded = encode_pairs(tiny, pairs)
    with pytest.raises(SteeringError, match="Layer 4"):
        measure_speed(tiny, encoded, 4)
    with pytest.raises(ValueError, match="no pairs"):
        measure_speed(tiny, encode_pairs(tiny, Pairs.of(pairs))[1][:0], 1)
