"""Evaluations that a visitor has finished before: listed, and opened again."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.evaluation.report import write_report
from steering.evaluation.store import RunFolder
from steering.interface import html
from steering.interface.app_state import Visit
from steering.interface.evaluate import view
from steering.interface.files import downloadable

FOLDER = "evaluations"
"""In the visitor's private folder; each evaluation in a folder named by its key."""
MOST = 50


def folder_of(visit: Visit, key: str) -> RunFolder:
    """Return the folder of the visitor's evaluation with this key."""
    return RunFolder(visit.visitor.folder / FOLDER / key)


def finished(visit: Visit) -> list[tuple[str, str]]:
    """List the visitor's finished evaluations, the latest first, as choices: (words, key)."""
    found = []
    for results in (visit.visitor.folder / FOLDER).glob("*/results.json"):
        when = results.stat().st_mtime
        found += [(when, words, results.parent.name) for words in _words(results.parent, when)]
    return [(words, key) for _, words, key in sorted(found, reverse=True)[:MOST]]


def _words(folder: Path, when: float) -> Iterator[str]:
    """Name an evaluation; nothing for a folder that cannot be read."""
    try:
        facts = RunFolder(folder).facts()
        count, judge = len(facts["settings"]["prompts"]), facts["settings"]["judge"]
        moment = datetime.fromtimestamp(when).strftime("%Y-%m-%d %H:%M")
        yield f"{facts['vector']['name']}, {count} prompts, {judge}, {moment}"
    except (SteeringError, KeyError, TypeError, json.JSONDecodeError):
        return


def opened(visit: Visit, key: str) -> dict[str, Any]:
    """Show a finished evaluation again: the same parts as after a run.

    Raises SteeringError if it is none of the visitor's, or its files are damaged.
    """
    if key not in {known for _, known in finished(visit)}:
        raise SteeringError("This evaluation is not there any more; evaluate the vector again.")
    folder = folder_of(visit, key)
    try:
        found, facts = view.Found.kept(folder), folder.facts()
        rows = view.answer_rows(folder.answers(), facts["settings"]["prompts"])
    except (KeyError, TypeError, ValueError) as error:
        raise SteeringError("The files of this evaluation are damaged; evaluate the vector again.") from error
    return {
        "status": html.note(f"An earlier evaluation of {found.name}, opened again."),
        "verdict": view.verdict(found),
        "chart": gr.update(value=view.chart(found), visible=True),
        "legend": view.LEGEND,
        "table": view.points_table(found),
        "texts": gr.update(visible=True),
        "answers": rows,
        "report": gr.update(value=downloadable(write_report(folder)), interactive=True),
        "keep": gr.update(interactive=False),
        "curve": view.curve_found(found),
        "beside": gr.update(visible=True),
    }
