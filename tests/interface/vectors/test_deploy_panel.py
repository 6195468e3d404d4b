"""The panel that makes a Space: with the owner's login, and so on the owner's page only."""

from dataclasses import replace

import gradio as gr
import pytest

from steering.deploy import Space
from steering.errors import SteeringError
from steering.interface.app_state import AppState
from steering.interface.vectors import deploy_panel
from steering.interface.vectors.deploy_panel import DeployPanel
from steering.vectors.library import Library
from tests.generation.test_stream import vector
from tests.tiny_models import tiny_model


@pytest.fixture
def panel(tmp_path) -> DeployPanel:
    library = Library(own=tmp_path / "shelf", shipped=tmp_path / "none")
    library.add(vector(1, name="My Own"))
    with gr.Blocks():
        return DeployPanel(AppState(replace(tiny_model(), source="some/model"), library))


def test_the_users_vectors_are_offered(panel) -> None:
    assert panel.offer_vectors()["choices"] == [("My Own", "my-own")]


def test_it_deploys_what_was_chosen(panel, monkeypatch) -> None:
    made: list[Space] = []
    monkeypatch.setattr(deploy_panel, "deploy", lambda space: made.append(space) or space.address)
    *_, last = panel.make(" me/steer ", "zero-a10g", ["my-own"], True)
    assert 'href="https://huggingface.co/spaces/me/steer"' in last
    (space,) = made
    assert (space.id, space.hardware, space.private) == ("me/steer", "zero-a10g", True)
    assert [each.name for each in space.vectors] == ["My Own"] and space.model == "some/model"


def test_a_model_of_this_machine_cannot_go_along(panel, monkeypatch) -> None:
    monkeypatch.setattr(deploy_panel, "deploy", lambda space: pytest.fail("nothing is to be deployed"))
    panel.app.use_model(tiny_model())
    assert "is no id of the Hub, so a Space cannot load it" in list(panel.make("me/steer", "cpu-basic", [], False))[-1]


@pytest.mark.parametrize(
    ("id", "slugs", "says"), [("my space", [], "no name for a Space"), ("me/steer", ["gone"], "There is no vector")]
)
def test_what_is_wrong_is_said(panel, monkeypatch, id, slugs, says) -> None:
    monkeypatch.setattr(deploy_panel, "deploy", lambda space: pytest.fail("nothing is to be deployed"))
    assert says in list(panel.make(id, "cpu-basic", slugs, False))[-1]


def test_a_hub_that_refuses_is_said(panel, monkeypatch) -> None:
    def refuses(space: Space) -> str:
        raise SteeringError("You are not logged in to the Hub.")

    monkeypatch.setattr(deploy_panel, "deploy", refuses)
    assert "not logged in" in list(panel.make("me/steer", "cpu-basic", [], False))[-1]
