"""Step 4 of the Train tab: saving, what happens when it fails, and opening a run that was not saved."""

from pathlib import Path

import pytest
import torch

from steering.errors import SteeringError
from steering.interface.app_state import AppState
from steering.interface.playground.sliders import SliderPanel, panel_value
from steering.interface.train.save_step import SaveStep, UnsavedRun
from steering.models.loading import LanguageModel
from steering.vectors.entry import Entry
from steering.vectors.library import Library
from steering.vectors.vector import SteeringVector

HELD_OUT = [{"multiplier": 1.0, "preference_accuracy": 0.75, "preference_margin": 2.5}]


@pytest.fixture
def unsaved(app: AppState) -> UnsavedRun:
    """A finished run, as `RunStep` leaves it: its vector is a draft, too."""
    curve = [{"step": 1, "loss": 0.69, "held_out_loss": 0.6, "held_out": HELD_OUT}]
    vector = SteeringVector({1: torch.ones(app.model.hidden_size)}, metrics={"held_out": HELD_OUT, "curve": curve})
    draft_id = app.visitors.owner.drafts.begin("my pairs")
    app.visitors.owner.drafts.keep(draft_id, vector)
    return UnsavedRun(vector, draft_id)


def sliders(app: AppState) -> dict:
    return panel_value(app.visit(), SliderPanel())


def test_saving_puts_its_slider_on_the_playground(save_step: SaveStep, app: AppState, unsaved: UnsavedRun) -> None:
    update = save_step.save(None, unsaved, " My Cheer ", " is cheerful ", sliders(app))
    assert "Saved as My Cheer" in update["saved"] and update["unsaved"] is None and update["visit"]["visible"]
    (slider,) = update["sliders"]["sliders"]
    assert (slider["name"], slider["behavior"], slider["multiplier"]) == ("My Cheer", "is cheerful", 1.0)
    assert update["sliders"]["active"] == slider["slug"] == "my-cheer"
    saved = app.visitors.owner.get("my-cheer")
    assert saved.directions[1].equal(unsaved.vector.directions[1]) and saved.metrics["held_out"] == HELD_OUT
    assert "draft" not in saved.extra
    assert app.visitors.owner.drafts.labels() == []


def test_what_is_missing_is_asked_for(save_step: SaveStep, app: AppState, unsaved: UnsavedRun) -> None:
    assert "train a vector first" in save_step.save(None, None, "x", "", sliders(app))["saved"]
    assert "needs a name" in save_step.save(None, unsaved, "  ", "", sliders(app))["saved"]
    assert "reload the page" in save_step.save(None, unsaved, "x", "", {"sliders": 3})["saved"]
    assert app.visitors.owner.entries() == [] and len(app.visitors.owner.drafts.labels()) == 1


def test_saving_twice_makes_two_vectors(save_step: SaveStep, app: AppState, unsaved: UnsavedRun) -> None:
    names = [save_step.save(None, unsaved, "twice", "", sliders(app))["saved"] for _ in range(2)]
    assert "Saved as twice." in names[0] and "Saved as twice 2." in names[1]
    assert [entry.slug for entry in app.visitors.owner.entries()] == ["twice", "twice-2"]


class FullDisk(Library):
    """A library whose first `add` fails."""

    failures = 1

    def add(self, vector: SteeringVector) -> Entry:
        if self.failures:
            self.failures -= 1
            raise SteeringError("The disk is full.")
        return super().add(vector)


def test_after_a_failed_save_the_draft_is_there_and_saving_works(tiny: LanguageModel, tmp_path: Path) -> None:
    app = AppState(tiny, FullDisk(own=tmp_path, shipped=tmp_path / "none"))
    vector = SteeringVector({1: torch.ones(tiny.hidden_size)})
    unsaved = UnsavedRun(vector, app.visitors.owner.drafts.begin("mine"))
    app.visitors.owner.drafts.keep(unsaved.draft_id, vector)
    save_step = SaveStep(app)
    failed = save_step.save(None, unsaved, "mine", "", sliders(app))
    assert set(failed) == {"saved"} and "The disk is full." in failed["saved"]
    assert [draft_id for draft_id, _ in app.visitors.owner.drafts.labels()] == [unsaved.draft_id]
    assert "Saved as mine" in save_step.save(None, unsaved, "mine", "", sliders(app))["saved"]
    assert app.visitors.owner.drafts.labels() == []


def test_a_run_that_was_not_saved_is_opened_and_saved(save_step: SaveStep, app: AppState, unsaved: UnsavedRun) -> None:
    listed = save_step.list_drafts()
    assert listed["drafts_box"]["visible"] and listed["draft"]["value"] == unsaved.draft_id
    opened = save_step.open_draft(None, unsaved.draft_id)
    assert opened["unsaved"].vector.directions[1].equal(unsaved.vector.directions[1])
    assert "75 %" in opened["results"] and opened["name"] == "my pairs" and "Opened: a vector" in opened["status"]
    assert opened["charts"]["visible"] and list(opened["loss_chart"].data[0].x) == [1]
    save_step.save(None, opened["unsaved"], "mine", "", sliders(app))
    assert not save_step.list_drafts()["drafts_box"]["visible"]


def test_a_draft_that_was_never_measured_says_so(save_step: SaveStep, app: AppState) -> None:
    draft_id = app.visitors.owner.drafts.begin("short")
    app.visitors.owner.drafts.keep(draft_id, SteeringVector({1: torch.ones(app.model.hidden_size)}))
    opened = save_step.open_draft(None, draft_id)
    assert "not measured to the end" in opened["results"] and not opened["charts"]["visible"]


@pytest.mark.parametrize("draft_id", [None, "", "gone", "../../etc/passwd"])
def test_a_draft_that_is_gone_is_answered_with_a_sentence(save_step: SaveStep, draft_id: str | None) -> None:
    update = save_step.open_draft(None, draft_id)
    assert set(update) == {"results"} and "no longer there" in update["results"]
