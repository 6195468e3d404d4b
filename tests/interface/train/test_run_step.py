"""Step 3 of the Train tab: a training on a tiny model, from the first report to the measured vector."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from steering.errors import SteeringError
from steering.interface.app_state import AppState
from steering.interface.playground.controls import SWEEP_MULTIPLIERS
from steering.interface.train.run_step import RunStep
from steering.interface.train.save_step import UnsavedRun
from steering.interface.train.settings_step import SettingsStep
from steering.interface.training_queue import TrainingStatus
from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs
from steering.training import train
from steering.vectors.library import Library
from tests.tiny_models import tiny_model


def whole_page(updates: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """What the page shows after all updates; `statuses` are all that were shown, in order."""
    page: dict[str, Any] = {"statuses": []}
    for update in updates:
        page |= update
        page["statuses"].append(update.get("status", ""))
    return page


def is_idle(app: AppState) -> bool:
    return not app.training.is_busy and app.training.status is None and app.training.how_far == ""


def test_a_whole_run(run_step: RunStep, app: AppState, pairs: Pairs, values: dict, no_hooks: Callable) -> None:
    page = whole_page(run_step.train(pairs, values))
    status = page["status"]
    assert "Done after" in status and "give it a name and save it" in status
    assert any("Step 1 of" in text for text in page["statuses"])
    assert any("Measuring the vector on the held-out pairs, batch 1 of" in text for text in page["statuses"])
    unsaved: UnsavedRun = page["unsaved"]
    assert unsaved.vector.method["name"] == "bipo" and "draft" not in unsaved.vector.extra
    assert [row["multiplier"] for row in unsaved.vector.metrics["held_out"]] == list(SWEEP_MULTIPLIERS)
    assert page["results"].count("<tr>") == 1 + len(SWEEP_MULTIPLIERS)
    for part in ("samples_0", "samples_1"):
        assert [card["title"] for card in page[part]["columns"]] == ["-1.5", "0: untouched", "+1.5"]
        assert all(card["done"] for card in page[part]["columns"])
    assert page["samples_0"]["note"] != page["samples_1"]["note"]
    assert page["misfits"]["visible"] and "held-out pairs move" in page["misfits_list"]
    assert page["step_pairs"]["open"] is page["step_settings"]["open"] is False
    assert len(page["loss_chart"].data[0].x) == len(unsaved.vector.metrics["curve"])
    assert is_idle(app) and no_hooks(app.model)


def test_the_vector_is_the_librarys(run_step: RunStep, app: AppState, pairs: Pairs, values: dict) -> None:
    vector = whole_page(run_step.train(pairs, values))["unsaved"].vector
    training, held_out = pairs.split(0.2, 0)
    settings = run_step.settings_step.settings(values)
    expected = train(app.model, training, held_out=held_out, **settings)
    assert all(vector.directions[k].equal(direction) for k, direction in expected.directions.items())


def test_the_finished_run_is_a_draft_until_it_is_saved(
    run_step: RunStep, app: AppState, pairs: Pairs, values: dict
) -> None:
    unsaved = whole_page(run_step.train(pairs, values))["unsaved"]
    assert [draft_id for draft_id, _ in app.visitors.owner.drafts.labels()] == [unsaved.draft_id]
    assert app.visitors.owner.drafts.open(unsaved.draft_id).metrics == unsaved.vector.metrics


def test_another_method_trains_too(run_step: RunStep, app: AppState, pairs: Pairs, values: dict) -> None:
    values |= {run_step.settings_step.method: "caa", run_step.settings_step.layer: "2"}
    page = whole_page(run_step.train(pairs, values))
    vector = page["unsaved"].vector
    assert vector.method["name"] == "caa" and vector.layers == (2,) and vector.norm > 0
    assert page["charts"]["visible"] is False  # it has no loss to draw
    assert len(vector.metrics["held_out"]) == len(SWEEP_MULTIPLIERS) and is_idle(app)


def test_without_pairs_it_says_what_to_do(run_step: RunStep, app: AppState, values: dict) -> None:
    (update,) = run_step.train(None, values)
    assert "There are no pairs yet" in update["status"] and is_idle(app)


def test_without_held_out_pairs_nothing_is_measured(run_step: RunStep, pairs: Pairs, values: dict) -> None:
    values[run_step.settings_step.holdout] = 0
    page = whole_page(run_step.train(pairs, values))
    assert "it was not measured" in page["results"] and "held_out" not in page["unsaved"].vector.metrics
    assert len(page["samples_0"]["columns"]) == 3
    assert page["misfits"]["visible"] is False


def test_stopped_in_the_middle_it_can_be_continued(
    run_step: RunStep, app: AppState, pairs: Pairs, values: dict
) -> None:
    updates = run_step.train(pairs, values)
    page: dict[str, Any] = {}
    for update in updates:
        page |= update
        if "Step 1 of" in update.get("status", ""):
            app.training_runs.stop(None)
    assert "Stopped after 1 of" in page["status"] and "Train goes on from here" in page["status"]
    first = page["unsaved"].draft_id
    page = whole_page(run_step.train(pairs, values))
    assert any("Going on after step 1" in text for text in page["statuses"])
    assert "Done after 8 of 8" in page["status"]
    assert page["unsaved"].draft_id == first  # the longer run took the place of the shorter
    values[run_step.settings_step.start_over] = True
    page = whole_page(run_step.train(pairs, values))
    assert page["unsaved"].draft_id != first


def test_stopped_before_the_first_step_leaves_nothing(
    run_step: RunStep, app: AppState, pairs: Pairs, values: dict
) -> None:
    page: dict[str, Any] = {}
    for update in run_step.train(pairs, values):
        page |= update
        app.training_runs.stop(None)
    assert "Stopped before the training began" in page["status"]
    assert page["unsaved"] is None and app.visitors.owner.drafts.labels() == [] and is_idle(app)


def test_a_closed_tab_ends_the_run(
    run_step: RunStep, app: AppState, pairs: Pairs, values: dict, no_hooks: Callable
) -> None:
    updates = run_step.train(pairs, values)
    while "Step " not in next(updates).get("status", ""):
        pass
    assert app.training.is_busy and app.training.status.step >= 1
    updates.close()
    assert is_idle(app) and no_hooks(app.model)


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [("several_layers", "twelve", "not a list such as"), ("several_layers", "99", "Layer 99 does not exist")],
)
def test_bad_settings_are_answered_with_a_sentence(
    run_step: RunStep, app: AppState, pairs: Pairs, values: dict, setting: str, value: str, says: str
) -> None:
    values[getattr(run_step.settings_step, setting)] = value
    page = whole_page(run_step.train(pairs, values))
    assert says in page["status"] and 'role="alert"' in page["status"]
    assert app.visitors.owner.drafts.labels() == [] and is_idle(app)


def test_a_model_that_fails_is_logged_and_told(
    tmp_path: Path, settings_step: SettingsStep, pairs: Pairs, values: dict, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model()

    def fail(*_: object) -> None:
        raise RuntimeError("shapes do not match")

    model.blocks[0].register_forward_pre_hook(fail)
    run_step = on(AppState, model, tmp_path, settings_step)
    page = whole_page(run_step.train(pairs, values))
    assert "The training failed" in page["status"] and "shapes do not match" in caplog.text
    assert is_idle(run_step.app)


def test_it_waits_for_another_training(run_step: RunStep, app: AppState, pairs: Pairs, values: dict) -> None:
    app.training.acquire()
    app.training.status = TrainingStatus(3, 24, 40.0)
    updates = run_step.train(pairs, values)
    assert "Another training is running (step 3 of 24, about 40 s left)" in next(updates)["status"]
    app.training.status = None
    assert "speed of this machine is being measured" in next(updates)["status"]
    app.training.release()
    assert "Done after" in whole_page(updates)["status"]


def test_stopped_while_it_waits_it_lets_the_other_go_on(
    run_step: RunStep, app: AppState, pairs: Pairs, values: dict
) -> None:
    with app.training:
        updates = run_step.train(pairs, values)
        next(updates)
        app.training_runs.stop(None)
        assert "Stopped before the training began" in whole_page(updates)["status"]
        assert app.training.is_busy
    assert is_idle(app)


class BusyAppState(AppState):
    """An app whose decode server has two other requests to answer first."""

    def decode_server(self, weights: str) -> Any:
        server = super().decode_server(weights)

        class Busy:
            def stream(self, *arguments: Any, **options: Any) -> Iterator[Any]:
                yield 3
                yield from server.stream(*arguments, **options)

        return Busy()


class BrokenAppState(AppState):
    """An app whose model cannot write."""

    error: Exception = RuntimeError("shapes do not match")

    def decode_server(self, weights: str) -> Any:
        raise self.error


def on(app_class: type[AppState], model: LanguageModel, folder: Path, settings_step: SettingsStep) -> RunStep:
    return RunStep(app_class(model, Library(own=folder, shipped=folder / "none")), settings_step)


def test_sample_answers_wait_in_the_decode_servers_queue(
    tiny: LanguageModel, tmp_path: Path, settings_step: SettingsStep, pairs: Pairs, values: dict
) -> None:
    notes = [
        update["samples_0"]["note"]
        for update in on(BusyAppState, tiny, tmp_path, settings_step).train(pairs, values)
        if "samples_0" in update
    ]
    assert "Others are being answered; 2 wait before you." in notes
    assert notes[-1].startswith("Asked: Would you take")


@pytest.mark.parametrize(
    ("error", "says"),
    [(RuntimeError("shapes do not match"), "the model failed"), (SteeringError("The queue is full."), "queue is full")],
)
def test_a_failure_of_the_samples_costs_only_the_samples(
    tiny: LanguageModel,
    tmp_path: Path,
    settings_step: SettingsStep,
    pairs: Pairs,
    values: dict,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    says: str,
) -> None:
    run_step = on(BrokenAppState, tiny, tmp_path, settings_step)
    run_step.app.error = error
    with caplog.at_level(logging.WARNING, "steering"):
        page = whole_page(run_step.train(pairs, values))
    assert says in page["samples_0"]["problem"] and "no sample answers were written" in caplog.text
    assert "Done after" in page["status"] and page["unsaved"].vector.metrics["held_out"]
