"""A Space of one's own: its folder is what a Space needs, and reaches a Hub."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from huggingface_hub import constants

from steering.deploy import HARDWARE, Space, deploy, requirements, write_folder
from steering.errors import SteeringError
from steering.vectors.library import Library
from steering.vectors.vector import SteeringVector
from tests.generation.test_stream import vector
from tests.hub_stand_in import TOKEN, HubStandIn, hub_stand_in


@pytest.fixture(scope="module")
def running() -> Iterator[HubStandIn]:
    with hub_stand_in() as hub:
        yield hub


@pytest.fixture
def hub(running: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # conftest closes the way to the real one
    running.repositories.clear()
    running.refuses = 0
    yield running
    assert running.unknown == []


def matter(folder: Path) -> dict:
    return yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---")[1])


def test_the_folder_holds_what_a_space_needs_and_no_more(tmp_path) -> None:
    space = Space("me/steer", vectors=[vector(1, name="My Own")], model="some/model")
    files = {str(path) for path in write_folder(tmp_path / "space", space)}
    assert {"app.py", "README.md", "requirements.txt", ".gitattributes", "LICENSE"} <= files
    assert {"steering/limits.py", "assets/app.css", "vectors/cheerful.safetensors"} <= files
    assert SteeringVector.load(tmp_path / "space" / "vectors" / "my-own.safetensors").name == "My Own"
    tops = {Path(path).parts[0] for path in files}
    assert tops == {
        "app.py",
        "README.md",
        "requirements.txt",
        ".gitattributes",
        "LICENSE",
        "steering",
        "assets",
        "vectors",
    }
    assert not any("__pycache__" in path or path.endswith(".pyc") for path in files)
    written = matter(tmp_path / "space")
    assert written["suggested_hardware"] == "cpu-basic" and written["models"] == ["some/model"]
    assert written["thumbnail"] == "https://huggingface.co/spaces/me/steer/resolve/main/assets/playground.png"
    assert "*.safetensors filter=lfs" in (tmp_path / "space" / ".gitattributes").read_text(encoding="utf-8")
    with pytest.raises(SteeringError, match="there is something in it already"):
        write_folder(tmp_path / "space", space)


def test_torch_fits_the_hardware() -> None:
    cpu, zero, gpu = (requirements(hardware).splitlines() for hardware in ("cpu-basic", "zero-a10g", "t4-small"))
    assert "download.pytorch.org/whl/cpu" in cpu[0] and any(line.startswith("torch>=") for line in cpu)
    assert "torch==2.11.0" in zero and not any("whl/cpu" in line for line in zero)
    assert not any("whl/cpu" in line or line.startswith("torch==") for line in gpu)
    assert set(zero[1:]) == set(gpu[1:]) == set(cpu[2:])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"id": "Steering Playground"}, "is no name for a Space; write owner/name"),
        ({"id": "me/../x"}, "is no name for a Space"),
        ({"id": "me/steer", "model": "/my/folder"}, "'/my/folder' is no id of the Hub, so a Space cannot load it"),
        ({"id": "me/steer", "hardware": "toaster"}, "There is no hardware 'toaster'; choose one of: cpu-basic"),
    ],
)
def test_what_cannot_be_deployed_is_said(options, says) -> None:
    with pytest.raises(SteeringError, match=says):
        Space(**options)


def test_it_is_created_with_its_hardware_and_variables_and_brought_up_to_date(hub: HubStandIn) -> None:
    space = Space("me/steer", "zero-a10g", model="some/model", private=True, variables={"STEERING_LIMIT_PAIRS": "9"})
    assert deploy(space, token=TOKEN, endpoint=hub.address) == "https://huggingface.co/spaces/me/steer"
    made = hub.repositories["spaces/me/steer"]
    assert made.created["sdk"] == "gradio" and made.created["hardware"] == "zero-a10g"
    assert {"key": "STEERING_MODEL", "value": "some/model"} in made.created["variables"]
    assert {"key": "STEERING_LIMIT_PAIRS", "value": "9"} in made.created["variables"]
    assert made.created.get("private") or made.created.get("visibility") == "private"
    assert made.files["app.py"].startswith(b'"""Opens') and b"torch==2.11.0" in made.files["requirements.txt"]
    made.files["steering/gone.py"] = made.files["theirs.txt"] = b"x"
    deploy(space, token=TOKEN, endpoint=hub.address)
    assert "steering/gone.py" not in made.files and "theirs.txt" in made.files


@pytest.mark.parametrize(
    ("status", "says"),
    [(402, "needs a paid plan. Free accounts"), (403, "may not write"), (500, "the Hub answers 500")],
)
def test_a_hub_that_refuses_is_one_sentence(hub: HubStandIn, status, says) -> None:
    hub.refuses = status
    with pytest.raises(SteeringError, match=f"me/steer: the Space cannot be made: .*{says}"):
        deploy(Space("me/steer"), token=TOKEN, endpoint=hub.address)


def test_a_wrong_token_and_no_network_are_one_sentence_without_the_token(hub: HubStandIn) -> None:
    for options, says in (
        ({"token": "hf_wrong", "endpoint": hub.address}, "your token is not valid"),
        ({"token": "hf_wrong", "endpoint": "http://127.0.0.1:9"}, "the Hub cannot be reached"),
    ):
        with pytest.raises(SteeringError, match=says) as raised:
            deploy(Space("me/steer"), **options)
        assert "hf_wrong" not in str(raised.value)


def test_every_hardware_of_the_hub_is_offered() -> None:
    assert {"cpu-basic", "zero-a10g", "t4-small"} <= set(HARDWARE)


def test_the_folder_starts_as_a_space_with_its_vectors(tmp_path, bundled) -> None:
    """On the bundled model, which is in the cache already; with the limits of a public page."""
    own = Library(tmp_path / "own").add(vector(14, name="Come Along", hidden_size=576)).vector
    write_folder(tmp_path / "space", Space("me/steer", vectors=[own]))
    environment = {
        **os.environ,
        "SYSTEM": "spaces",
        "SPACE_ID": "me/steer",
        "GRADIO_SERVER_PORT": "7968",
        "STEERING_DATA_DIR": str(tmp_path / "data"),
        "CPU_CORES": "2",
    }
    environment.pop("PYTHONPATH", None)
    server = subprocess.Popen([sys.executable, "app.py"], cwd=tmp_path / "space", env=environment)
    try:
        deadline = time.monotonic() + 120
        page = httpx.Client(base_url="http://127.0.0.1:7968", timeout=30)
        while time.monotonic() < deadline:
            try:
                config = page.get("config").json()
                break
            except httpx.TransportError:
                assert server.poll() is None
                time.sleep(0.3)
        assert "Duplicate this Space" in str(config)
        event = page.post("gradio_api/call/list_vectors", json={"data": []}).json()["event_id"]
        listed = page.get(f"gradio_api/call/list_vectors/{event}").text
        assert "come-along" in listed and "power-seeking" in listed
    finally:
        server.terminate()
        server.wait(30)
