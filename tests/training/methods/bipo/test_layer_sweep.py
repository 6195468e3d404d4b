"""The sweep over layers: what it measures is what the reference measures, and it ends in good order."""

import math

import pytest
import torch

from steering.errors import SteeringError
from steering.evaluation import evaluate
from steering.pairs.tokenization import EncodedPair, encode_pairs
from steering.scoring.scorer import PairScorer
from steering.training.methods.bipo import layer_sweep as module
from steering.training.methods.bipo.config import BiPOConfig
from steering.training.methods.bipo.layer_sweep import LayerResult, LayerSweep, candidate_layers, slopes, sweep_layers
from steering.vectors.vector import SteeringVector
from tests.tiny_models import tiny_model

SETTINGS = BiPOConfig()


@pytest.fixture
def encoded(tiny, pairs):
    return encode_pairs(tiny, pairs)[1]


def sweep(model, encoded, layers=(0, 1, 2, 3), settings=SETTINGS, **others):
    return sweep_layers(model, encoded[:5], encoded[5:], layers=layers, settings=settings, **others)


def figures(result):
    return [result.loss, result.margin_up, result.margin_down]


# The candidates -------------------------------------------------------------------------------------------------------


def test_candidates_are_spread_over_the_middle():
    assert candidate_layers(30) == (9, 12, 15, 18, 22)
    assert candidate_layers(32, 3) == (9, 16, 23)
    assert candidate_layers(30, 1) == (15,)
    assert candidate_layers(1) == (0,)


def test_candidates_exist_in_every_model_and_repeat_in_none():
    for depth in range(1, 130):
        found = candidate_layers(depth)
        assert 1 <= len(found) == len(set(found)) <= 5 and set(found) <= set(range(depth)), depth
        assert list(found) == sorted(found)
        assert len(found) == 5 or depth < 12, depth


# The slopes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
def test_slopes_are_the_growth_of_the_margin_along_each_layers_gradient(fast, tiny, encoded):
    norms = {1: 2.0, 2: 1.0, 3: 0.5}
    got = slopes(PairScorer(tiny, encoded, 1, fast=fast), range(len(encoded)), norms)
    for layer, norm in norms.items():
        plain = PairScorer(tiny, encoded, layer, fast=False)
        zero = {layer: torch.zeros(tiny.hidden_size)}
        gradients = [
            plain.value_and_grad([i], zero, lambda _, logps, __: (logps[:, 0] - logps[:, 1]).sum())[1][layer]
            for i in range(len(encoded))
        ]
        assert got[layer] == pytest.approx(norm * float((sum(gradients) / len(encoded)).norm()), rel=1e-4)


def test_the_layers_with_the_steepest_slopes_are_trained_at(pairs):
    model = tiny_model(num_hidden_layers=12)
    _, encoded = encode_pairs(model, pairs)
    candidates = candidate_layers(12)
    scorer = PairScorer(model, module.middle(encoded[:5], 5), candidates[0])
    steepness = slopes(scorer, range(5), scorer.residual_norms(candidates, module.NORM_PAIRS))
    found = [result.layer for result in sweep(model, encoded, layers=None).results]
    assert found == sorted(sorted(candidates, key=steepness.get)[-module.FINALISTS :])


# The results ----------------------------------------------------------------------------------------------------------


def test_each_layer_gets_what_it_gets_alone_and_the_reference_way(tiny, encoded):
    """Hidden states cached at the lowest layer serve the others."""
    together = sweep(tiny, encoded)
    alone = LayerSweep(tuple(sweep(tiny, encoded, [layer]).results[0] for layer in range(4)))
    plain = sweep(tiny, encoded, settings=BiPOConfig(fast=False))
    assert [result.layer for result in together.results] == [0, 1, 2, 3]
    for other in (alone, plain):
        assert [result.layer for result in other.results] == [0, 1, 2, 3]
        for one, two in zip(together.results, other.results, strict=True):
            assert figures(one) == pytest.approx(figures(two), rel=1e-3, abs=1e-3)


