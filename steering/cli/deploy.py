"""`steering deploy`: a Hugging Face Space of one's own."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from steering.errors import SteeringError


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    parser.add_argument("id", metavar="ID", help="owner/name of the Space; one that is there is brought up to date")
    parser.add_argument(
        "--hardware", default="cpu-basic", metavar="H", help="cpu-basic (default), zero-a10g (ZeroGPU), t4-small, ..."
    )
    parser.add_argument(
        "--vectors", nargs="+", default=[], metavar="VECTOR", help="vectors that go along, besides those that ship"
    )
    parser.add_argument("--private", action="store_true", help="only you see it")
    parser.add_argument("--dry-run", action="store_true", help="write the folder and tell what would be done")
    parser.add_argument(
        "--folder", type=Path, metavar="F", help="with --dry-run: keep the Space's files in this folder"
    )


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Write, create and upload; or only write."""
    from steering.deploy import FREE, Space, deploy, write_folder
    from steering.vectors.library import Library

    library = Library()
    space = Space(
        options.id,
        options.hardware,
        model=options.model or "",
        vectors=[library.get(name) for name in options.vectors],
        private=options.private,
        variables={"STEERING_DTYPE": options.dtype} if options.dtype else {},
    )
    answer: dict[str, Any] = {
        "address": space.address,
        "hardware": space.hardware,
        "private": space.private,
        "variables": space.all_variables,
    }
    if options.folder and not options.dry_run:
        raise SteeringError("--folder goes with --dry-run.")
    if not options.dry_run:
        deploy(space)
        return answer, f"{space.address}\nIt builds for some minutes, then opens by itself."
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "space"
        files = write_folder(folder, space)
        answer["files"] = {str(path): (folder / path).stat().st_size for path in files}
    size = sum(answer["files"].values()) / 1e6
    kept = f" They are in {options.folder}." if options.folder else ""
    variables = ", ".join(f"{name}={value}" for name, value in space.all_variables.items()) or "none"
    text = (
        f"{len(files)} files ({size:.1f} MB) would go to {space.address}.{kept}\n"
        f"Hardware: {space.hardware}. Variables: {variables}. {'Private' if space.private else 'Public'}.\n{FREE}"
    )
    return answer, text
