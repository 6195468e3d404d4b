"""The answers on the page, exported as text: Python, a command, Markdown, JSON."""

import json
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.interface.answer_cards import cards_of, history, read_turns
from steering.run_record import (
    FORMAT,
    VERSION,
    Record,
    as_command,
    as_json,
    as_markdown,
    as_python,
    from_json,
)

FORMS = {
    "Python": (as_python, "python"),
    "Command line": (as_command, "shell"),
    "Markdown": (as_markdown, "markdown"),
    "JSON": (as_json, "json"),
}


def export_run(model: str, shown: Any, form: str) -> gr.Code:
    """Write the answers now shown in one of `FORMS`; a sentence that says what is wrong if there are none."""
    write, language = FORMS.get(form, FORMS["Python"])
    try:
        return gr.Code(write(record_of(model, shown)), language=language)
    except SteeringError as error:
        return gr.Code(str(error), language=None)


def record_of(model: str, shown: Any) -> Record:
    """Read the answers that a browser shows as a record; SteeringError if there are none, or something unsound."""
    if not isinstance(shown, dict) or not isinstance(shown.get("run"), dict) or not shown.get("columns"):
        raise SteeringError("There are no answers to take along yet.")
    turns = read_turns(shown)
    fields = ("title", "text", "tokens", "fluency")
    columns = [
        {
            "setting": card["multipliers"],
            "history": history(turns, id),
            "finished": card.get("done"),
            **{field: card.get(field) for field in fields},
        }
        for id, card in cards_of(shown).items()
    ]
    run = {name: shown["run"].get(name) for name in ("system", "weights", "sampling")}
    record = {"format": FORMAT, "version": VERSION, "model": model, "prompt": shown.get("asked"), "columns": columns}
    return from_json(json.dumps(record | run))
