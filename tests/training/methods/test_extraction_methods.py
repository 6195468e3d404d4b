"""Each extraction method against a plain re-implementation, on activations drawn at random or of a tiny model."""

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from steering.errors import SteeringError
from steering.pairs.dataset import Pairs
from steering.pairs.tokenization import encode_pairs
from steering.training import train, training_run
from steering.training.methods.caa import CAAConfig, letter_questions
from steering.training.methods.mass_mean import whitened_mean_difference
from steering.training.methods.pca import PCAConfig, first_component
from steering.training.methods.probe import ProbeConfig, probe_weights
from tests.tiny_models import tiny_model

NOTHING = Pairs.of([])


@pytest.fixture
def activations():
    """Chosen and rejected activations [40, 8]: far apart along axis 0, with much common noise along axis 1."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(2, 40, 8, generator=generator)
    prompts = 5 * torch.randn(40, 8, generator=generator)
    noise[..., 1] *= 6
    chosen, rejected = prompts + noise[0], prompts + noise[1]
    chosen[:, 0] += 4
    chosen[:, 1] += 2
    return chosen, rejected


def cosine(a, b):
    return float(torch.cosine_similarity(torch.as_tensor(a).double(), torch.as_tensor(b).double(), dim=0))


@pytest.mark.parametrize("of", ["pairwise", "differences", "centred"])
def test_pca_is_that_of_scikit_learn_turned_to_the_chosen_side(activations, of):
    chosen, rejected = activations
    middle = (chosen + rejected) / 2
    rows = {
        "pairwise": torch.cat([chosen - middle, rejected - middle]),
        "differences": chosen - rejected,
        "centred": torch.cat([chosen, rejected]),
    }[of]
    wanted = torch.from_numpy(PCA(n_components=1, svd_solver="full").fit(rows.double().numpy()).components_[0])
    mean = (chosen - rejected).mean(dim=0)
    found = first_component(chosen, rejected, PCAConfig(of=of))
    assert abs(cosine(found, wanted)) > 1 - 1e-6
    assert float(found @ mean) > 0 and found.norm() == pytest.approx(float(mean.norm()), rel=1e-5)


def test_pairwise_pca_is_the_uncentred_one_of_differences(activations):
    """What steering-vectors computes: the first singular vector of the differences and their negatives."""
    chosen, rejected = activations
    _, _, rows = torch.linalg.svd(torch.cat([chosen - rejected, rejected - chosen]), full_matrices=False)
    assert abs(cosine(first_component(chosen, rejected, PCAConfig()), rows[0])) > 1 - 1e-6


@pytest.mark.parametrize("c", [0.01, 1.0])
def test_the_probe_is_a_logistic_regression_on_centred_activations(activations, c):
    chosen, rejected = activations
    middle = (chosen + rejected) / 2
    rows = torch.cat([chosen - middle, rejected - middle]).double().numpy()
    labels = np.array([1] * 40 + [-1] * 40)
    wanted = LogisticRegression(C=c, fit_intercept=False, max_iter=1000).fit(rows, labels).coef_[0]
    found = probe_weights(chosen, rejected, ProbeConfig(regularization=c))
    assert cosine(found, wanted) > 1 - 1e-5
    assert found.norm() == pytest.approx(float((chosen - rejected).mean(dim=0).norm()), rel=1e-5)


def test_mass_mean_solves_for_the_mean_difference_and_turns_from_the_noise(activations):
    chosen, rejected = activations
    mean = (chosen - rejected).mean(dim=0)
    found = whitened_mean_difference(chosen, rejected)
    within = np.concatenate([part - part.mean(axis=0) for part in (chosen.double().numpy(), rejected.double().numpy())])
    covariance = LedoitWolf(assume_centered=True).fit(within).covariance_
    assert cosine(covariance @ found.double().numpy(), mean) > 1 - 1e-6
    assert found.norm() == pytest.approx(float(mean.norm()), rel=1e-5)
    assert abs(float(found[1])) < abs(float(mean[1])) / 2 and float(found[0]) > float(mean[0])


def test_one_pair_is_enough_for_a_direction(tiny, pairs):
    for method in ("pca", "probe", "mass-mean", "freeform"):
        vector = train(tiny, pairs[:1], method, held_out=NOTHING, layer=1)
        wanted = train(tiny, pairs[:1], "caa", held_out=NOTHING, layer=1)
        assert vector.norm > 0
        if method in ("pca", "mass-mean", "probe"):
            assert cosine(vector.directions[1], wanted.directions[1]) > 1 - 1e-4


def states(model, tokens, layer):
    """What transformers itself returns; asking for it leaves hooks on the model, so it is a model of the test's own."""
    with torch.no_grad():
        return model.network(torch.tensor([tokens]), output_hidden_states=True).hidden_states[layer + 1][0].float()


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_freeform_compares_the_last_token_but_one(architecture, pairs):
    model = tiny_model(architecture)
    vector = train(model, pairs, "freeform", held_out=NOTHING, layer=1)
    differences = []
    for pair in encode_pairs(model, pairs)[1]:
        ends = [
            states(model, pair.prompt + answer[:-1], 1)[len(pair.prompt) + max(0, len(answer) - 3)]
            for answer in (pair.chosen, pair.rejected)
        ]
        differences.append(ends[0] - ends[1])
    wanted = torch.stack(differences).mean(dim=0)
    assert (vector.directions[1] - wanted).norm() < 1e-4 * wanted.norm()


def test_caa_can_ask_for_letters_as_in_the_paper(pairs):
    tiny = tiny_model()
    questions = letter_questions(pairs, CAAConfig(position="letter"))
    assert {question.chosen for question in questions} == {"(A)", "(B)"}
    for question, pair in zip(questions, pairs, strict=True):
        assert f"{question.chosen} {pair.chosen}" in question.prompt
        assert f"{question.rejected} {pair.rejected}" in question.prompt
    vector = train(tiny, pairs, "caa", held_out=NOTHING, layer=1, position="letter")
    differences = []
    for pair in encode_pairs(tiny, pairs, questions)[1]:
        place = next(n for n, (a, b) in enumerate(zip(pair.chosen, pair.rejected, strict=False)) if a != b)
        ends = [
            states(tiny, pair.prompt + answer, 1)[len(pair.prompt) + place] for answer in (pair.chosen, pair.rejected)
        ]
        differences.append(ends[0] - ends[1])
    wanted = torch.stack(differences).mean(dim=0)
    assert (vector.directions[1] - wanted).norm() < 1e-4 * wanted.norm()
    assert vector.pairs["sha256"] == pairs.sha256, "the pairs that were brought, not the questions made of them"


@pytest.mark.parametrize("method", ["pca", "probe", "mass-mean", "freeform"])
def test_it_cannot_look_for_the_best_layer(method, tiny, pairs):
    with pytest.raises(SteeringError, match="This method cannot look for the best layer"):
        training_run(tiny, pairs, NOTHING, method, layer="sweep")
