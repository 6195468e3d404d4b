"""The mapping dialog of step 1: which column, or which place within one, holds the prompt, the chosen answer and so on.

It opens by itself where a file's columns are not known by their names, and shows the first pair as it will be read.
"""

from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr

from steering.interface import html
from steering.interface.train.pairs_reading import MAPPING_TITLE, MappingView
from steering.interface.train.pairs_source import Columns
from steering.pairs.layouts import MAPPING_FIELDS
from steering.pairs.preview import PairsPreview
from steering.pairs.schema import PreferencePair

MOST_SHOWN = 400
"""Characters of a text in the preview: enough to see what it is."""
MOST_CHOICES = 200
"""Columns and paths offered for a field; any other can be typed."""
NOTHING_YET = html.note("Drop a file or paste rows; its columns appear here.")
NOT_USED = ("(none)", "")


class ColumnMapping:
    """The dialog, folded until it is needed, laid out in the container that is open when it is made.

    Attributes:
        panel: the accordion.
        fields: one dropdown for each of `MAPPING_FIELDS`, in their order.
        preview: the first pair as cards, or what is missing.
        read: the button that reads the source with these columns.
    """

    def __init__(self) -> None:
        with gr.Accordion(MAPPING_TITLE, open=False, elem_id="columns-mapping") as self.panel:
            gr.HTML(
                html.note(
                    "Say which column holds what. A place within a column is written with dots, as in "
                    "input.messages or chosen.0.content."
                ),
                padding=False,
            )
            with gr.Row(elem_classes="mapping-fields"):
                self.fields = [
                    gr.Dropdown(
                        [NOT_USED],
                        value="",
                        label=field.label,
                        info=field.help,
                        allow_custom_value=True,
                        interactive=True,
                        min_width=200,
                        elem_id=f"column-{field.name}",
                    )
                    for field in MAPPING_FIELDS
                ]
            self.preview = gr.HTML(NOTHING_YET, elem_id="mapping-preview", padding=False)
            self.read = gr.Button("Read the file", size="sm", elem_id="read-mapped", interactive=False)

    @property
    def outputs(self) -> list[Any]:
        """All components that `show` changes."""
        return [self.panel, *self.fields, self.preview, self.read]

    def show(self, view: MappingView | None) -> dict[Any, Any]:
        """Return the updates that fill the dialog with a source's columns; None only folds it."""
        if view is None:
            return {self.panel: gr.update(open=False), self.read: gr.update(variant="secondary")}
        preview = view.preview
        offered = [(path, value) for path, value in preview.paths.items() if path == _sendable(path)][:MOST_CHOICES]
        choices = [NOT_USED, *((_choice(path, value), path) for path, value in offered)]
        updates: dict[Any, Any] = {
            dropdown: gr.update(choices=choices, value=_sendable(preview.mapping.get(field.name, "")))
            for field, dropdown in zip(MAPPING_FIELDS, self.fields, strict=True)
        }
        readable = bool(preview.paths)
        return updates | {
            self.panel: gr.update(open=view.open),
            self.preview: preview_html(preview) if readable else NOTHING_YET,
            self.read: gr.update(interactive=readable, variant="primary" if view.open else "secondary"),
        }


def columns_of(values: Sequence[str | None]) -> Columns:
    """Return field -> column or path for the dropdowns that hold one."""
    texts = (str(value or "").strip() for value in values)
    return {field.name: text for field, text in zip(MAPPING_FIELDS, texts, strict=True) if text}


def preview_html(preview: PairsPreview) -> str:
    """Render the first pair as it would be read, or what stands in the way."""
    if preview.pair is None:
        return html.note(_sendable(preview.problem) or "Choose the columns above to see the first pair.")
    return f"{html.note('The first pair, as it will be read:')}{pair_cards(preview.pair)}"


def pair_cards(pair: PreferencePair) -> str:
    """Render a pair: the turns before the prompt, the prompt, both answers, each as a small card."""
    names = {"system": "System message", "user": "Earlier: user", "assistant": "Earlier: assistant"}
    cards = [(names.get(turn.role, turn.role), "before", turn.content) for turn in pair.before]
    cards += [("Prompt", "prompt", pair.prompt), ("Chosen", "chosen", pair.chosen)]
    cards += [("Rejected", "rejected", pair.rejected)]
    return f"<div class='pair-cards'>{''.join(_card(*card) for card in cards)}</div>"


def _card(title: str, kind: str, text: str) -> str:
    shown = _sendable(text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN].rstrip() + " …")
    return f"<section class='pair-card {kind}'><h4>{escape(title)}</h4><p dir='auto'>{escape(shown)}</p></section>"


def _choice(path: str, value: str) -> str:
    """Label a column with its first value."""
    value = " ".join(_sendable(value).split())
    return f"{path}: {value[:60]}{'…' * (len(value) > 60)}" if value else path


def _sendable(text: str) -> str:
    """Replace halves of surrogate pairs, which JSON can spell and no answer to a browser can hold."""
    return text.encode("utf-8", "replace").decode()
