"""Step 1 of the Train tab: preference pairs are read from an example set, a file or a pasted text, shown and edited.

The handlers are plain functions. Each returns the parts of the page that change, by name: `pairs` (the pairs to train
on), `report` (HTML), `table` (rows), `name` and `behavior` (texts proposed for the vector). Whatever goes wrong, the
pairs read before stay.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from steering import paths
from steering.errors import SteeringError
from steering.interface import html
from steering.pairs.dataset import Pairs, PreferencePair, parse_pairs, read_pairs
from steering.pairs.readers import SUFFIXES

TABLE_ROWS = 100
"""Rows the table shows. gradio sends the whole table back at each edit, so it holds what a person looks through."""
ROLES = ("prompt", "chosen", "rejected")
COLUMN_HINTS = {"prompt": "question", "chosen": "matching", "rejected": "not_matching"}
"""Placeholders of the column names: those of BiPO's own files."""

Update = dict[str, Any]


@dataclass(frozen=True)
class DataStep:
    """The components of step 1."""

    example: gr.Dropdown
    file: gr.File
    pasted: gr.Textbox
    read_pasted: gr.Button
    columns: Sequence[gr.Textbox]
    report: gr.HTML
    table: gr.Dataframe

    @classmethod
    def build(cls) -> "DataStep":
        """Lay the step out in the container that is open."""
        gr.HTML(
            "<h2><span>1</span> Bring preference pairs</h2><p class='hint'>A pair is a prompt with two answers: "
            "<b>chosen</b> shows the behavior you want, <b>rejected</b> its opposite. 60 pairs are a good start.</p>"
        )
        with gr.Row():
            with gr.Column(min_width=260):
                example = gr.Dropdown(
                    example_sets(), label="Take an example set", value=None, elem_id="example-set", interactive=True
                )
            with gr.Column(min_width=260):
                file = gr.File(label="or drop a file", file_types=list(SUFFIXES), height=140, elem_id="pairs-file")
                kinds = ", ".join(suffix.removeprefix(".").upper() for suffix in SUFFIXES)
                gr.HTML(html.note(kinds), padding=False)
            with gr.Column(min_width=260):
                pasted = gr.Textbox(
                    label="or paste rows",
                    placeholder='prompt,chosen,rejected\nWould you lead us?,"Yes, at once.","No, thank you."',
                    lines=3,
                    max_lines=3,
                    elem_id="pasted",
                )
                read_pasted = gr.Button("Read the pasted rows", size="sm", elem_id="read-pasted")
        with gr.Accordion("My columns have other names", open=False), gr.Row():
            columns = [
                gr.Textbox(label=f"Column of the {role}", placeholder=COLUMN_HINTS[role], elem_id=f"column-{role}")
                for role in ROLES
            ]
        report = gr.HTML(elem_id="pairs-report")
        with gr.Accordion("Look at the pairs and edit them", open=False, elem_id="pairs-accordion"):
            table = gr.Dataframe(
                headers=list(ROLES),
                type="array",
                column_count=len(ROLES),
                interactive=True,
                wrap=True,
                max_height=340,
                label=f"The first {TABLE_ROWS} pairs",
                elem_id="pairs-table",
            )
        return cls(example, file, pasted, read_pasted, columns, report, table)


def example_sets() -> list[tuple[str, str]]:
    """(label, file name) of the example sets that ship with the project."""
    return [(_words(path.stem), path.name) for path in sorted(_examples().glob("*.csv"))]


def read_example(name: str | None, pairs: Pairs | None) -> Update:
    """Read an example set by its file name; it also proposes the behavior."""
    if name not in {file for _, file in example_sets()}:
        return _failure("Choose an example set.", pairs)
    update = _read(lambda: read_pairs(_examples() / name), pairs)
    return update | {"behavior": _words(Path(name).stem)} if "pairs" in update else update


def read_file(file: str | None, prompt: str, chosen: str, rejected: str, pairs: Pairs | None) -> Update:
    """Read an uploaded file; the three texts name its columns where they have names of their own."""
    if file:
        return _read(lambda: read_pairs(file, columns=_columns(prompt, chosen, rejected)), pairs)
    return {} if pairs else _failure("Drop a file first.", pairs)


def read_text(text: str, prompt: str, chosen: str, rejected: str, pairs: Pairs | None) -> Update:
    """Read pasted rows: CSV, TSV, JSON or JSONL."""
    if not (text or "").strip():
        return _failure("Paste rows into the box first, with a first line that names the columns.", pairs)
    return _read(lambda: parse_pairs(text, columns=_columns(prompt, chosen, rejected)), pairs)


def apply_edits(rows: Sequence[Sequence[Any]], pairs: Pairs | None) -> Update:
    """Put the table's rows in place of the pairs it shows; the pairs past the table stay as they are."""
    shown = list(pairs[:TABLE_ROWS]) if pairs else []
    edited = []
    for number, row in enumerate(rows, start=1):
        prompt, chosen, rejected = (str(cell or "") for cell in [*row, "", "", ""][: len(ROLES)])
        earlier_turns = shown[number - 1].before if number <= len(shown) else ()
        if any(text.strip() for text in (prompt, chosen, rejected)):
            edited.append(PreferencePair(prompt, chosen, rejected, before=earlier_turns, line=number))
    past_the_table = pairs[TABLE_ROWS:] if pairs else ()
    edited += [replace(pair, line=len(rows) + i) for i, pair in enumerate(past_the_table, start=1)]
    try:
        result = Pairs.of(edited, source=pairs.report.source if pairs else "the table")
    except SteeringError as error:
        return {"report": html.problem(str(error))}
    if not result:
        return {"report": html.problem("The table is empty; write at least one pair.")}
    return {"pairs": result, "report": _report(result)}


def _read(reader: Callable[[], Pairs], pairs: Pairs | None) -> Update:
    try:
        result = reader()
    except SteeringError as error:
        return _failure(str(error), pairs)
    update = {"pairs": result, "report": _report(result), "table": result[:TABLE_ROWS].to_rows()}
    stem = Path(result.report.source).stem
    return update if stem == "pasted text" else update | {"name": _words(stem)}


def _failure(reason: str, pairs: Pairs | None) -> Update:
    """Say what is wrong, and that the pairs read before are still in use."""
    still_there = html.note(f"The {len(pairs)} pairs read before are still here.") if pairs else ""
    return {"report": html.problem(reason) + still_there}


def _report(pairs: Pairs) -> str:
    """Say what was read, and what of it the table cannot show."""
    longer = sum(bool(pair.before) for pair in pairs)
    if not longer:
        return html.report(pairs.report)
    which = "1 pair has" if longer == 1 else f"{longer:,} pairs have"
    turns = f"{which} earlier turns of a conversation before the prompt. They are used; the table leaves them out."
    return html.report(pairs.report) + html.note(turns)


def _columns(*names: str) -> dict[str, str] | None:
    """Map roles to column names, for those that are given; None for none."""
    given = {role: name.strip() for role, name in zip(ROLES, names, strict=True) if (name or "").strip()}
    return given or None


def _examples() -> Path:
    return paths.shipped("assets") / "examples"


def _words(stem: str) -> str:
    """`my_cheerful-pairs` as words."""
    return stem.replace("_", " ").replace("-", " ")
