"""How a run ends before its last step: early, because it was asked to, or because its numbers broke down."""

import math

import pytest
import torch

from steering.errors import SteeringError
from steering.evaluation import PreferenceResult
from steering.pairs.dataset import Pairs, PreferencePair
from steering.training import training_run
from steering.training.methods.bipo.state import RunState, thinned
from steering.vectors.native_file import HELD_OUT_KEYS
from steering.vectors.vector import SteeringVector

NOTHING = Pairs.of([])
SETTINGS = {"layer": 1, "learning_rate": 0.05, "batch_size": 2, "seed": 4}


def lean(result):
    """What a point of the curve holds of a result."""
    return {key: getattr(result, key) for key in HELD_OUT_KEYS}


def run(model, pairs, held_out=NOTHING, **settings):
    return list(training_run(model, pairs, held_out, **{**SETTINGS, **settings}))


@pytest.fixture
def contrary(pairs) -> Pairs:
    """Held-out pairs that what is learned from the first five harms, sooner or later."""
    return Pairs.of([*pairs[5:], *(PreferencePair(p.prompt, p.rejected, p.chosen) for p in pairs[3:5])])


# Early stopping -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patience", [1, 2])
def test_it_stops_once_the_held_out_loss_no_longer_falls(patience, tiny, pairs, contrary):
    everything = run(tiny, pairs[:5], contrary, epochs=12)
    losses = [report.held_out_loss for report in everything if report.held_out]
    best = losses.index(min(losses))
    waits, last = 0, 0
    while waits < patience:  # where it should stop, by the rule
        last += 1
        waits = 0 if losses[last] < min(losses[:last]) else waits + 1
    assert last < len(losses) - 1, "the test needs a run that would go on"

    *reports, done = run(tiny, pairs[:5], contrary, epochs=12, patience=patience)
    assert [report.held_out_loss for report in reports if report.held_out] == losses[: last + 1]
    assert done.stopped == "early" and done.step < done.total_steps == everything[-1].total_steps
    assert f"Stopped early at step {done.step} of {done.total_steps}" in done.note
    assert done.vector.method["steps"] == 3 * (losses.index(min(losses[: last + 1])) + 1)
    assert f"since step {done.vector.method['steps']}." in done.note
    if best <= last:
        assert torch.equal(done.vector.directions[1], everything[-1].vector.directions[1])


def test_a_run_that_improves_to_the_end_is_not_stopped(tiny, pairs):
    patient, usual = (run(tiny, pairs, pairs, epochs=4, patience=p) for p in (2, None))
    assert patient[-1].stopped == usual[-1].stopped == ""
    assert torch.equal(patient[-1].vector.directions[1], usual[-1].vector.directions[1])


def test_patience_with_nothing_held_out_is_told(tiny, pairs):
    first, *_, done = run(tiny, pairs, epochs=2, patience=1)
    assert "Nothing is held out" in first.note and done.step == done.total_steps


# The curve ------------------------------------------------------------------------------------------------------------


def test_the_vector_file_carries_the_curve(tiny, pairs, tmp_path):
    *reports, done = run(tiny, pairs[:5], pairs[5:], epochs=3)
    curve = SteeringVector.load(done.vector.save(tmp_path / "v.safetensors")).metrics["curve"]
    steps = [report for report in reports if report.stage == "training"]
    assert [point["step"] for point in curve] == [report.step for report in steps]
    assert [point["loss"] for point in curve] == pytest.approx([report.loss for report in steps], abs=1e-5)
    measured = [point for point in curve if "held_out_loss" in point]
    reported = [report for report in steps if report.held_out]
    assert [point["held_out"] for point in measured] == [list(map(lean, report.held_out)) for report in reported]


