"""What the project promises about itself: one dependency list, imports that run downwards, a Space that would start."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import gradio
import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = sorted((ROOT / "steering").rglob("*.py"))


def front_matter() -> dict:
    return yaml.safe_load((ROOT / "README.md").read_text(encoding="utf-8").split("---")[1])


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_a_space_installs_the_same_dependencies() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").split("\n")
    assert [line for line in lines if line] == PROJECT["dependencies"]


def test_the_space_front_matter_is_sound() -> None:
    matter = front_matter()
    assert matter["sdk"] == "gradio" and (ROOT / matter["app_file"]).is_file()
    wanted = next(r for r in map(Requirement, PROJECT["dependencies"]) if r.name == "gradio")
    assert wanted.specifier.contains(matter["sdk_version"])
    assert wanted.specifier.contains(gradio.__version__)
    assert len(matter["short_description"]) <= 60


LAYERS = (
    {"errors", "paths"},
    {"vectors"},
    {"models"},
    {"pairs"},
    {"intervention", "runtime"},
    {"scoring", "generation"},
    {"evaluation"},
    {"training", "run_record"},
    {"cli", "interface", "__main__"},
)
"""The folders and files of `steering/` from the bottom up; each imports from its own layer and those before it."""


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_downwards(path: Path) -> None:
    def layer_of(place: str) -> int | None:
        return next((number for number, names in enumerate(LAYERS) if place in names), None)

    names = imported(path)
    inside = path.relative_to(ROOT / "steering").with_suffix("").parts[0]
    if inside != "interface":
        assert not any(name.split(".")[0] == "gradio" for name in names)
    if inside == "__init__":
        return
    own = layer_of(inside)
    assert own is not None, f"steering/{inside} has no place in LAYERS"
    for name in names:
        top, _, place = name.partition(".")
        above = layer_of(place.split(".")[0]) if top == "steering" and place else None
        assert above is None or above <= own, f"{path.name} imports {name}, which lies above it"


def test_ruff_is_clean() -> None:
    done = subprocess.run([sys.executable, "-m", "ruff", "check", ROOT], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    done = subprocess.run([sys.executable, "-m", "ruff", "format", "--check", ROOT], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
