"""Choosing the best vector of a run by what the model writes."""

import pytest
import torch

from steering import paths, read_pairs
from steering.errors import SteeringError
from steering.training import train
from steering.training.written_effect import WrittenEffect
from steering.vectors.vector import SteeringVector


class Planned:
    """Scores in a fixed order, whatever the vector."""

    def __init__(self, scores):
        self.scores, self.seen = list(scores), []

    def __call__(self, model, pairs, held_out, should_stop):
        return self

    def score(self, vector):
        self.seen.append(vector)
        return self.scores.pop(0)


@pytest.mark.parametrize(("scores", "best"), [([0.2, 0.9, 0.5], 1), ([0.2, None, 0.5], 2), ([0.1, 0.2, 0.3], 2)])
def test_the_vector_that_writes_best_is_kept(scores, best, tiny, pairs, monkeypatch):
    planned = Planned(scores)
    monkeypatch.setattr("steering.training.written_effect.WrittenEffect", planned)
    options = {"holdout": 0.25, "layer": 1, "batch_size": 2, "epochs": 3, "choose_by": "text"}
    vector = train(tiny, pairs, **options)
    assert len(planned.seen) == 3 and torch.equal(vector.directions[1], planned.seen[best].directions[1])
    curve = [point["written_effect"] for point in vector.metrics["curve"] if "written_effect" in point]
    assert curve == [score for score in scores if score is not None]


def test_without_a_judge_the_loss_decides_and_the_run_says_so(tiny, pairs):
    said = []
    options = {"holdout": 0.25, "layer": 1, "batch_size": 2, "epochs": 2}
    by_loss = train(tiny, pairs, **options)
    vector = train(tiny, pairs, choose_by="text", on_progress=said.append, **options)
    assert torch.equal(vector.directions[1], by_loss.directions[1])
    assert "chosen by the held-out loss: The offline judge learns from the pairs" in said[-1].note


def test_patience_goes_by_what_is_written(tiny, pairs, monkeypatch):
    monkeypatch.setattr("steering.training.written_effect.WrittenEffect", Planned([0.9] + [0.1] * 20))
    said = []
    options = {"holdout": 0.25, "layer": 1, "batch_size": 2, "epochs": 9, "choose_by": "text", "patience": 2}
    train(tiny, pairs, on_progress=said.append, **options)
    assert said[-1].stopped == "early" and "no vector had been better for 2 measurements" in said[-1].note


def test_a_vector_scores_more_than_its_opposite_and_than_none(bundled):
    pairs = read_pairs(paths.shipped("assets") / "examples" / "poetic.csv")
    training, held_out = pairs.split(0.2, 0)
    effect = WrittenEffect(bundled, training, held_out)
    vector = SteeringVector.load(paths.shipped("vectors") / "poetic.safetensors")
    scores = [effect.score(each) for each in (vector, vector * 1e-3, -vector)]
    assert scores[0] > scores[1] + 0.05 > scores[2] + 0.1
    assert effect.score(vector) == scores[0], "the same vector scores the same"


def test_too_few_held_out_prompts(bundled):
    pairs = read_pairs(paths.shipped("assets") / "examples" / "poetic.csv")
    with pytest.raises(SteeringError, match="Fewer than two prompts are held out"):
        WrittenEffect(bundled, pairs, pairs[:1])


def test_the_layer_is_the_one_at_which_the_mean_difference_writes_best(tiny, pairs, monkeypatch):
    planned = Planned([0.1, 0.8, *[0.5] * 20])
    monkeypatch.setattr("steering.training.written_effect.WrittenEffect", planned)
    vector = train(tiny, pairs, holdout=0.25, layer="sweep", batch_size=2, epochs=1, choose_by="text")
    probed = [next(iter(each.layers)) for each in planned.seen]
    assert len(set(probed)) > 1 and vector.layers == (probed[1],)
