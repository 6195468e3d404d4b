"""The draft panel: from a description to pairs in the table, whatever goes wrong."""

from collections.abc import Iterator
from typing import Any

import gradio as gr
import pytest

from steering.drafting import DraftProgress
from steering.errors import SteeringError
from steering.interface.app_state import AppState
from steering.interface.train import draft_panel
from steering.interface.train.draft_panel import ENDPOINT, DraftPanel
from steering.pairs.dataset import Pairs, PreferencePair
from steering.prompting import Endpoint


def made(panel: DraftPanel, **given: Any) -> dict[Any, Any]:
    """What the panel's controls hold, some of them as given by name."""
    values = {control: control.value for control in panel.inputs}
    return values | {getattr(panel, name): value for name, value in given.items()}


def panel_of(app: AppState, *, endpoints: bool = True) -> DraftPanel:
    with gr.Blocks():
        return DraftPanel(app, endpoints=endpoints)


@pytest.fixture
def panel(app: AppState) -> DraftPanel:
    return panel_of(app)


def progress(number: int, wanted: int = 3, *, done: bool = False) -> DraftProgress:
    pairs = tuple(PreferencePair(f"Question {i}?", f"Yes {i}", f"No {i}") for i in range(number))
    note = "The model is small." if done else ""
    return DraftProgress(
        pairs=pairs, wanted=wanted, tokens=40 * number, seconds=1.0 * number, seconds_left=5.0, note=note, done=done
    )


