"""What the project promises about itself: dependencies, layers, sizes of modules, linters, a Space that would start."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import gradio
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from steering.deploy import HARDWARE

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = sorted((ROOT / "steering").rglob("*.py"))


def front_matter() -> dict:
    return yaml.safe_load((ROOT / "README.md").read_text(encoding="utf-8").split("---")[1])


@cache
def imported(path: Path) -> frozenset[str]:
    """Dotted names that a file imports, at its top, inside of functions and for type checkers."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def declared(requirements: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def third_party(paths: Iterable[Path]) -> dict[str, Path]:
    """Top-level name of each package that is neither ours nor Python's -> a file that imports it."""
    names = {name.partition(".")[0]: path for path in paths for name in imported(path)}
    return {n: path for n, path in names.items() if n not in sys.stdlib_module_names and n not in ("steering", "tests")}


def undeclared(paths: Iterable[Path], names: set[str]) -> list[str]:
    distributions = packages_distributions()
    return [
        f"{path.relative_to(ROOT)} imports {package}, which pyproject.toml does not declare"
        for package, path in third_party(paths).items()
        if not names & {canonicalize_name(each) for each in distributions.get(package, [package])}
    ]


def test_every_package_imported_is_declared() -> None:
    extras = PROJECT["optional-dependencies"]
    assert (
        undeclared(
            MODULES,
            declared(
                [
                    *PROJECT["dependencies"],
                    *extras["adapters"],
                    *extras["harness"],
                    *extras["quantized"],
                    *extras["tracking"],
                    *extras["zerogpu"],
                ]
            ),
        )
        == []
    )
    tests = [path for path in (ROOT / "tests").rglob("*.py") if "benchmarks" not in path.parts]  # those have peers
    assert undeclared(tests, declared([*PROJECT["dependencies"], *extras["test"]])) == []


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
    assert matter["python_version"] == "3.12"  # what ZeroGPU has; the workflow runs it, too
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    assert matter["python_version"] in workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert matter["suggested_hardware"] in HARDWARE and matter["hf_oauth"] is True
    assert (ROOT / matter["thumbnail"]).is_file()
    assert "hf_oauth_scopes" not in matter  # who somebody is; nothing is read or written in their name


LAYERS = (
    {"errors", "limits", "paths", "plugins"},
    {"vectors"},
    {"models"},
    {"pairs"},
    {"intervention", "runtime", "prompting"},
    {"scoring", "generation"},
    {"evaluation", "drafting"},
    {"training", "run_record", "deploy"},
    {"experiments"},
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


MOST_LINES = 300


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_is_short_enough_to_be_read_at_once(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def import_graph() -> dict[str, set[str]]:
    """Module of `steering` -> modules of `steering` that it imports; a package's `__init__` is a module, too."""
    modules = {module_of(path): path for path in MODULES}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        names = graph.setdefault(module, set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names} & modules.keys()
            elif isinstance(node, ast.ImportFrom) and node.module in modules:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                names |= inner & modules.keys()
                names |= {node.module} if inner - modules.keys() else set()
    return graph


def test_no_module_imports_itself_by_way_of_others() -> None:
    try:
        TopologicalSorter(import_graph()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


MOST_FLOORS = 10
"""Of folders that import one another: who follows a call from the page to the model passes through so many at most."""


def test_the_longest_chain_of_folders_is_short() -> None:
    folders: dict[str, set[str]] = {}
    for module, names in import_graph().items():
        folder = module.split(".")[1] if "." in module else ""
        below = {name.split(".")[1] for name in names if "." in name}
        folders.setdefault(folder, set()).update(below - {folder})
    floors: dict[str, int] = {}
    for folder in TopologicalSorter(folders).static_order():
        floors[folder] = 1 + max((floors[below] for below in folders.get(folder, ())), default=0)
    assert max(floors.values()) <= MOST_FLOORS, sorted(floors.items(), key=lambda item: item[1])


FOR_SPEED = (
    "scoring/check.py",
    "scoring/fast",
    "generation/engine",
    "runtime/module_proxy.py",
    "runtime/cpu_threads.py",
)
"""What lies behind the two seams and is there for speed. Not counted are the seams themselves (`scoring.scorer`,
`generation.stream`, `.server`, `.next_token`) and the plain ways (`scoring.reference`, `transformers_engine`)."""

MOST_LINES_FOR_SPEED = 2300


def test_performance_machinery_stays_small() -> None:
    places = [ROOT / "steering" / place for place in FOR_SPEED]
    files = [path for path in MODULES if any(path == place or place in path.parents for place in places)]
    assert all(any(path == place or place in path.parents for path in files) for place in places)
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files) <= MOST_LINES_FOR_SPEED


def run_tool(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_is_clean() -> None:
    run_tool("ruff", "check", ".")
    run_tool("ruff", "format", "--check", ".")


def test_mypy_is_clean() -> None:
    run_tool("mypy")
