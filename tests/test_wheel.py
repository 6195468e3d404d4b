"""The built wheel works outside the checkout: everything that ships is in it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

PROGRAM = """
import json, sys
from pathlib import Path
import steering
from steering import paths
from steering.deploy import Space, write_folder
from steering.interface.html_component import page_head
from steering.vectors.library import Library
files = [str(path) for path in write_folder(Path(sys.argv[1]), Space("me/steer"))]
print(json.dumps({
    "home": str(Path(steering.__file__).parent.parent),
    "vectors": [entry.slug for entry in Library().entries()],
    "examples": len(list((paths.shipped("assets") / "examples").glob("*.csv"))),
    "files": files,
    "head": len(page_head()),
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's files, made by pip from the sources alone."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)], check=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    assert wheel.stat().st_size < 5_000_000
    subprocess.run(
        [*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)], check=True, timeout=300
    )
    return folder / "site"


def run(installed: Path, folder: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed), "STEERING_DATA_DIR": str(folder / "data")}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_ships_is_found_and_a_space_can_be_made_of_it(installed: Path, tmp_path: Path) -> None:

    found = json.loads(run(installed, tmp_path, "-c", PROGRAM, str(tmp_path / "space")))
    assert found["home"] == str(installed)
    assert {"agreeable", "cheerful", "formal", "hallucination", "pirate", "poetic", "power-seeking", "refusal"} == set(
        found["vectors"]
    )
    assert found["examples"] >= 5 and found["head"] > 1_000
    assert {"app.py", "README.md", "requirements.txt", "LICENSE", "steering/limits.py"} <= set(found["files"])
    assert "vectors/cheerful.safetensors" in found["files"] and "assets/first-answers.json" in found["files"]
    assert not any("shipped" in path for path in found["files"])


def test_the_command_runs(installed: Path, tmp_path: Path) -> None:
    assert "cheerful" in run(installed, tmp_path, "-m", "steering", "list", "--json")