class Drafter:
    """Stands in for `draft_pairs`: keeps what it was asked for, and may fail after some pairs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pairs: int = 3, error: Exception | None = None) -> None:
        self.asked: dict[str, Any] = {}
        self._pairs, self._error = pairs, error
        monkeypatch.setattr(draft_panel, "draft_pairs", self)

    def __call__(self, source: Any, behavior: str, **options: Any) -> Iterator[DraftProgress]:
        self.asked = {"source": source, "behavior": behavior, **options}
        for number in range(1, self._pairs + 1):
            yield progress(number)
        if self._error:
            raise self._error
        yield progress(self._pairs, done=True)


def test_pairs_stream_into_the_table_and_land_there(monkeypatch: pytest.MonkeyPatch, panel: DraftPanel) -> None:
    drafter = Drafter(monkeypatch)
    updates = list(panel.draft(made(panel, behavior=" cheerful ", opposite="gloomy", count=3), None))
    assert drafter.asked["source"] is panel.app.model and drafter.asked["behavior"] == "cheerful"
    assert drafter.asked["count"] == 3 and drafter.asked["opposite"] == "gloomy" and drafter.asked["prompts"] is None
    assert [len(update["table"]["value"]) for update in updates] == [0, 1, 2, 3, 3, 3]
    assert not updates[2]["table"]["interactive"] and "2 of 3 pairs" in updates[2]["draft_status"]
    assert not any("pairs" in update for update in updates[:-1])
    last = updates[-1]
    assert len(last["pairs"]) == 3 and last["table"]["interactive"] and last["table_panel"]["open"]
    assert last["name"] == last["behavior"] == "cheerful"
    assert "3 pairs drafted" in last["draft_status"] and "120 tokens" in last["draft_status"]
    assert "The model is small." in last["draft_status"]


def test_without_a_description_nothing_begins(monkeypatch: pytest.MonkeyPatch, panel: DraftPanel) -> None:
    drafter = Drafter(monkeypatch)
    (update,) = panel.draft(made(panel, behavior="  "), None)
    assert set(update) == {"draft_status"} and "Describe the behavior first" in update["draft_status"]
    assert not drafter.asked


@pytest.mark.parametrize("error", [SteeringError("the endpoint did not answer."), RuntimeError("a bug")])
def test_a_failure_keeps_what_was_written(
    monkeypatch: pytest.MonkeyPatch, panel: DraftPanel, pairs: Pairs, error: Exception
) -> None:
    Drafter(monkeypatch, 2, error)
    last = list(panel.draft(made(panel, behavior="cheerful"), pairs))[-1]
    assert len(last["pairs"]) == 2 and 'role="alert"' in last["draft_status"]
    assert "a bug" not in last["draft_status"]


def test_a_failure_before_the_first_pair_keeps_the_pairs_read_before(
    monkeypatch: pytest.MonkeyPatch, panel: DraftPanel, pairs: Pairs
) -> None:
    Drafter(monkeypatch, 0, SteeringError("the endpoint did not answer."))
    last = list(panel.draft(made(panel, behavior="cheerful"), pairs))[-1]
    assert "pairs" not in last and "the endpoint did not answer." in last["draft_status"]
    assert last["table"]["value"] == pairs.to_rows() and last["table"]["interactive"]


def test_stop_ends_it(monkeypatch: pytest.MonkeyPatch, panel: DraftPanel) -> None:
    drafter = Drafter(monkeypatch)
    run = panel.draft(made(panel, behavior="cheerful"), None)
    next(run), next(run)
    assert not drafter.asked["should_stop"]()
    panel.runs.stop(None)  # type: ignore[arg-type]
    assert drafter.asked["should_stop"]()
    assert list(run)[-1]["table"]["interactive"]


def test_system_prompts_follow_the_description_until_they_are_edited(panel: DraftPanel) -> None:
    values = made(panel, behavior="cheerful", opposite="gloomy")
    first = panel.show_system_prompts(values)
    assert "cheerful" in first[panel.towards] and "gloomy" in first[panel.away]
    values |= first | {panel.towards: "Laugh a lot.", panel.behavior: "merry"}
    second = panel.show_system_prompts(values)
    assert panel.towards not in second and panel.away in second


def test_edited_system_prompts_and_own_questions_are_used(monkeypatch: pytest.MonkeyPatch, panel: DraftPanel) -> None:
    drafter = Drafter(monkeypatch)
    values = made(panel, behavior="cheerful", opposite="gloomy", towards="Laugh a lot.", prompts="Who?\n\n Why? \n")
    list(panel.draft(values, None))
    towards, away = drafter.asked["system_prompts"]
    assert towards == "Laugh a lot." and "gloomy" in away
    assert drafter.asked["prompts"] == ["Who?", "Why?"]


def test_an_endpoint_may_write(monkeypatch: pytest.MonkeyPatch, panel: DraftPanel) -> None:
    drafter = Drafter(monkeypatch)
    values = made(panel, behavior="cheerful", writer=ENDPOINT, url="http://localhost:9/v1", endpoint_model="big")
    list(panel.draft(values, None))
    assert drafter.asked["source"] == Endpoint("http://localhost:9/v1", "big")
    last = list(panel.draft(values | {panel.url: ""}, None))[-1]
    assert "name of the model there" in last["draft_status"]


def test_a_public_page_offers_no_endpoint(monkeypatch: pytest.MonkeyPatch, app: AppState) -> None:
    drafter = Drafter(monkeypatch)
    public = panel_of(app, endpoints=False)
    assert not hasattr(public, "url")
    list(public.draft(made(public, behavior="cheerful"), None))
    assert drafter.asked["source"] is app.model


def test_pairs_read_meanwhile_end_a_draft(monkeypatch: pytest.MonkeyPatch, panel: DraftPanel, pairs: Pairs) -> None:
    drafter = Drafter(monkeypatch)
    assert panel.give_way(pairs, None) == {}  # type: ignore[arg-type]
    run = panel.draft(made(panel, behavior="cheerful"), None)
    next(run), next(run)
    update = panel.give_way(pairs, None)  # type: ignore[arg-type]
    assert update["table"]["value"] == pairs.to_rows() and update["table"]["interactive"]
    assert drafter.asked["should_stop"]() and list(run) == [update], "what was under way must not be seen last"
    assert panel.give_way(pairs, None) == {}  # type: ignore[arg-type]
