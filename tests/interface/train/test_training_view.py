"""What the page shows of a run while it goes on."""

from typing import Any

import pytest
import torch

from steering.evaluation.preference import PreferenceResult
from steering.interface.app_state import AppState
from steering.interface.train.training_view import TrainingView
from steering.interface.training_queue import TrainingStatus
from steering.training.progress import Progress
from steering.vectors.vector import SteeringVector

READY = Progress("preparing", total_steps=10, settings={"layer": 14}, note="Training the plain, slower way.")


def step(number: int, **more: Any) -> Progress:
    figures = {"loss": 0.5, "norm": 2.0, "seconds_left": 30.0} | more
    return Progress("training", step=number, total_steps=10, **figures)


def after(*reports: Progress) -> TrainingView:
    view = TrainingView()
    for report in reports:
        view.add(report)
    return view


def test_a_step_shows_its_figures_and_what_the_preparation_noted() -> None:
    text = after(READY, step(1), step(2)).html()
    assert "Step 2 of 10 · about 30 s left · layer 14 · loss 0.500 · vector norm 2.0" in text
    assert "Training the plain, slower way." in text and 'aria-valuenow="20"' in text


def test_the_first_step_foretells_nothing() -> None:
    assert "left" not in after(READY, step(1)).html()
    assert "left" not in after(READY, step(5)).html()  # of a run that continues an earlier one
    assert "left" in after(READY, step(5), step(6)).html()


def test_the_latest_measurement_stays_in_the_line() -> None:
    results = tuple(PreferenceResult(m, 0.5 + m / 4, m, 9, (0.0, 1.0), (0.0, 1.0)) for m in (1.0, -1.0))
    text = after(READY, step(1, held_out=results, held_out_loss=0.4), step(2)).html()
    assert "held-out accuracy 75 % at +1 and 25 % at -1" in text


def test_while_it_prepares_it_says_at_what() -> None:
    assert "Looking for the layer" in after(Progress("preparing", note="Looking for the layer")).html()
    ready = after(READY).html()
    assert "Preparing ..." in ready and "Training the plain, slower way." in ready


def test_a_method_without_losses_has_no_curve() -> None:
    view = after(READY, step(1, loss=None, norm=0.0), step(2, loss=None, norm=0.0))
    assert not view.has_curve and "loss" not in view.html() and "norm" not in view.html()


def test_the_curve_of_the_run_it_continues_comes_first() -> None:
    earlier = [{"step": 1, "loss": 0.7}, {"step": 2, "loss": 0.6}, {"step": 3, "loss": 0.5}]
    vector = SteeringVector({0: torch.zeros(4)}, metrics={"curve": earlier})
    loss, _ = after(READY, step(3), step(4, vector=vector)).charts()
    assert list(loss.data[0].x) == [1, 2, 3, 4] and list(loss.data[0].y) == [0.7, 0.6, 0.5, 0.5]


def test_measurements_are_shown_at_once_and_other_steps_now_and_then() -> None:
    view = TrainingView()
    shown = []
    for report in (READY, step(1), step(2), step(3, held_out=(), held_out_loss=0.4)):
        view.add(report)
        shown.append(view.due)
    assert shown == [False, True, False, True]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (TrainingStatus(), " (just begun)"),
        (TrainingStatus(3, 24), " (step 3 of 24)"),
        (TrainingStatus(3, 24, 125.0), " (step 3 of 24, about 2 min left)"),
        (None, ""),
    ],
)
def test_those_who_wait_read_how_far_it_is(app: AppState, status: TrainingStatus | None, words: str) -> None:
    app.training.status = status
    assert app.training.how_far == words
