"""BiPO against a plain re-implementation of the authors' step, and what a run promises besides."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch

import steering
from steering.errors import SteeringError
from steering.evaluation import evaluate
from steering.pairs.dataset import Pairs, PreferencePair
from steering.pairs.tokenization import encode_pairs
from steering.training import train, training_run
from steering.training.config import steered_layers
from steering.training.methods.bipo.config import START, TRAVEL, BiPOConfig
from steering.training.methods.bipo.start import mean_differences
from tests.authors_way import authors_run
from tests.tiny_models import ARCHITECTURES, PLAIN, tiny_model, tiny_network, tokenizer

NOTHING = Pairs.of([])


RUNS = {  # batch sizes 3 and 5 do not divide 8 pairs
    "usual": ("llama", "model.layers", {"seed": 0, "batch_size": 4, "epochs": 3, "layer": 1}),
    "odd batches": ("llama", "model.layers", {"seed": 1, "batch_size": 3, "epochs": 2, "layer": 2}),
    "clipped": ("llama", "model.layers", {"seed": 42, "batch_size": 5, "epochs": 3, "layer": 0, "beta": 0.4}),
    "last layer": ("qwen2", "model.layers", {"seed": 5, "batch_size": 1, "epochs": 1, "layer": 3}),
    "one batch": ("gpt2", "transformer.h", {"seed": 3, "batch_size": 64, "epochs": 4, "layer": 1}),
    "long cosine": (
        "gemma2",
        "model.layers",
        {"seed": 11, "batch_size": 4, "epochs": 2, "layer": 1, "schedule_epochs": 100, "warmup_steps": 2},
    ),
}
USUAL = {"learning_rate": 0.03, "warmup_steps": 1, "beta": 0.1}


@pytest.mark.parametrize("architecture, path, settings", RUNS.values(), ids=RUNS)
def test_every_step_is_the_authors_step(architecture, path, settings, pairs):
    settings = {**USUAL, **settings}
    policy, reference = tiny_network(architecture).eval(), tiny_network(architecture).eval()
    block = policy.get_submodule(path)[settings["layer"]]
    authors = {name: value for name, value in settings.items() if name != "layer"}
    steps = [*authors_run(policy, reference, block, tokenizer(), pairs, hidden_size=32, end_of_turn=2, **authors)]
    losses, signs, norms = ([getattr(step, name) for step in steps] for name in ("loss", "sign", "gradient_norm"))
    wanted = steps[-1].vector
    assert set(signs) == {1.0, -1.0} and min(norms) < 1
    assert (max(norms) > 1) == (settings["beta"] > 0.1)  # clipping happens where it should, and nowhere else

    for fast in (True, False):
        *reports, done = training_run(
            tiny_model(architecture), pairs, NOTHING, "bipo", fast=fast, keep_best=False, **settings
        )
        ours = [report for report in reports if report.stage == "training"]
        assert [report.sign for report in ours] == list(signs)
        # abs: what float32 leaves of a small difference of sums of some hundred nats
        assert [report.loss for report in ours] == pytest.approx(losses, rel=1e-5, abs=2e-6)
        assert done.vector.layers == (settings["layer"],)
        direction = done.vector.directions[settings["layer"]]
        assert (direction - wanted).norm() < 1e-4 * wanted.norm()
        assert bool(done.note) == (not fast)  # a fast run was really a fast one


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_trains_as_the_plain_way_does(architecture, pairs):
    """Those that cannot be packed say so and are trained the plain way."""
    vectors, notes = [], []
    for fast in (True, False):
        *reports, done = training_run(
            tiny_model(architecture), pairs, NOTHING, layer=1, epochs=2, learning_rate=0.03, fast=fast
        )
        vectors.append(done.vector.directions[1])
        notes.append(done.note)
    assert (vectors[0] - vectors[1]).norm() < 1e-3 * vectors[1].norm() and vectors[1].norm() > 0.1
    assert ("packed" in notes[0]) == (architecture in PLAIN) and "asked for" in notes[1]


# What a run reports ---------------------------------------------------------------------------------------------------


def run(model, pairs, held_out=NOTHING, **settings):
    return list(training_run(model, pairs, held_out, **{"layer": 1, "learning_rate": 0.05, "epochs": 2, **settings}))


def test_reports_are_complete(tiny, pairs):
    first, *steps, done = run(tiny, pairs[:6], pairs[6:], batch_size=4)

    assert (first.stage, first.step, first.total_steps, first.vector) == ("preparing", 0, 4, None)
    assert [report.stage for report in steps] == ["training"] * 4
    assert [report.step for report in steps] == [1, 2, 3, 4]
    assert [report.epoch for report in steps] == [0.5, 1.0, 1.5, 2.0]
    assert {report.total_steps for report in steps} == {4}
    assert steps[0].loss == pytest.approx(math.log(2), rel=1e-4)  # the vector starts at zero
    assert all(report.norm > 0 and abs(report.sign) == 1 and math.isfinite(report.margin) for report in steps[1:])
    assert [report.seconds for report in steps] == sorted(report.seconds for report in steps)
    assert all(report.seconds_left >= 0 for report in steps) and steps[-1].seconds_left == 0
    assert all([result.multiplier for result in report.held_out] == [1.0, -1.0] for report in steps)
    assert all(report.vector is not None for report in steps)
    assert (done.stage, done.step, done.total_steps, done.epoch) == ("done", 4, 4, 2.0)
    assert done.norm == pytest.approx(done.vector.norm)


def test_without_held_out_pairs_nothing_is_measured_and_the_last_vector_is_given(tiny, pairs):
    *steps, done = run(tiny, pairs)
    assert all(report.held_out is None and report.vector is None for report in steps)
    assert done.norm == pytest.approx(steps[-1].norm)


def test_held_out_results_are_those_of_evaluate(tiny, pairs):
    *_, last, done = run(tiny, pairs[:5], pairs[5:], keep_best=False)
    measured = evaluate(tiny, done.vector, pairs[5:], [1, -1])
    assert [result.preference_accuracy for result in last.held_out] == [m.preference_accuracy for m in measured]
    got = [result.preference_margin for result in last.held_out]
    assert got == pytest.approx([m.preference_margin for m in measured], rel=1e-4, abs=1e-5)


def test_the_vector_knows_where_it_comes_from(tiny, pairs):
    vector = run(tiny, pairs[:6], pairs[6:], seed=9)[-1].vector
    assert (vector.model_id, vector.model_fingerprint) == (tiny.source, tiny.fingerprint)
    assert vector.method["name"] == "bipo"
    assert {name: vector.method[name] for name in ("layer", "seed", "learning_rate")} == {
        "layer": 1,
        "seed": 9,
        "learning_rate": 0.05,
    }
    assert None not in {vector.method["warmup_steps"], vector.method["steps"], vector.method["residual_norm"]}
    assert (vector.pairs["train"], vector.pairs["held_out"]) == (6, 2)
    assert vector.pairs["sha256"] == pairs[:6].sha256
    assert vector.directions[1].dtype == torch.float32 and not vector.directions[1].requires_grad


def test_settings_left_out_are_filled_in_by_what_fits(tiny, pairs):
    vector = list(training_run(tiny, pairs, NOTHING, epochs=6, batch_size=1))[-1].vector
    method = vector.method
    assert method["layer"] == tiny.num_layers // 2
    assert method["warmup_steps"] == 4  # a tenth of 48 steps
    reach = math.sqrt(tiny.hidden_size) * 48 / 2
    pair_norm = mean_differences(tiny, encode_pairs(tiny, pairs)[1], [2])[2][1]
    assert method["learning_rate"] == pytest.approx(TRAVEL * pair_norm / reach, rel=1e-3)
    assert 0 < vector.norm < pair_norm


def test_a_run_can_start_at_the_mean_difference(tiny, pairs):
    mean, pair_norm = mean_differences(tiny, encode_pairs(tiny, pairs)[1], [1])[1]
    caa = train(tiny, pairs, "caa", layer=1, holdout=0).directions[1]
    torch.testing.assert_close(mean, caa)
    started = dict(layer=1, holdout=0, start="mean_difference", learning_rate=1e-9, max_steps=1)
    direction = train(tiny, pairs, **started).directions[1]
    assert float(direction.norm()) == pytest.approx(START * pair_norm, rel=1e-4)
    assert float(torch.cosine_similarity(direction, mean, dim=0)) == pytest.approx(1, abs=1e-5)


def test_the_late_layer_is_never_beyond_the_last(tiny, pairs):
    assert train(tiny, pairs, holdout=0, layer="late", max_steps=1).layers == (3,)
    assert [steered_layers(SimpleNamespace(num_layers=n), "late")[0] for n in (1, 2, 24, 30)] == [0, 1, 19, 24]


def test_training_moves_held_out_pairs_both_ways(tiny, pairs):
    vector = train(tiny, pairs, layer=1, learning_rate=0.1, epochs=10, held_out=pairs)
    plus, zero, minus = evaluate(tiny, vector, pairs, [1, 0, -1])
    assert plus.preference_margin > 1 and zero.preference_margin == 0 and minus.preference_margin < -1


# Choosing, stopping, repeating ----------------------------------------------------------------------------------------


def held_out_loss(model, vector, pairs, beta=0.1):
    """Mean BiPO loss at +1 and -1, from log-probabilities measured the reference way."""
    scorer = steering.scoring.PairScorer(model, encode_pairs(model, pairs)[1], vector.layers[0], fast=False)
    everything = range(len(pairs))
    direction = vector.directions[vector.layers[0]]
    with torch.no_grad():
        ratio = {d: scorer.logps(everything, {vector.layers[0]: d * direction}).diff()[:, 0] * -1 for d in (1.0, -1.0)}
        base = scorer.reference_logps(everything).diff()[:, 0] * -1
    return sum(float(-(d * beta * (ratio[d] - base)).sigmoid().log().mean()) for d in ratio) / 2


def test_the_best_vector_is_the_one_with_the_lowest_held_out_loss(tiny, pairs):
    settings = {"learning_rate": 0.02, "epochs": 6, "batch_size": 2, "seed": 4}
    contrary = [PreferencePair(pair.prompt, pair.rejected, pair.chosen) for pair in pairs[3:5]]
    held_out = Pairs.of([*pairs[5:], *contrary])  # what is learned of the others harms these, sooner or later
    *reports, done = run(tiny, pairs[:5], held_out, keep_best=False, **settings)
    seen = [report.vector for report in reports if report.held_out]
    losses = [held_out_loss(tiny, vector, held_out) for vector in seen]
    best = losses.index(min(losses))
    assert 0 < best < len(losses) - 1, f"the test needs a run whose best vector is in the middle, not {losses}"
    assert torch.equal(done.vector.directions[1], seen[-1].directions[1])

    best_vector = run(tiny, pairs[:5], held_out, keep_best=True, **settings)[-1].vector
    assert torch.equal(best_vector.directions[1], seen[best].directions[1])
    assert best_vector.method["steps"] == seen[best].method["steps"]


def test_a_run_repeats_with_its_seed_and_differs_with_another(pairs):
    one, same, other = (run(tiny_model(), pairs, seed=seed)[-1].vector.directions[1] for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)


def test_stopping_keeps_the_best_so_far(tiny, pairs):
    everything = run(tiny, pairs[:5], pairs[5:], epochs=4)
    seen = []
    for report in training_run(
        tiny, pairs[:5], pairs[5:], layer=1, learning_rate=0.05, epochs=4, should_stop=lambda: len(seen) > 4
    ):
        seen.append(report)
    assert [report.stage for report in seen] == ["preparing", *["training"] * 4, "done"]
    assert seen[-1].step == 4 and seen[-1].total_steps == everything[-1].total_steps
    best = [report.vector for report in seen[:-1] if report.vector][-1]
    assert torch.equal(seen[-1].vector.directions[1], best.directions[1])


def test_stopping_before_the_first_step_gives_the_zero_vector(tiny, pairs):
    *_, done = training_run(tiny, pairs, NOTHING, layer=1, should_stop=lambda: True)
    assert (done.stage, done.step, done.vector.norm) == ("done", 0, 0)


def test_max_steps_ends_a_run_inside_an_epoch(tiny, pairs):
    *_, last, done = run(tiny, pairs, batch_size=2, epochs=3, max_steps=5)
    assert (last.step, last.total_steps, done.step) == (5, 5, 5)


def test_one_pair_is_enough(tiny, pairs):
    vector = train(tiny, pairs[:1], layer=1, epochs=2)
    assert vector.norm > 0 and vector.pairs["held_out"] == 0


def test_train_holds_out_a_share_and_reports(tiny, pairs):
    heard = []
    vector = train(tiny, pairs, holdout=0.25, on_progress=heard.append, layer=1, epochs=1)
    assert (vector.pairs["train"], vector.pairs["held_out"]) == (6, 2)
    assert heard[-1].stage == "done" and heard[-1].vector is vector


# The model stays as it was --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
@pytest.mark.parametrize("end", ["done", "closed", "failed"])
def test_the_model_is_unchanged_however_a_run_ends(end, fast, pairs, no_hooks, monkeypatch):
    model = tiny_model()
    before = {name: parameter.clone() for name, parameter in model.network.named_parameters()}
    modules = list(model.network.modules())
    training = training_run(model, pairs[:5], pairs[5:], layer=1, fast=fast)
    if end == "done":
        list(training)
    elif end == "closed":
        list(itertools.islice(training, 3))
        training.close()
    else:
        list(itertools.islice(training, 3))

        def broken(*args, **kwargs):
            raise RuntimeError("out of memory")

        monkeypatch.setattr(type(model.blocks[-1]), "forward", broken)
        with pytest.raises(RuntimeError):
            list(training)

    assert no_hooks(model)
    assert list(model.network.modules()) == modules
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.network.named_parameters())
    assert not any(p.requires_grad or p.grad is not None for p in model.network.parameters())
    assert not model.network.training


# What cannot be trained -----------------------------------------------------------------------------------------------


def one_sentence(error):
    text = str(error.value)
    return text.endswith(".") and "\n" not in text


@pytest.mark.parametrize(
    "settings, named",
    [
        ({"epochs": 0}, "epochs"),
        ({"epochs": 1.5}, "epochs"),
        ({"epochs": None}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": "4"}, "batch_size"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"learning_rate": math.inf}, "learning_rate"),
        ({"beta": -0.1}, "beta"),
        ({"beta": None}, "beta"),
        ({"max_grad_norm": 0}, "max_grad_norm"),
        ({"weight_decay": -1}, "weight_decay"),
        ({"seed": -1}, "seed"),
        ({"max_steps": 0}, "max_steps"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"epochs": 4, "schedule_epochs": 3}, "schedule_epochs"),
        ({"layer": 4}, "Layer 4"),
        ({"layer": -1}, "Layer -1"),
        ({"layer": 1.5}, "layer is 1.5"),
        ({"layer": "best"}, "'best'"),
        ({"layer": [1, 7]}, "Layer 7"),
        ({"layer": []}, "at least one"),
        ({"signs": "minus"}, "'minus'.*drawn, both, plus"),
        ({"token_scope": "prompt"}, "'prompt'.*all, answer"),
        ({"length_weight": -1}, "length_weight"),
        ({"length_weight": 3}, "length_weight"),
        ({"l2": -0.1}, "l2"),
        ({"l2": math.nan}, "l2"),
        ({"patience": 0}, "patience"),
        ({"patients": 3}, "patients"),
    ],
)
def test_bad_settings(settings, named, tiny, pairs):
    with pytest.raises(SteeringError, match=named) as error:
        list(training_run(tiny, pairs, NOTHING, **settings))
    assert one_sentence(error)


def test_zero_weight_decay_and_no_warmup_are_fine():
    config = BiPOConfig.checked("bipo", {"weight_decay": 0, "warmup_steps": 0, "epochs": 3, "schedule_epochs": 3})
    assert (config.weight_decay, config.warmup_steps) == (0, 0)


def test_an_unknown_method_is_named_with_those_there_are(tiny, pairs):
    with pytest.raises(SteeringError, match="'magic'.*bipo") as error:
        training_run(tiny, pairs, NOTHING, "magic")
    assert one_sentence(error)


def test_pairs_that_are_all_too_long(tiny):
    endless = Pairs.of([PreferencePair("Go on?", "yes " * 200, "no " * 200)], source="long.csv")
    with pytest.raises(SteeringError, match="longer than") as error:
        list(training_run(tiny, endless, NOTHING))
    assert "512" in str(error.value) and "long.csv" in str(error.value) and one_sentence(error)


def test_a_pair_that_is_too_long_is_left_out(tiny, pairs):
    mixed = Pairs.of([*pairs, PreferencePair("Go on?", "yes " * 200, "no")])
    assert run(tiny, mixed)[-1].vector.pairs["train"] == len(pairs)


def test_no_pairs_at_all(tiny):
    with pytest.raises(SteeringError, match="no preference pairs") as error:
        list(training_run(tiny, NOTHING, NOTHING))
    assert one_sentence(error)
