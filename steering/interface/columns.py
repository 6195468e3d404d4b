"""Answers side by side, as cards that fill while the model writes."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from steering import paths
from steering.generation import Column

UPDATES_PER_SECOND = 12  # a reader sees no more, and a browser is not kept busy


def columns_panel(value: dict[str, Any] | None = None, **options: Any) -> gr.HTML:
    """Value: {"columns": [{title, kind, text, foot, writing}], "note": text above them, "problem": what went wrong}."""
    template = (paths.shipped("assets") / "columns.html").read_text(encoding="utf-8")
    return gr.HTML(value or message(), html_template=template, js_on_load="", **options)


def message(note: str = "", problem: str = "") -> dict[str, Any]:
    """No columns, only words."""
    return {"columns": [], "note": note, "problem": problem}


def cards(columns: Sequence[Column], kinds: Sequence[str], note: str = "", *, stopped: bool = False) -> dict[str, Any]:
    """Columns as the page shows them; `kinds` colours them (baseline, setting, opposite, pin)."""
    return {
        "columns": [
            {
                "title": column.title,
                "kind": kind,
                "text": column.text,
                "foot": _foot(column, stopped),
                "writing": not column.finished and not stopped,
            }
            for column, kind in zip(columns, kinds, strict=True)
        ],
        "note": note,
        "problem": "",
    }


def throttled(snapshots: Iterator[list[Column]]) -> Iterator[list[Column]]:
    """At most `UPDATES_PER_SECOND` of the snapshots, the first and the last always."""
    shown = 0.0
    pending = None
    for snapshot in snapshots:
        if time.monotonic() - shown >= 1 / UPDATES_PER_SECOND:
            shown, pending = time.monotonic(), None
            yield snapshot
        else:
            pending = snapshot
    if pending is not None:
        yield pending


def _foot(column: Column, stopped: bool) -> str:
    if not column.tokens:
        return "waiting for the first word" if not stopped else "stopped"
    ending = " · stopped" if stopped and not column.finished else ""
    return f"{column.tokens} tokens · {column.tokens_per_second:.0f} per second{ending}"