@pytest.mark.parametrize("every", [1, 10, 400, 10_000])
def test_the_curve_of_a_long_run_is_thinned(every, tmp_path):
    state = RunState.at_start([1], [1.0], [1.0], {1: torch.zeros(32)})
    measured = {
        "held_out_loss": 0.61234,
        "held_out": [lean(PreferenceResult(d, 0.123456789, -1.23456789, 9, (0.0, 1.0), (0.0, 1.0))) for d in (1, -1)],
    }
    for step in range(1, 5001):
        state.add_to_curve(step=step, loss=0.12345, **(measured if step % every == 0 else {}))
    vector = SteeringVector({1: torch.ones(32)}, metrics={"curve": thinned(state.curve)})
    path = vector.save(tmp_path / "v.safetensors")
    curve = SteeringVector.load(path).metrics["curve"]
    steps = [point["step"] for point in curve]
    assert len(state.curve) < 800 and 90 <= len(curve) <= 200
    assert steps == sorted(set(steps)) and steps[-1] == 5000
    assert max(b - a for a, b in zip([0, *steps], steps, strict=False)) < 120  # evenly spread
    measured_points = sum("held_out_loss" in point for point in curve)
    assert min(5000 // every, 95) <= measured_points <= 100
    assert path.stat().st_size < 50_000


# Breaking down --------------------------------------------------------------------------------------------------------


def breaking(monkeypatch, at: int) -> None:
    """From this step on the loss is infinite. (Measuring asks for the loss too, but without a graph.)"""
    from steering.training import objectives

    exact, seen = objectives.bipo_loss, []

    def loss(delta, d, beta):
        seen.extend([1] * delta.requires_grad)
        return exact(delta, d, beta) * (math.inf if len(seen) >= at and delta.requires_grad else 1)

    monkeypatch.setattr(objectives, "bipo_loss", loss)


def test_a_run_that_breaks_down_keeps_its_best_vector(tiny, pairs, monkeypatch):
    usual = run(tiny, pairs[:5], pairs[5:], epochs=4)
    breaking(monkeypatch, at=8)
    *reports, done = run(tiny, pairs[:5], pairs[5:], epochs=4)
    assert (done.stage, done.stopped, done.step) == ("done", "broken", 7)
    assert "broke down at step 8" in done.note and "learning rate below 0.05" in done.note
    best = [report.vector for report in usual[:8] if report.vector][-1]
    assert torch.equal(done.vector.directions[1], best.directions[1])
    assert f"the vector of step {best.method['steps']} is returned" in done.note


def test_with_nothing_held_out_it_keeps_the_last_sound_vector(tiny, pairs, monkeypatch):
    steps = run(tiny, pairs, epochs=2)
    breaking(monkeypatch, at=4)
    done = run(tiny, pairs, epochs=2)[-1]
    assert done.vector.norm == pytest.approx(steps[3].norm) and done.vector.method["steps"] == 3
    assert "the vector of step 3 is returned" in done.note


def test_a_run_that_breaks_down_at_once_says_so(tiny, pairs, monkeypatch):
    breaking(monkeypatch, at=1)
    with pytest.raises(SteeringError, match="step 1.*learning rate below 0.05") as error:
        run(tiny, pairs)
    text = str(error.value)
    assert text.endswith(".") and "\n" not in text


def test_a_learning_rate_beyond_all_measure_really_breaks_down(tiny, pairs):
    done = run(tiny, pairs, learning_rate=9e5, warmup_steps=0, epochs=4)[-1]
    assert done.stopped == "broken" and done.step < done.total_steps
    assert done.vector.norm > 1e6 and done.vector.directions[1].isfinite().all()  # which a file can hold


def test_a_full_disk_costs_time_and_says_so(tiny, pairs, monkeypatch):
    from steering.scoring.fast import activation_cache

    *_, wanted = training_run(tiny, pairs[:6], pairs[6:], layer=1, epochs=2)
    monkeypatch.setattr(activation_cache, "MEMORY_BUDGET", 0)
    monkeypatch.setattr(activation_cache, "DISK_RESERVE", 10**18)
    *reports, done = training_run(tiny, pairs[:6], pairs[6:], layer=1, epochs=2)
    assert "little room is left on the disk" in reports[1].note and "little room" in done.note
    torch.testing.assert_close(done.vector.directions[1], wanted.vector.directions[1], rtol=1e-4, atol=1e-4)
