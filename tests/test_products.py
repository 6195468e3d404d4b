"""Products are the same by either library; which one takes them is seen by counting."""

import pytest
import torch
import torch.nn.functional as F
from tiny_models import ARCHITECTURES, tiny_model
from torch import nn

from steering import products
from steering.encoding import encode_pairs
from steering.pairs import Pairs
from steering.products import FrozenLinear, frozen_linears, product, reading
from steering.scoring import PairScorer
from steering.training.steps import summed_gradient


@pytest.fixture
def asked(monkeypatch):
    """Shapes that oneDNN was asked for; it is asked for everything."""
    found, done = [], products._by_onednn
    assert done is not None, "PyTorch for x86 has it"

    def counted(states, weight, *rest):
        found.append((*states.shape, *weight.shape))
        return done(states, weight, *rest)

    monkeypatch.setattr(products, "_by_onednn", counted)
    monkeypatch.setattr(products, "LARGE", 0)
    monkeypatch.setattr(products, "MANY", 1)
    return found


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(40, 24), (1, 5, 24), (2, 3, 7, 24)])
@pytest.mark.parametrize("strided", [True, False])
def test_a_product_is_the_linear_map(shape, bias, strided, asked):
    states = torch.randn(*shape[:-1], 2 * shape[-1])[..., :24] if strided else torch.randn(shape)
    weight = torch.randn(24, 60).t() if strided else torch.randn(60, 24)
    shift = torch.randn(60) if bias else None
    torch.testing.assert_close(product(states, weight, shift), F.linear(states, weight, shift))
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
    monkeypatch.setattr(products, "MANY", 3)
    monkeypatch.setattr(products, "LARGE", 24 * 60)
    weight = torch.randn(60, 24)
    for states, matrix, taken in [
        (torch.randn(3, 24), weight, True),
        (torch.randn(2, 24), weight, False),
        (torch.randn(3, 24), weight[1:], False),
        (torch.randn(3, 24).bfloat16(), weight.bfloat16(), False),
    ]:
        asked.clear()
        assert torch.equal(product(states, matrix), F.linear(states, matrix)) or taken
        assert bool(asked) == taken
    monkeypatch.setattr(products, "_by_onednn", None)
    assert not frozen_linears(nn.Linear(24, 60))


def test_nothing_to_multiply(asked):
    assert product(torch.randn(0, 24), torch.randn(60, 24)).shape == (0, 60)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_is_the_same_by_either(architecture, asked, pairs, monkeypatch):
    model = tiny_model(architecture)
    _, encoded = encode_pairs(model, Pairs.of(pairs[:3]))

    def step():
        scorer = PairScorer(model, encoded, 1)
        return scorer, summed_gradient(scorer, [0, 1, 2], {1: torch.full((model.hidden_size,), 0.1)}, (1.0,), beta=0.1)

    scorer, got = step()
    if scorer.fast and len(frozen_linears(model.network)) > 4:  # GPT-2's maps and Falcon's are of other kinds
        assert len(asked) > 20
    monkeypatch.setattr(products, "_by_onednn", None)
    _, want = step()
    for ours, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_only_the_rows_that_are_read(bias, asked):
    original = nn.Linear(24, 60, bias=bias).requires_grad_(False)
    rows, states = torch.tensor([1, 4, 5]), torch.randn(1, 9, 24, requires_grad=True)
    upstream = torch.zeros(1, 9, 60).index_copy(1, rows, torch.randn(1, 3, 60))
    linear = FrozenLinear(original)
    assert not linear.of_read
    linear.of_read = True
    with reading(rows):
        got = linear(states)
    want = original(states)
    torch.testing.assert_close(got[:, rows], want[:, rows])
    torch.testing.assert_close(*(torch.autograd.grad(each, states, upstream)[0] for each in (got, want)))
    assert not asked


READ_ONLY = {
    "llama": {"self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"},
    "phi3": {"self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"},
    "gpt_neox": {"attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"},
    "mixtral": {"self_attn.q_proj", "self_attn.o_proj"},
}


@pytest.mark.parametrize("architecture", READ_ONLY)
def test_the_last_block_runs_where_it_is_read(architecture, asked, pairs):
    model = tiny_model(architecture)
    blocks = PairScorer(model, encode_pairs(model, pairs)[1], 1)._packed.blocks
    found = [{name for name, m in block.named_modules() if getattr(m, "of_read", False)} for block in blocks]
    assert found[-1] == READ_ONLY[architecture] and not any(found[:-1])