def test_results_are_those_of_evaluate(tiny, pairs, encoded):
    direction = torch.randn(tiny.hidden_size, generator=torch.Generator().manual_seed(0))
    vector = SteeringVector({2: direction}, model_id=tiny.source, model_fingerprint=tiny.fingerprint)
    up, down = evaluate(tiny, vector, pairs, [1, -1])
    got = module.measured(PairScorer(tiny, encoded, 1), range(8), 2, direction, beta=0.2)
    assert (got.layer, got.margin_up, got.margin_down) == (
        2,
        pytest.approx(up.preference_margin, rel=1e-4),
        pytest.approx(down.preference_margin, rel=1e-4),
    )
    scorer = PairScorer(tiny, encoded, 2, fast=False)
    base = scorer.reference_logps(range(8))
    loss = 0.0
    for d in (1, -1):
        delta = (scorer.logps(range(8), {2: d * direction}) - base) @ torch.tensor([1.0, -1.0])
        loss += float(-torch.log(torch.sigmoid(d * 0.2 * delta)).mean()) / 2
    assert got.loss == pytest.approx(loss, rel=1e-4)


def test_a_few_steps_move_held_out_pairs_both_ways(tiny, encoded):
    for result in sweep_layers(tiny, encoded, encoded, layers=range(4), settings=SETTINGS).results:
        assert result.loss < math.log(2) and result.margin_up > 0 > result.margin_down, result


def test_pairs_of_median_length_stand_for_all(tiny, encoded):
    """However many pairs there are, a sweep takes as long as with eight."""
    short = [EncodedPair((1, 5 + i), (6, 2), (7, 2)) for i in range(4)]
    long = [EncodedPair((1, *range(4, 180), 5 + i), (6, 2), (7, 2)) for i in range(4)]
    wanted = sweep_layers(tiny, encoded, encoded, layers=[1], settings=SETTINGS)
    many = [*long, *encoded, *short]
    assert sweep_layers(tiny, many, many, layers=[1], settings=SETTINGS) == wanted


def test_the_best_layer_has_the_lowest_loss():
    one, two, three = (LayerResult(k, loss, 1.0, -1.0) for k, loss in ((3, 0.6), (7, 0.5), (9, 0.7)))
    assert LayerSweep((one, two, three)).best == 7 and LayerSweep().best is None


# Stopping, failing ----------------------------------------------------------------------------------------------------


def test_stopping_keeps_the_layers_that_are_done(tiny, encoded):
    whole = sweep(tiny, encoded)
    asked = []

    def should_stop():
        asked.append(1)
        return len(asked) == module.STEPS + 2  # before the second step at the second layer

    stopped = sweep(tiny, encoded, should_stop=should_stop)
    assert len(asked) == module.STEPS + 2 and stopped.results == whole.results[:1]
    assert sweep(tiny, encoded, should_stop=lambda: True) == LayerSweep()


def test_the_model_is_as_it_was(pairs, no_hooks, monkeypatch):
    model = tiny_model()
    _, encoded = encode_pairs(model, pairs)
    before = {name: parameter.clone() for name, parameter in model.network.named_parameters()}
    sweep(model, encoded)
    monkeypatch.setattr(module, "bipo_sums", lambda *args, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sweep(model, encoded)
    assert no_hooks(model)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.network.named_parameters())
    assert not any(p.requires_grad or p.grad is not None for p in model.network.parameters())


def test_what_cannot_be_swept(tiny, encoded):
    with pytest.raises(SteeringError, match="Layer 4"):
        sweep(tiny, encoded, [1, 4])
    for train, held_out in (([], encoded), (encoded, [])):
        with pytest.raises(ValueError, match="held-out"):
            sweep_layers(tiny, train, held_out, settings=SETTINGS)
