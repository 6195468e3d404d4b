"""Products are the same by either library; which one takes them is seen by counting."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steering.pairs.dataset import Pairs
from steering.pairs.tokenization import encode_pairs
from steering.runtime.distributed import Processes
from steering.scoring.fast import lm_head, onednn_linear
from steering.scoring.fast.onednn_linear import Arranged, FrozenLinear, frozen_linears, product, reading
from steering.scoring.scorer import PairScorer
from steering.training.methods.bipo.config import BiPOSettings
from steering.training.methods.bipo.state import RunState
from steering.training.methods.bipo.step import Trainer, summed_gradient
from tests.tiny_models import ARCHITECTURES, tiny_model


@pytest.fixture
def asked(monkeypatch):
    """Shapes that oneDNN was asked for; it is asked for everything."""
    found, done = [], onednn_linear._by_onednn
    assert done is not None, "PyTorch for x86 has it"

    def counted(states, weight, *rest):
        found.append((*states.shape, *weight.shape))
        return done(states, weight, *rest)

    monkeypatch.setattr(onednn_linear, "_by_onednn", counted)
    monkeypatch.setattr(onednn_linear, "LARGE", 0)
    monkeypatch.setattr(onednn_linear, "MANY", 1)
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
    monkeypatch.setattr(onednn_linear, "MANY", 3)
    monkeypatch.setattr(onednn_linear, "LARGE", 24 * 60)
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
    monkeypatch.setattr(onednn_linear, "_by_onednn", None)
    assert not frozen_linears(nn.Linear(24, 60))


@pytest.mark.parametrize("bias", [True, False])
def test_a_matrix_arranged_ahead_gives_the_same(bias, asked):
    original, arranged = nn.Linear(96, 160, bias=bias).requires_grad_(False), Arranged()
    for matrix in (original.weight, original.weight.t()):
        arranged.add(matrix)
        assert arranged(matrix).is_mkldnn and arranged(matrix) is arranged(matrix)
    asked.clear()  # it was tried out
    other = original.weight[:80]
    assert arranged(other) is other
    for rows in (1, 9, 300):
        states, upstream = torch.randn(1, rows, 96, requires_grad=True), torch.randn(1, rows, 160)
        got, want = FrozenLinear(original, arranged)(states), original(states)
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(*(torch.autograd.grad(each, states, upstream)[0] for each in (got, want)))
    assert len(asked) == 6


def test_arranged_matrices_stay_within_their_budget(asked, monkeypatch):
    monkeypatch.setattr(onednn_linear, "ARRANGED_BYTES", 100 * 4)
    arranged, matrices = Arranged(), [torch.randn(*shape) for shape in ((8, 8), (8, 8), (4, 8))]
    for matrix in matrices:
        arranged.add(matrix)
    assert [arranged(matrix).is_mkldnn for matrix in matrices] == [True, False, True]
    half = torch.randn(2, 2).bfloat16()
    arranged.add(half)
    assert arranged(half) is half


def test_without_a_way_to_arrange_matrices_stay_as_they_are(asked, monkeypatch):
    def broken(weight, rows):
        return onednn_linear.torch.ops.mkldnn._reorder_linear_weight(weight + 1, rows)

    weight = torch.randn(60, 24)
    for way in (None, broken):
        onednn_linear._can_arrange.cache_clear()
        monkeypatch.setattr(onednn_linear, "_arrange", way)
        arranged = Arranged()
        arranged.add(weight)
        assert arranged(weight) is weight
    onednn_linear._can_arrange.cache_clear()


def test_training_arranges_what_it_multiplies_by(asked, pairs):
    model = tiny_model("llama")
    scorer = PairScorer(model, encode_pairs(model, pairs)[1], 0)
    state = RunState.at_zero([0], [1.0], model.hidden_size)
    settings = BiPOSettings().filled_in([0], len(pairs), state.norms, model.hidden_size)
    Trainer(scorer, len(pairs), settings, state, Processes())
    maps = scorer._packed.later_maps
    assert len(maps) > 7  # more than the last block's, which runs where it is read
    for m in maps:
        assert scorer._arranged(m.weight).is_mkldnn and scorer._arranged(m.weight.t()).is_mkldnn
    words = model.network.get_output_embeddings().weight
    assert scorer._arranged(words[: lm_head.VOCABULARY_SLICE]).is_mkldnn


def test_nothing_to_multiply(asked):
    assert product(torch.randn(0, 24), torch.randn(60, 24)).shape == (0, 60)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_is_the_same_by_either(architecture, asked, pairs, monkeypatch):
    model = tiny_model(architecture)
    _, encoded = encode_pairs(model, Pairs.of(pairs[:3]))

    def step():
        scorer = PairScorer(model, encoded, 1)
        scorer.arrange_weights()
        return scorer, summed_gradient(scorer, [0, 1, 2], {1: torch.full((model.hidden_size,), 0.1)}, (1.0,), beta=0.1)

    scorer, got = step()
    if scorer.fast and len(frozen_linears(model.network)) > 4:  # GPT-2's maps and Falcon's are of other kinds
        assert len(asked) > 20
    monkeypatch.setattr(onednn_linear, "_by_onednn", None)
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
