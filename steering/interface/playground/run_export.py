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


def export_run(model: str, answers_value: Any, form: str) -> gr.Code:
    """Write the answers now shown in one of `FORMS`; a sentence that says what is wrong if there are none."""
    write, language = FORMS.get(form, FORMS["Python"])
    try:
        return gr.Code(write(record_of(model, answers_value)), language=language)
    except SteeringError as error:
        return gr.Code(str(error), language=None)


def record_of(model: str, answers_value: Any) -> Record:
    """Read the answers that a browser shows as a record; SteeringError if there are none, or something unsound."""
    run = answers_value.get("run") if isinstance(answers_value, dict) else None
    if not isinstance(run, dict) or not answers_value.get("columns"):
        raise SteeringError("There are no answers to take along yet.")
    turns = read_turns(answers_value)
    copied = ("title", "text", "tokens", "fluency")
    columns = [
        {
            "setting": card["multipliers"],
            "history": history(turns, id),
            "finished": card.get("done"),
            **{name: card.get(name) for name in copied},
        }
        for id, card in cards_of(answers_value).items()
    ]
    record = {
        "format": FORMAT,
        "version": VERSION,
        "model": model,
        "prompt": answers_value.get("asked"),
        "columns": columns,
        **{name: run.get(name) for name in ("system", "weights", "sampling")},
    }
    return from_json(json.dumps(record))
