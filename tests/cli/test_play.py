"""`steering play`."""

import socket
import sys
from types import SimpleNamespace
from typing import Any

import pytest

import steering.interface.zero_gpu.workers  # noqa: F401 - loaded before a test puts another page in its place
from steering.vectors.library import Library
from tests.cli.command import Done
from tests.generation.test_stream import vector


def test_play_opens_the_page(steering, monkeypatch):
    heard: list[Any] = []
    page = SimpleNamespace(launch=lambda model, **options: heard.append((model["source"], model["dtype"], options)))
    monkeypatch.setitem(sys.modules, "steering.interface", page)
    monkeypatch.setattr("steering.models.loading.load_model", lambda **options: options)
    done = steering("play", "--model", "m", "--dtype", "bfloat16", "--port", 7861, "--share")
    assert done.status == 0 and done.out == ""
    assert steering("play", "--json").answer == {}
    unset = {"device": None, "device_map": None, "quantization": None}
    kept = {"source": "m", "load_options": {**unset, "dtype": "bfloat16"}}  # for models chosen on the page
    first = ("m", "bfloat16", {"port": 7861, "share": True, "auth": None, "writes_on_gpu": False, **kept})
    plain = {"source": None, "load_options": {**unset, "dtype": None}}
    assert heard == [first, (None, None, {"port": None, "share": False, "auth": None, "writes_on_gpu": False, **plain})]


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


def opened(steering, monkeypatch, *arguments: str) -> tuple[Done, list[Any]]:
    """What `steering play` passes on, and what it says."""
    heard: list[Any] = []
    page = SimpleNamespace(launch=lambda model, **options: heard.append((model, options)))
    monkeypatch.setitem(sys.modules, "steering.interface", page)
    monkeypatch.setattr("steering.models.loading.load_model", lambda **options: options)
    return steering("play", *arguments), heard


def test_a_spaces_variables_choose_the_model_where_no_option_does(steering, monkeypatch):
    for name, value in (("MODEL", "some/model"), ("DEVICE", "cuda"), ("DTYPE", "bfloat16")):
        monkeypatch.setenv(f"STEERING_{name}", value)
    _, ((model, _),) = opened(steering, monkeypatch)
    assert (model["source"], model["device"], model["dtype"]) == ("some/model", "cuda", "bfloat16")
    _, ((model, _),) = opened(steering, monkeypatch, "--model", "mine", "--device", "cpu")
    assert (model["source"], model["device"]) == ("mine", "cpu")


@pytest.mark.parametrize(
    ("device", "loaded", "writes"), [("", {"device": "cpu", "dtype": None}, False), ("cuda", {"dtype": "auto"}, True)]
)
def test_on_zero_gpu_the_model_is_loaded_on_the_cpu(steering, monkeypatch, device, loaded, writes):
    monkeypatch.setattr("steering.interface.zero_gpu.workers.is_zero_gpu", lambda: True)
    monkeypatch.setenv("STEERING_DEVICE", device)
    _, ((model, options),) = opened(steering, monkeypatch)
    assert {"device": "cpu", **loaded}.items() <= model.items() and options["writes_on_gpu"] is writes


def test_a_name_and_a_password(steering, monkeypatch):
    _, ((_, options),) = opened(steering, monkeypatch, "--auth", "me:se:cret")
    assert options["auth"] == ("me", "se:cret")
    monkeypatch.setenv("STEERING_AUTH", "us:them")
    _, ((_, options),) = opened(steering, monkeypatch)
    assert options["auth"] == ("us", "them")
    for wrong in ("me", "me:", ":secret"):
        opened(steering, monkeypatch, "--auth", wrong)[0].assert_refused("write it as USER:PASSWORD")


def test_whose_shelf_others_see_is_said(steering, monkeypatch):
    assert opened(steering, monkeypatch)[0].err == ""
    assert "Visitors have shelves of their own" in opened(steering, monkeypatch, "--share")[0].err
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    assert "Whoever reaches 0.0.0.0 shares your shelf" in opened(steering, monkeypatch)[0].err
    assert opened(steering, monkeypatch, "--auth", "me:secret")[0].err == ""


def test_published_vectors_lie_where_every_visitor_finds_them(steering, monkeypatch, own_shelf):
    Library().add(vector(1, name="For All"))
    opened(steering, monkeypatch, "--share", "--publish", "for-all", "cheerful")
    assert {path.stem for path in (own_shelf / "published").iterdir()} == {"for-all", "cheerful"}
    opened(steering, monkeypatch, "--publish", "nobody")[0].assert_refused("There is no vector 'nobody'")
