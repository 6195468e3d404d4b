"""Preference accuracy and margin: from log-probabilities, with a scorer of one's own or one that is there already."""

import pytest
import torch

from steering.evaluation.preference import evaluate, log_ratio, preference_logps, preference_results, wilson_interval
from steering.pairs.tokenization import encode_pairs
from steering.scoring.scorer import PairScorer
from steering.vectors.vector import SteeringVector
from tests.tiny_models import tiny_model


def a_vector(model, *layers, scope="all"):
    generator = torch.Generator().manual_seed(0)
    directions = {k: torch.randn(model.hidden_size, generator=generator) for k in layers}
    return SteeringVector(directions, token_scope=scope)


def test_accuracy_and_margin_are_those_of_the_log_probabilities():
    logps = torch.tensor([[[-3.0, -2.0], [-4.0, -6.0]], [[-1.0, -2.0], [-5.0, -4.0]]])
    (result,) = preference_results(logps, [1.5])
    assert (result.multiplier, result.preference_accuracy, result.preference_margin) == (1.5, 0.5, (2.0 - 3.0) / 2)
    assert result.pairs == 2 and result.margin_interval == (-3.0, 2.0)
    assert log_ratio(logps[0]).tolist() == [-1.0, 2.0]


@pytest.mark.parametrize(
    ("share", "count", "wanted"), [(0.5, 10, (0.237, 0.763)), (1.0, 20, (0.839, 1.0)), (0.0, 20, (0.0, 0.161))]
)
def test_intervals_of_a_share_are_wilsons(share, count, wanted):
    assert wilson_interval(share, count) == pytest.approx(wanted, abs=1e-3)


def test_the_interval_of_the_margin_is_the_same_every_time_and_holds_the_mean():
    margins = torch.randn(40, generator=torch.Generator().manual_seed(1)) + 2
    logps = torch.stack([torch.zeros(40, 2), torch.stack([margins, torch.zeros(40)], dim=1)])
    (first,), (second,) = preference_results(logps, [1.0]), preference_results(logps, [1.0])
    assert first == second
    error, mean = 1.96 * float(margins.std()) / 40**0.5, first.preference_margin
    assert first.margin_interval == pytest.approx((mean - error, mean + error), abs=0.1)


def test_the_reference_comes_first_and_then_every_addition(tiny, pairs):
    scorer = PairScorer(tiny, encode_pairs(tiny, pairs)[1], 1)
    v, heard = torch.ones(tiny.hidden_size), []
    indices = [7, 2, 5, 0, 1]
    got = preference_logps(scorer, [{1: v}, {2: -v}], indices=indices, on_progress=lambda *counts: heard.append(counts))
    assert got.shape == (3, 5, 2) and heard == [(1, 2), (2, 2)]
    for rows, additions in zip(got, ({}, {1: v}, {2: -v}), strict=True):
        torch.testing.assert_close(rows, scorer.logps(indices, additions), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("scope", ["all", "answer"])
def test_a_scorer_that_is_there_gives_the_same_and_reads_nothing_again(scope, tiny, pairs, monkeypatch):
    vector = a_vector(tiny, 2, 3, scope=scope)
    wanted = evaluate(tiny, vector, pairs[5:])
    scorer = PairScorer(tiny, encode_pairs(tiny, pairs)[1], 1, scope=scope)
    scorer.reference_logps(range(8))

    def refuse(*args, **kwargs):
        raise AssertionError("nothing is encoded, and no scorer is made")

    monkeypatch.setattr("steering.evaluation.preference.encode_pairs", refuse)
    monkeypatch.setattr("steering.evaluation.preference.PairScorer", refuse)
    got = evaluate(tiny, vector, pairs[5:], scorer=scorer, indices=range(5, 8))
    assert [result.multiplier for result in got] == [result.multiplier for result in wanted]
    assert [result.preference_accuracy for result in got] == [result.preference_accuracy for result in wanted]
    margins = [result.preference_margin for result in wanted]
    assert [result.preference_margin for result in got] == pytest.approx(margins, rel=1e-4, abs=1e-4)
    everything = evaluate(tiny, vector, pairs, [1], scorer=scorer)
    assert everything != got


def test_a_scorer_that_does_not_fit_is_an_error(tiny, pairs):
    encoded = encode_pairs(tiny, pairs)[1]
    vector = a_vector(tiny, 1)
    others = PairScorer(tiny, encoded, 2), PairScorer(tiny, encoded, 1, scope="answer")
    others += (PairScorer(tiny_model(), encoded, 1),)
    for scorer in others:
        with pytest.raises(ValueError, match="scorer"):
            evaluate(tiny, vector, pairs, scorer=scorer)
