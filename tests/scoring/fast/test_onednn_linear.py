"""Linear maps are the same by either library; which one multiplies is seen by counting."""

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steering.pairs.dataset import Pairs
from steering.pairs.tokenization import encode_pairs
from steering.scoring.fast import onednn_linear
from steering.scoring.fast.onednn_linear import FrozenLinear, frozen_linears, linear, onednn_operator
from steering.scoring.scorer import PairScorer
from steering.training.methods.bipo.step import bipo_sums
from tests.tiny_models import ARCHITECTURES, tiny_model


@pytest.fixture
def asked(monkeypatch):
    """Shapes that oneDNN was asked for; it is asked for everything."""
    found, operator = [], onednn_operator()
    assert operator is not None, "PyTorch for x86 has it"

    def counted(states, weight, bias):
        found.append((*states.shape, *weight.shape))
        return operator(states, weight, bias)

    monkeypatch.setattr(onednn_linear, "onednn_operator", lambda: counted)
    monkeypatch.setattr(onednn_linear, "MIN_WEIGHT_NUMBERS", 0)
    monkeypatch.setattr(onednn_linear, "MIN_ROWS", 1)
    return found


@pytest.fixture
def fresh():
    """oneDNN's operator is looked for anew, now and after the test."""
    onednn_operator.cache_clear()
    yield
    onednn_operator.cache_clear()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(40, 24), (1, 5, 24), (2, 3, 7, 24)])
@pytest.mark.parametrize("strided", [True, False])
def test_a_product_is_the_linear_map(shape, bias, strided, asked):
    states = torch.randn(*shape[:-1], 2 * shape[-1])[..., :24] if strided else torch.randn(shape)
    weight = torch.randn(24, 60).t() if strided else torch.randn(60, 24)
    shift = torch.randn(60) if bias else None
    torch.testing.assert_close(linear(states, weight, shift), F.linear(states, weight, shift))
    assert len(asked) == 1


@pytest.mark.parametrize("bias", [True, False])
def test_the_gradient_is_autograds(bias, asked):
    original = nn.Linear(24, 60, bias=bias).requires_grad_(False)
    states, upstream = torch.randn(1, 9, 24, requires_grad=True), torch.randn(1, 9, 60)
    got = torch.autograd.grad(FrozenLinear(original)(states), states, upstream)[0]
    want = torch.autograd.grad(original(states), states, upstream)[0]
    torch.testing.assert_close(got, want)
    assert len(asked) == 2


def test_what_does_not_pay_goes_the_usual_way(asked, monkeypatch):
    monkeypatch.setattr(onednn_linear, "MIN_ROWS", 3)
    monkeypatch.setattr(onednn_linear, "MIN_WEIGHT_NUMBERS", 24 * 60)
    weight = torch.randn(60, 24)
    for states, matrix, taken in [
        (torch.randn(3, 24), weight, True),
        (torch.randn(2, 24), weight, False),
        (torch.randn(3, 24), weight[1:], False),
        (torch.randn(3, 24).bfloat16(), weight.bfloat16(), False),
    ]:
        asked.clear()
        assert torch.equal(linear(states, matrix), F.linear(states, matrix)) or taken
        assert bool(asked) == taken


def test_nothing_to_multiply(asked):
    assert linear(torch.randn(0, 24), torch.randn(60, 24)).shape == (0, 60)


def broken(*_):
    raise RuntimeError("no such operator")


def other(states, weight, bias, *_):
    return 1.001 * F.linear(states, weight, bias)


@pytest.mark.parametrize("operator, words", [(broken, "no such operator"), (other, "other results")])
def test_an_operator_that_fails_or_differs_is_left_alone(operator, words, fresh, monkeypatch, caplog):
    private = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001 - torch has no public name for it
    monkeypatch.setattr(private, "default", operator)
    assert onednn_operator() is None
    assert words in caplog.text and caplog.records[0].levelno == logging.WARNING
    large = nn.Linear(300, 300)
    assert not frozen_linears(large)
    states = torch.randn(40, 300)
    assert torch.equal(linear(states, large.weight), F.linear(states, large.weight))


def test_without_onednn_linear_maps_are_left_alone(fresh, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert onednn_operator() is None and not frozen_linears(nn.Linear(300, 300))
    assert "no oneDNN" in caplog.text


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_is_the_same_by_either(architecture, asked, pairs, monkeypatch):
    model = tiny_model(architecture)
    _, encoded = encode_pairs(model, Pairs.of(pairs[:3]))

    def step():
        scorer = PairScorer(model, encoded, 1)
        return scorer, bipo_sums(scorer, [0, 1, 2], {1: torch.full((model.hidden_size,), 0.1)}, (1.0,), beta=0.1)

    scorer, got = step()
    if scorer.path == "fast" and len(frozen_linears(model.network)) > 4:  # GPT-2's maps and Falcon's are of other kinds
        assert len(asked) > 20
    monkeypatch.setattr(onednn_linear, "onednn_operator", lambda: None)
    _, want = step()
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
