"""The mean difference against transformers' own hidden states, and the activations it is made from."""

from itertools import count
from types import SimpleNamespace

import pytest
import torch

from steering.errors import SteeringError
from steering.pairs.dataset import Pairs, PreferencePair
from steering.pairs.tokenization import encode_pairs
from steering.training import training_run
from steering.training.activations import answer_activations
from steering.training.registry import method_named
from tests.tiny_models import ARCHITECTURES, tiny_model

NOTHING = Pairs.of([])


def reference(model, pairs, layer, position, first=1):
    """One conversation at a time, no padding, no hooks: `hidden_states[layer + 1]` as transformers gives them.

    first: entry of `hidden_states` that is the first block's output; Mamba has none for the embeddings.
    """
    differences = []
    for pair in encode_pairs(model, pairs)[1]:
        ends = []
        for answer in (pair.chosen, pair.rejected):
            tokens = torch.tensor([pair.prompt + answer])
            with torch.no_grad():
                states = model.network(tokens, output_hidden_states=True, use_cache=False).hidden_states[layer + first]
            own = states[0, len(pair.prompt) : -1].float()  # without the end of turn
            ends.append(own.mean(dim=0) if position == "mean" else own[-1])
        differences.append(ends[0] - ends[1])
    return torch.stack(differences).mean(dim=0)


@pytest.mark.parametrize("position", ["mean", "last"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2", "bloom", "qwen3_next", "mamba"])
def test_it_is_the_mean_difference_of_transformers_hidden_states(architecture, position, pairs):
    """Layers before the last: that one's entry of `hidden_states` is normalised."""
    model = tiny_model(architecture)
    *_, done = training_run(model, pairs, NOTHING, "caa", layer=(0, 2), position=position)
    assert done.vector.layers == (0, 2)
    for layer in (0, 2):
        wanted = reference(model, pairs, layer, position, first=0 if architecture == "mamba" else 1)
        assert (done.vector.directions[layer] - wanted).norm() < 1e-4 * wanted.norm()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_has_activations(architecture, pairs, no_hooks):
    model = tiny_model(architecture)
    encoded = encode_pairs(model, pairs)[1]
    batches = list(answer_activations(model, encoded, range(model.num_layers)))
    assert [len(batch) for batch in batches] == [2, 2, 2, 2] and no_hooks(model)
    for batch in batches:
        assert set(batch.chosen) == set(batch.rejected) == set(range(model.num_layers))
        assert all(t.shape == (2, 32) and t.dtype == torch.float32 for t in batch.chosen.values())


def test_blocks_after_the_last_observed_one_do_not_run(tiny, pairs, monkeypatch):
    calls = []
    block_class = type(tiny.blocks[0])
    forward = block_class.forward
    monkeypatch.setattr(block_class, "forward", lambda block, *a, **k: calls.append(block) or forward(block, *a, **k))
    for layers, blocks in (((0,), 1), ((0, 1), 2), ((tiny.num_layers - 1,), tiny.num_layers)):
        calls.clear()
        list(answer_activations(tiny, encode_pairs(tiny, pairs[:1])[1], layers))
        assert len(calls) == 2 * blocks  # chosen and rejected


def test_a_model_that_needs_all_of_its_blocks_runs_them_and_says_so(pairs, caplog):
    model = tiny_model("llama")
    base, count = model.network.base_model, model.num_layers
    wanted = reference(model, pairs, 1, "mean")

    class Strict(type(base)):
        def forward(self, *arguments, **options):
            if len(self.layers) != count:
                raise IndexError("list index out of range")
            return super().forward(*arguments, **options)

    base.__class__ = Strict
    *_, done = training_run(model, pairs, NOTHING, "caa", layer=1)
    assert (done.vector.directions[1] - wanted).norm() < 1e-4 * wanted.norm()
    assert caplog.text.count("does not run without its last blocks, so all of them run: IndexError") == 1


def test_its_seconds_are_predicted(tiny, monkeypatch):
    """By a clock on which the measured batch takes 1 s: what remains is how many such batches the run has."""
    monkeypatch.setattr("steering.training.extraction.time", SimpleNamespace(perf_counter=count().__next__))
    method = method_named("caa")
    # Of one length; of the last 500 pairs only some are tokenised.
    alike = Pairs.of([PreferencePair(f"Question {i:03}?", "yes", "no!") for i in range(500)])
    for number, seconds in ((2, 1.0), (10, 5.0), (500, 250.0)):
        predicted = method.estimate(tiny, alike[:number], NOTHING, method.config({"layer": 1}))
        assert predicted == pytest.approx(seconds)
    with pytest.raises(SteeringError, match="Layer 9 does not exist"):
        method.estimate(tiny, alike, NOTHING, method.config({"layer": 9}))


def test_what_it_reports(tiny, pairs):
    preparing, *steps, done = training_run(tiny, pairs[:6], pairs[6:], "caa", layer=1)
    assert preparing.settings["layer"] == 1 and preparing.total_steps == 6
    assert [(report.stage, report.step) for report in steps] == [("training", 2), ("training", 4), ("training", 6)]
    assert done.norm == pytest.approx(done.vector.norm) and done.vector.token_scope == "answer"
    assert (done.vector.model_id, done.vector.pairs["sha256"]) == (tiny.source, pairs[:6].sha256)


def test_stopped_it_is_the_mean_of_the_pairs_so_far(tiny, pairs):
    seen = []
    for report in training_run(tiny, pairs, NOTHING, "caa", layer=1, should_stop=lambda: len(seen) > 2):
        seen.append(report)
    assert report.stopped == "asked" and (report.step, report.vector.pairs["train"]) == (4, 4)
    *_, wanted = training_run(tiny, pairs[:4], NOTHING, "caa", layer=1)
    torch.testing.assert_close(report.vector.directions[1], wanted.vector.directions[1])


def test_an_answer_of_one_token_counts_whole(tiny):
    pairs = Pairs.of([PreferencePair("Which?", "A", "B"), PreferencePair("And now?", "B", "A")])
    *_, mean = training_run(tiny, pairs, NOTHING, "caa", layer=1)
    *_, last = training_run(tiny, pairs, NOTHING, "caa", layer=1, position="last")
    torch.testing.assert_close(mean.vector.directions[1], last.vector.directions[1])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"layer": "sweep"}, "This method cannot look for the best layer; give its number"),
        ({"layer": 9}, "Layer 9 does not exist"),
        ({"position": "first"}, "position is 'first'; choose one of: mean, last"),
        ({"beta": 0.1}, "caa has no setting 'beta'; it has: layer, position, seed, token_scope"),
    ],
)
def test_what_it_cannot_do(settings, says, tiny, pairs):
    with pytest.raises(SteeringError, match=says):
        list(training_run(tiny, pairs, NOTHING, "caa", **settings))


def test_pairs_the_model_cannot_read_are_left_out(tiny, pairs):
    mixed = Pairs.of([PreferencePair("Go on?", "yes " * 200, "no"), *pairs[:4]])
    *_, done = training_run(tiny, mixed, mixed, "caa", layer=1)
    *_, wanted = training_run(tiny, pairs[:4], NOTHING, "caa", layer=1)
    assert (done.vector.pairs["train"], done.vector.pairs["held_out"]) == (4, 4)
    torch.testing.assert_close(done.vector.directions[1], wanted.vector.directions[1])
