"""`steering play`."""

import socket
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
    unset = {"device": None, "device_map": None, "quantization": None}
    kept = {"source": "m", "load_options": {**unset, "dtype": "bfloat16"}}  # for models chosen on the page
    first = ("m", "bfloat16", {"port": 7861, "share": True, **kept})
    plain = {"source": None, "load_options": {**unset, "dtype": None}}
    assert heard == [first, (None, None, {"port": None, "share": False, **plain})]


def test_a_port_that_is_taken(steering, model_folder):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = steering("play", "--model", model_folder, "--port", port)
    done.assert_refused(f"Port {port} is taken; give a free one with --port")


def test_another_error_of_the_system_does_not_blame_the_port(steering, monkeypatch):
    def launch(model: object, **options: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "app.css")

    monkeypatch.setitem(sys.modules, "steering.interface", SimpleNamespace(launch=launch))
    monkeypatch.setattr("steering.models.loading.load_model", lambda **options: options)
    done = steering("play")
    done.assert_refused("The playground cannot be opened: .* No such file or directory: 'app.css'")
    assert "port" not in done.err
