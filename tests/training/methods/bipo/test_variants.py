"""The variants of BiPO against a plain re-implementation, and what they come to."""

import pytest
import torch

from steering.evaluation import evaluate
from steering.pairs.dataset import Pairs
from steering.pairs.tokenization import encode_pairs
from steering.scoring.scorer import PairScorer
from steering.training import training_run
from steering.training.methods.bipo.config import BiPOConfig
from steering.training.methods.bipo.layer_sweep import sweep_layers
from steering.training.methods.bipo.start import mean_differences
from steering.vectors.vector import SteeringVector
from tests.plain_variants import variant_run
from tests.tiny_models import tiny_model, tiny_network, tokenizer

NOTHING = Pairs.of([])
COMMON = {"learning_rate": 0.03, "batch_size": 3, "epochs": 2}
VARIANTS = {
    "several layers": ("llama", {"layer": (3, 1, 1)}),
    "both signs": ("llama", {"signs": "both"}),
    "plus only": ("llama", {"signs": "plus"}),
    "answer only": ("llama", {"token_scope": "answer"}),
    "half a length": ("llama", {"length_weight": 0.5}),
    "mean per token": ("gpt2", {"length_weight": 1.0, "beta": 2.0}),
    "small norms": ("llama", {"l2": 3.0}),
    "clipped": ("llama", {"layer": [0, 2], "beta": 0.8}),
    "all at once": (
        "gpt2",
        {"layer": (0, 2), "signs": "both", "token_scope": "answer", "length_weight": 0.3, "l2": 0.5, "seed": 4},
    ),
}


@pytest.mark.parametrize("architecture, settings", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_is_what_the_formula_says(architecture, settings, pairs):
    settings = {**COMMON, "layer": 1, **settings}
    network = tiny_network(architecture).eval()
    blocks = network.get_submodule("transformer.h" if architecture == "gpt2" else "model.layers")
    layer = settings["layer"]
    layers = sorted({layer} if isinstance(layer, int) else set(layer))
    model = tiny_model(architecture)
    norms = [PairScorer(model, encode_pairs(model, pairs)[1], k, fast=False).residual_norms([k])[k] for k in layers]
    differences = mean_differences(model, encode_pairs(model, pairs)[1], layers)
    pair_norms = [norm for _, norm in differences.values()]
    plain = {name: value for name, value in settings.items() if name != "layer"}
    wanted, losses = variant_run(
        network,
        blocks,
        tokenizer(),
        pairs,
        layers=layers,
        norms=norms,
        pair_norms=pair_norms,
        hidden_size=32,
        end_of_turn=2,
        **plain,
    )
    for fast in (True, False):
        _, *reports, done = training_run(model, pairs, NOTHING, fast=fast, warmup_steps=0, **settings)
        assert [report.loss for report in reports] == pytest.approx(losses, rel=5e-5, abs=3e-6)
        assert done.vector.layers == tuple(layers)
        for k in layers:
            assert (done.vector.directions[k] - wanted[k]).norm() < 2e-4 * wanted[k].norm()
        assert bool(done.note) == (not fast)
        assert done.vector.token_scope == settings.get("token_scope", "all")


def test_a_clipped_run_of_several_layers_is_clipped_over_all(tiny, pairs):
    """What the variant `clipped` above is worth: without clipping it would come to another vector."""
    settings = {**COMMON, "layer": (0, 2), "beta": 0.8}
    one, other = ([*training_run(tiny, pairs, NOTHING, max_grad_norm=n, **settings)][-1].vector for n in (1.0, 1e6))
    assert (one.directions[0] - other.directions[0]).norm() > 1e-2 * one.directions[0].norm()


def test_the_signs_that_are_reported(tiny, pairs):
    for signs, wanted in (("both", {0}), ("plus", {1}), ("drawn", {-1, 1})):
        _, *reports, _ = training_run(tiny, pairs, NOTHING, layer=1, epochs=6, signs=signs)
        assert {report.sign for report in reports} == wanted


def test_a_pull_towards_small_norms_makes_them_smaller(tiny, pairs):
    settings = {"layer": 1, "epochs": 10, "learning_rate": 0.1}
    norms = [[*training_run(tiny, pairs, NOTHING, l2=l2, **settings)][-1].vector.norm for l2 in (0.0, 1.0, 100.0)]
    assert norms[0] > norms[1] > norms[2] > 0


def test_several_layers_are_written_down_and_measured_as_trained(tiny, pairs, tmp_path):
    *_, last, done = training_run(tiny, pairs[:5], pairs[5:], layer=(2, 0), token_scope="answer", keep_best=False)
    vector = SteeringVector.load(done.vector.save(tmp_path / "two.safetensors"))
    assert vector.layers == (0, 2) and vector.token_scope == "answer"
    assert vector.method["layer"] == [0, 2]
    first, second = vector.method["residual_norm"]
    assert first != second and vector.method["learning_rate"] > 0
    measured = evaluate(tiny, vector, pairs[5:], [1, -1])
    got = [result.preference_margin for result in last.held_out]
    assert got == pytest.approx([result.preference_margin for result in measured], rel=1e-4, abs=1e-5)


def test_a_sweep_chooses_the_layer(tiny, pairs):
    encoded = (encode_pairs(tiny, part)[1] for part in (pairs[:5], pairs[5:]))
    found = sweep_layers(tiny, *encoded, settings=BiPOConfig())
    first, *_, done = training_run(tiny, pairs[:5], pairs[5:], layer="sweep", epochs=1)
    assert "layer" in first.note and done.vector.layers == (found.best,) == (done.vector.method["layer"],)
    *_, done = training_run(tiny, pairs, NOTHING, layer="sweep", epochs=1)  # nothing to measure with: the middle
    assert done.vector.layers == (2,)


def test_the_held_out_loss_is_that_of_the_variant(tiny, pairs):
    """Of one layer, plus only, mean per token: -log sigmoid(beta * Delta) by hand."""
    settings = {"layer": 1, "signs": "plus", "length_weight": 1.0, "beta": 2.0, "keep_best": False, "epochs": 1}
    *_, last, done = training_run(tiny, pairs[:5], pairs[5:], **settings)
    encoded = encode_pairs(tiny, pairs[5:])[1]
    scorer = PairScorer(tiny, encoded, 1, fast=False)
    lengths = torch.tensor([[len(pair.chosen), len(pair.rejected)] for pair in encoded])
    with torch.no_grad():
        moved = (scorer.logps(range(3), dict(done.vector.directions)) - scorer.reference_logps(range(3))) / lengths
    wanted = -torch.sigmoid(2.0 * (moved[:, 0] - moved[:, 1])).log().mean()
    assert last.held_out_loss == pytest.approx(float(wanted), rel=1e-5)
    assert len(last.held_out) == 2  # still measured in both directions
