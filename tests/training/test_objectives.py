"""Each objective's loss and gradient against a plain re-implementation: the model's own forward, hooks and autograd."""

import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from steering.errors import SteeringError
from steering.pairs.dataset import Pairs
from steering.pairs.tokenization import encode_pairs
from steering.scoring.scorer import PairScorer
from steering.training import train, training_run
from steering.training.methods.bipo.batches import batches
from steering.training.methods.bipo.step import objective_sums
from steering.training.objectives import pair_losses
from steering.training.registry import method_named
from tests.tiny_models import HIDDEN

LAYER = 1
METHODS = ("bipo", "dpo", "simpo", "reps", "split", "reft")


def plain_logp(model, prompt, answer, change):
    """log p(answer) in one forward pass of one conversation; `change` is what happens to the block's output."""
    handle = model.blocks[LAYER].register_forward_hook(
        lambda block, args, output: (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)
    )
    try:
        logits = model.network(torch.tensor([prompt + answer]), use_cache=False).logits[0]
    finally:
        handle.remove()
    logps = logits.log_softmax(dim=-1)[range(len(prompt) - 1, len(prompt) + len(answer) - 1), answer]
    return logps.sum()


def plain_loss(method, model, pair, v, a, d):
    """The loss of one pair in one direction, as the papers write it, with v of gradient."""
    sizes = len(pair.chosen), len(pair.rejected)
    u = v / v.norm()

    def change(hidden):
        if method == "reps" and d < 0:
            return hidden - (hidden @ u).clamp(min=0)[..., None] * u
        return hidden + d * a * v

    steered = [plain_logp(model, pair.prompt, answer, change) for answer in (pair.chosen, pair.rejected)]
    with torch.no_grad():
        free = [
            plain_logp(model, pair.prompt, answer, lambda hidden: hidden) for answer in (pair.chosen, pair.rejected)
        ]
    f, o = (0, 1) if d > 0 else (1, 0)
    entropy = [-steered[i] / sizes[i] for i in (0, 1)]
    if method in ("bipo", "dpo"):
        return -logsigmoid(0.1 * d * ((steered[0] - steered[1]) - (free[0] - free[1])))
    if method == "simpo":
        return -logsigmoid(2.0 * (steered[f] / sizes[f] - steered[o] / sizes[o]) - 1.0)
    if method == "reps":
        weight = max(float(free[o] - free[f]), 1.0)
        return -logsigmoid(weight * steered[f] / sizes[f] - steered[o] / sizes[o])
    if method == "split":
        return entropy[f] + 0.6 * entropy[o] + 5.0 * (0.5 - (entropy[o] - entropy[f])).clamp(min=0)
    return entropy[f]


@pytest.mark.parametrize("d", [1.0, -1.0])
@pytest.mark.parametrize("method", METHODS)
def test_loss_and_gradient_are_those_of_the_paper(method, d, tiny, pairs):
    encoded = encode_pairs(tiny, pairs)[1]
    scorer = PairScorer(tiny, encoded, LAYER)
    assert scorer.path == "fast"
    v = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(3))
    lengths = torch.tensor([[len(pair.chosen), len(pair.rejected)] for pair in encoded]).float()
    terms, a = method_named(method).config_class(), 0.7
    found = objective_sums(scorer, [0, 3, 5], {LAYER: v}, (d,), terms=terms, lengths=lengths, multiplier=a)
    leaf = v.clone().requires_grad_()
    loss = sum(plain_loss(method, tiny, encoded[i], leaf, a, d) for i in (0, 3, 5))
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert float(found[HIDDEN]) == pytest.approx(float(loss.detach()), rel=1e-4)
    assert (found[:HIDDEN] - gradient).norm() < 2e-3 * gradient.norm()


def test_losses_by_hand():
    logps = torch.tensor([[-10.0, -30.0]])
    untouched, lengths = torch.tensor([[-20.0, -24.0]]), torch.tensor([[5.0, 10.0]])

    def of(method, d=1.0):
        return float(pair_losses(logps, untouched, lengths, d, method_named(method).config_class()))

    assert of("bipo") == pytest.approx(math.log(1 + math.exp(-0.1 * 16)))  # (-10 + 20) - (-30 + 24) = 16
    assert of("bipo", -1.0) == pytest.approx(math.log(1 + math.exp(0.1 * 16)))
    assert of("simpo") == pytest.approx(math.log(1 + math.exp(-(2 * (-2 + 3) - 1))))
    assert of("reps") == pytest.approx(math.log(1 + math.exp(-(1 * -2 + 3))))  # chosen is likelier: weight 1
    assert of("reps", -1.0) == pytest.approx(math.log(1 + math.exp(-(4 * -3 + 2))))  # rejected: 24 - 20 = 4
    assert of("split") == pytest.approx(2 + 0.6 * 3 + 0)  # cross-entropies 2 and 3: further apart than 0.5
    assert of("split", -1.0) == pytest.approx(3 + 0.6 * 2 + 5 * (0.5 + 1))
    assert of("reft") == pytest.approx(2)


def test_multipliers_are_drawn_anew_for_each_step_and_change_nothing_else():
    reps, bipo = (method_named(name).config_class(epochs=3, seed=4) for name in ("reps", "bipo"))
    drawn = list(batches(16, reps))
    assert len({multiplier for _, _, multiplier in drawn}) == len(drawn) == 12
    assert all(0.5 <= multiplier <= 2.0 for _, _, multiplier in drawn)
    assert [pairs for pairs, _, _ in drawn] == [pairs for pairs, _, _ in batches(16, bipo)]
    assert {multiplier for _, _, multiplier in batches(16, bipo)} == {1.0}


@pytest.mark.parametrize("method", METHODS)
def test_training_lowers_the_loss_it_is_about(method, tiny, pairs):
    reports = []
    options = {"layer": LAYER, "epochs": 6, "batch_size": 4, "learning_rate": 0.05}
    vector = train(tiny, pairs, method, held_out=pairs, on_progress=reports.append, **options)
    measured = [report.held_out_loss for report in reports if report.held_out is not None and report.held_out_loss]
    assert min(measured) < measured[0] and vector.method["name"] == method
    again = train(tiny, pairs, method, held_out=pairs, **options)
    assert torch.equal(vector.directions[LAYER], again.directions[LAYER])


def test_terms_mix_and_what_cannot_be_is_told(tiny, pairs):
    mixed = train(tiny, pairs, "bipo", held_out=Pairs.of([]), layer=1, epochs=1, anchor=0.5, learning_rate=0.05)
    plain = train(tiny, pairs, "bipo", held_out=Pairs.of([]), layer=1, epochs=1, learning_rate=0.05)
    assert not torch.equal(mixed.directions[1], plain.directions[1]) and mixed.method["anchor"] == 0.5
    for settings, says in (
        ({"compare": "none"}, "compare is 'none' and no anchor or hinge has a weight"),
        ({"least_multiplier": 2.0}, "least_multiplier is 2, above most_multiplier; give at most 1"),
        ({"anchor": -1.0}, "anchor is -1.0; give a number from 0"),
    ):
        with pytest.raises(SteeringError, match=says):
            training_run(tiny, pairs, pairs, "bipo", **settings)
