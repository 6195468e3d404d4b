"""The predicted time of a whole BiPO run."""

import pytest

from steering.errors import SteeringError
from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs, PreferencePair
from steering.training.methods.bipo.config import SWEEP, BiPOConfig
from steering.training.methods.bipo.run_estimate import SAMPLED_PAIRS, estimate, sweep_seconds
from steering.training.methods.bipo.time_estimate import Lengths, Speed
from tests.tiny_models import tiny_model


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_model()  # of its own: what other tests measured is not known of it


def test_the_speed_of_a_layer_is_measured_once(model: LanguageModel, pairs: Pairs) -> None:
    training, held_out = pairs.split()
    first = estimate(model, training, held_out, BiPOConfig(layer=1))
    assert first > 0
    # Two measurements never take the same nanoseconds, so equal predictions come of one.
    assert estimate(model, training, held_out, BiPOConfig(layer=1)) == first
    assert estimate(model, training, held_out, BiPOConfig(layer=(1, 3))) == first


def test_more_work_takes_longer(model: LanguageModel, pairs: Pairs) -> None:
    training, held_out = pairs.split()
    usual = estimate(model, training, held_out, BiPOConfig())
    assert estimate(model, training, held_out, BiPOConfig(epochs=8)) > usual
    assert estimate(model, training, held_out, BiPOConfig(signs="both")) > usual
    assert estimate(model, training, held_out, BiPOConfig(layer=SWEEP)) > usual
    nothing = held_out[:0]
    assert estimate(model, training, nothing, BiPOConfig(layer=SWEEP)) == pytest.approx(
        estimate(model, training, nothing, BiPOConfig())
    )  # without held-out pairs there is no sweep


def test_pairs_past_the_sample_are_taken_to_be_like_it(model: LanguageModel) -> None:
    def alike(count: int) -> Pairs:
        return Pairs.of(PreferencePair(f"Question {i:05}?", "Yes", "No") for i in range(count))

    counts = [SAMPLED_PAIRS, 2 * SAMPLED_PAIRS, 3 * SAMPLED_PAIRS]
    first, second, third = (estimate(model, alike(count), alike(1)[:0], BiPOConfig()) for count in counts)
    assert third - second == pytest.approx(second - first) and second > first  # beside what every run costs once


def test_a_layer_that_is_not_there_is_refused(model: LanguageModel, pairs: Pairs) -> None:
    with pytest.raises(SteeringError, match="99"):
        estimate(model, *pairs.split(), BiPOConfig(layer=99))


def test_a_sweep_costs_what_its_passes_cost() -> None:
    # One token a second in every way; 8 pairs of 10 tokens to train on, 4 to measure, no shared prefix.
    lengths = Lengths(0, (10,) * 12)
    # Trying the fast way on the longest pair, every pair once untouched, slopes, 2 steps each at 2 layers of half the
    # pairs with both signs, and both directions at 2 layers on the held-out pairs.
    assert sweep_seconds(Speed(1, 1, 1, 1), lengths, 8) == 10 + 120 + (80 + 2 * 2 * 2 * 40) + 2 * 2 * 40
