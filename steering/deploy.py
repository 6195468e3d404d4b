"""A Hugging Face Space of one's own: its folder is written, the Space created, the folder uploaded.

What a Space needs follows from its hardware: a CPU Space takes torch's CPU wheel, ZeroGPU one of the versions of torch
that it lists. Steering vectors of one's own go along as shipped ones.
"""

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi, SpaceHardware
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from steering import paths
from steering.errors import SteeringError
from steering.vectors.text import slug_of
from steering.vectors.vector import SUFFIX, SteeringVector

SPACE_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
CPU, ZERO = "cpu-basic", "zero-a10g"
HARDWARE = tuple(each.value for each in SpaceHardware)
CPU_INDEX = "--extra-index-url https://download.pytorch.org/whl/cpu"
"""Where torch has wheels without CUDA; pip prefers them, since `+cpu` counts as the later version."""
ZERO_TORCH = "torch==2.11.0"
"""The newest torch that ZeroGPU lists (2.8.0, 2.9.1, 2.10.0, 2.11.0; documentation of August 2026)."""
LFS = ("*.safetensors", "*.png", "*.whl")
"""Binary files, which the Hub takes from `git push` only through LFS; an upload by program needs no LFS."""
LEFT_OUT = ("__pycache__", "*.pyc", "shipped")
FREE = "Free accounts older than 30 days may host two ZeroGPU Spaces; a CPU Space with gradio needs a PRO or Team plan."


@dataclass(frozen=True)
class Space:
    """What is to be deployed.

    Attributes:
        id: owner/name.
        hardware: one of `HARDWARE`.
        model: Hub id of its model; empty for the bundled one.
        vectors: shipped with it besides those of the project.
        private: whether only its owner sees it.
        variables: further environment variables, such as limits.
    """

    id: str
    hardware: str = CPU
    model: str = ""
    vectors: Sequence[SteeringVector] = ()
    private: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not SPACE_ID.fullmatch(self.id):
            raise SteeringError(f"{self.id[:60]!r} is no name for a Space; write owner/name, without spaces.")
        if self.model and not SPACE_ID.fullmatch(self.model):
            raise SteeringError(f"The model {self.model[:60]!r} is no id of the Hub, so a Space cannot load it.")
        if self.hardware not in HARDWARE:
            raise SteeringError(f"There is no hardware {self.hardware!r}; choose one of: {', '.join(HARDWARE)}.")

    @property
    def address(self) -> str:
        """Where it will be."""
        return f"https://huggingface.co/spaces/{self.id}"

    @property
    def all_variables(self) -> dict[str, str]:
        """Environment variables that configure it."""
        return {**({"STEERING_MODEL": self.model} if self.model else {}), **self.variables}


def write_folder(folder: Path, space: Space) -> list[Path]:
    """Write the files of a Space that is ready to start; return their paths in the folder.

    Raises SteeringError if the folder holds something already, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise SteeringError(f"{folder}: there is something in it already; give an empty folder.")
        leave_out = shutil.ignore_patterns(*LEFT_OUT)
        shutil.copytree(paths.PACKAGE, folder / "steering", ignore=leave_out)
        for name in ("assets", "vectors"):
            shutil.copytree(paths.shipped(name), folder / name, ignore=leave_out)
        for name in ("app.py", "LICENSE"):
            shutil.copy(paths.shipped(name), folder / name)
        for vector in space.vectors:
            vector.save(folder / "vectors" / f"{slug_of(vector.name)}{SUFFIX}")
        (folder / "README.md").write_text(readme(space), encoding="utf-8")
        (folder / "requirements.txt").write_text(requirements(space.hardware), encoding="utf-8")
        lines = (f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS)
        (folder / ".gitattributes").write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise SteeringError(
            f"{folder}: cannot be written ({error.strerror or error}); choose another folder."
        ) from error
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def readme(space: Space) -> str:
    """Return the Space's README: the project's front matter, made its own, and a few words."""
    text = paths.shipped("README.md").read_text(encoding="utf-8")
    matter: dict[str, Any] = yaml.safe_load(text.split("---")[1])
    matter |= {"suggested_hardware": space.hardware, "thumbnail": f"{space.address}/resolve/main/assets/playground.png"}
    if space.model:
        matter["models"] = [space.model]
    head = yaml.safe_dump(matter, sort_keys=False, allow_unicode=True)
    return (
        f"---\n{head}---\n\n# {matter['title']}\n\n{matter['short_description']}: BiPO steering vectors, one slider "
        "each.\n\nVisitors have shelves and limits of their own; duplicate this Space for a page without. "
        "Its variables `STEERING_MODEL`, `STEERING_DEVICE`, `STEERING_DTYPE` and `STEERING_LIMIT_...` configure it.\n"
    )


def requirements(hardware: str) -> str:
    """Return the Space's requirements.txt for its hardware: the project's, with the torch that fits."""
    lines = paths.shipped("requirements.txt").read_text(encoding="utf-8").splitlines()
    if hardware == ZERO:
        lines = [ZERO_TORCH if line.startswith("torch>") else line for line in lines]
    if hardware.startswith("cpu"):
        lines = [CPU_INDEX, *lines]
    return "\n".join(lines) + "\n"


def deploy(space: Space, *, token: str | None = None, endpoint: str | None = None) -> str:
    """Create the Space, or bring it up to date if it is there, and return its address.

    Args:
        token: of the Hub; by default that of `HF_TOKEN` or of `hf auth login`.
        endpoint: another Hub's address.

    Raises SteeringError for a Hub that refuses or cannot be reached.
    """
    api = HfApi(endpoint=endpoint, token=token)
    variables = [{"key": name, "value": value} for name, value in space.all_variables.items()]
    with _told(space), tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "space"
        write_folder(folder, space)
        api.create_repo(
            space.id,
            repo_type="space",
            space_sdk="gradio",
            space_hardware=SpaceHardware(space.hardware),
            space_variables=variables or None,
            private=space.private,
            exist_ok=True,
        )
        api.upload_folder(
            repo_id=space.id,
            repo_type="space",
            folder_path=folder,
            commit_message="Steering Playground",
            delete_patterns=["steering/**", "assets/**", "vectors/**"],  # what an earlier version left
        )
    return space.address


@contextmanager
def _told(space: Space) -> Any:
    """Turn what the Hub, or the way to it, raises into one sentence."""
    try:
        yield
    except SteeringError:
        raise
    except LocalTokenNotFoundError as error:
        raise SteeringError("You are not logged in to the Hub; run `hf auth login`, or set HF_TOKEN.") from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        reasons = {
            401: "your token is not valid; run `hf auth login`, or set HF_TOKEN",
            402: f"it needs a paid plan. {FREE}",
            403: f"your token may not write there, or the hardware needs a paid plan. {FREE}",
        }
        said = " ".join(str(getattr(error, "server_message", "") or "").split())[:200]
        reason = reasons.get(status or 0, f"the Hub answers {status}{f': {said}' if said else ''}")
        raise SteeringError(f"{space.id}: the Space cannot be made: {reason}.") from error
    except Exception as error:  # no network shows as one of many kinds
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        raise SteeringError(f"{space.id}: the Hub cannot be reached ({reason}); check the network.") from error
