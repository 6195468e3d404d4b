"""`steering list`, `show`, `import` and `export`: the vectors on the shelf and their files."""

import argparse
import json
from pathlib import Path
from typing import Any

from steering.cli.options import add_vector
from steering.cli.output import say


def run_list(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """List the shelf; files that cannot be read are named on stderr."""
    from steering.vectors.library import Library

    library = Library()
    entries = library.entries()
    for problem in library.problems:
        say(problem)
    answer = {
        "vectors": [
            {
                "name": e.vector.name,
                "slug": e.slug,
                "path": str(e.path),
                "shipped": e.shipped,
                "behavior": e.vector.behavior,
                "model": e.vector.model_id,
                "layers": list(e.vector.layers),
                "norm": e.vector.norm,
            }
            for e in entries
        ]
    }
    width = max((len(e.slug) for e in entries), default=0)
    return answer, "\n".join(f"{e.slug:{width}}  {e.vector.behavior}".rstrip() for e in entries)


def add_show_options(show: argparse.ArgumentParser) -> None:
    """Add the options of `show`."""
    add_vector(show)


def run_show(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Print a vector's metadata; for people without its training curve."""
    from steering.vectors.library import Library

    vector = Library().get(options.vector)
    answer = {**vector.metadata(), "layers": list(vector.layers), "norm": vector.norm}
    shown = answer | {"metrics": {key: value for key, value in answer["metrics"].items() if key != "curve"}}
    lines = [f"{key}: {_plain_words(value)}" for key, value in shown.items() if value not in ("", {}, [])]
    return answer, "\n".join(lines)


def _plain_words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def add_import_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `import`."""
    parser.add_argument("file", metavar="FILE", help=".safetensors of ours, or BiPO's .pt")
    parser.add_argument("--layer", type=int, metavar="K", help="for .pt files whose name does not say it")
    parser.add_argument("--name", metavar="N", help="default: the name in the file, or the file's name")


def run_import(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Copy a vector file of any known format onto the shelf."""
    from steering.vectors.formats import read_any
    from steering.vectors.library import Library

    vector = read_any(Path(options.file), layer=options.layer, name=options.name)
    entry = Library().add(vector)
    answer = {"name": entry.vector.name, "slug": entry.slug, "path": str(entry.path)}
    return answer, f"{options.file} is on the shelf as {entry.slug}."


def add_export_options(export: argparse.ArgumentParser) -> None:
    """Add the options of `export`."""
    add_vector(export)
    export.add_argument("--format", default="safetensors", metavar="F", help="default: safetensors")
    export.add_argument("--output", required=True, metavar="PATH")


def run_export(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Write a vector to a file of a known format."""
    from steering.vectors.formats import write
    from steering.vectors.library import Library

    path = write(Library().get(options.vector), Path(options.output), options.format)
    return {"path": str(path), "format": options.format}, f"Wrote {path}."
