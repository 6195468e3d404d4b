"""`steering play`."""

import sys
from types import SimpleNamespace
from typing import Any

from tests.cli.command import Done


def test_play_opens_the_page(steering, monkeypatch):
    heard: list[Any] = []
    page = SimpleNamespace(launch=lambda model, **options: heard.append((model["source"], model["dtype"], options)))
    monkeypatch.setitem(sys.modules, "steering.interface", page)
    monkeypatch.setattr("steering.models.loading.load_model", lambda **options: options)
    assert steering("play", "--model", "m", "--dtype", "bfloat16", "--port", 7861, "--share") == Done(0, "", "")
    assert steering("play", "--json").answer == {}
    assert heard == [("m", "bfloat16", {"port": 7861, "share": True}), (None, None, {"port": None, "share": False})]


def test_a_port_that_is_taken(steering, monkeypatch):
    def launch(model: object, **options: object) -> None:
        raise OSError("Cannot find empty port in range: 7860-7860")

    monkeypatch.setitem(sys.modules, "steering.interface", SimpleNamespace(launch=launch))
    steering("play").assert_refused("Cannot find empty port in range: 7860-7860; give a free one with --port")
