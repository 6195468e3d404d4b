"""What the Vectors tab's events do on the server; each returns {component: value}."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.interface import html
from steering.interface.app_state import AppState
from steering.interface.playground.sliders import fitting, panel_value, read_panel
from steering.interface.vectors.details import details
from steering.interface.vectors.shelf import entry_or_first, misfit, selected_slug, shelf_value
from steering.vectors.formats import read_any

Updates = dict[Any, Any]
"""Component -> its new value."""


@dataclass(frozen=True)
class Layout:
    """The tab's components that change, and the Playground's sliders.

    Attributes:
        shelf: the list; details: of the selected vector; message: what the last action did, or what went wrong.
        download: the button with the selected vector's file.
        undo: the button that brings back what was deleted last; undo_token: its token, a `gr.State`.
        sliders: the Playground's.
    """

    shelf: gr.HTML
    details: gr.HTML
    message: gr.HTML
    download: gr.DownloadButton
    undo: gr.Button
    undo_token: gr.State
    sliders: gr.HTML


@dataclass(frozen=True)
class Handlers:
    """The handlers of one page."""

    app: AppState
    layout: Layout

    def show(self, shelf: Any) -> Updates:
        """Show the shelf as it is now, and its selected vector; see `shelf_widget` for "clicks"."""
        updates = self._selected(selected_slug(shelf))
        if isinstance(shelf, dict) and isinstance(shelf.get("clicks"), int):
            updates[self.layout.shelf]["clicks"] = shelf["clicks"]
        return updates

    def import_file(self, path: str | None, layer: str, name: str, sliders: Any) -> Updates:
        """Put a vector file on the shelf; `layer` is the text of a box, for files that do not say their layer."""
        if not path:
            return self._problem("Drop a vector file first.")
        try:
            vector = read_any(path, layer=_layer(layer), name=(name or "").strip() or None)
            entry = self.app.library.add(vector)
            panel = panel_value(self.app, read_panel(sliders))
        except SteeringError as error:
            return self._problem(str(error))
        text = html.note(f"{entry.vector.name} is on the shelf.")
        if entry.slug not in {other.slug for other in fitting(self.app)}:
            text += html.note(misfit(self.app, entry))
        return {self.layout.message: text, self.layout.sliders: panel, **self._selected(entry.slug)}

    def delete(self, shelf: Any, sliders: Any) -> Updates:
        """Take the selected vector off the shelf, and offer to undo it."""
        slug = selected_slug(shelf)
        try:
            panel = read_panel(sliders)
            entry = next((entry for entry in self.app.library.entries() if entry.slug == slug), None)
            token = self.app.library.delete(slug)
        except SteeringError as error:
            return self._problem(str(error))
        return {
            self.layout.message: html.note(f"{entry.vector.name if entry else slug} was taken off the shelf."),
            self.layout.sliders: panel_value(self.app, panel),
            self.layout.undo_token: token,
            self.layout.undo: gr.update(visible=True),
            **self._selected(""),
        }

    def undo_delete(self, token: str | None, sliders: Any) -> Updates:
        """Put back what was deleted last."""
        try:
            panel = read_panel(sliders)
            entry = self.app.library.restore(token or "")
        except SteeringError as error:
            return self._problem(str(error))
        return {
            self.layout.message: html.note(f"{entry.vector.name} is back."),
            self.layout.sliders: panel_value(self.app, panel),
            self.layout.undo_token: None,
            self.layout.undo: gr.update(visible=False),
            **self._selected(entry.slug),
        }

    def _selected(self, slug: str) -> Updates:
        """Return the shelf with this vector selected, else the first one; its details and its file."""
        entry = entry_or_first(self.app, slug)
        slug = entry.slug if entry else ""
        return {
            self.layout.shelf: shelf_value(self.app, slug),
            self.layout.details: details(self.app, slug),
            self.layout.download: str(entry.path) if entry else None,
        }

    def _problem(self, text: str) -> Updates:
        return {self.layout.message: html.problem(text)}


def _layer(text: str) -> int | None:
    """Read the layer written in a text box; None for an empty one, SteeringError for what is no number."""
    text = (text or "").strip()
    if text and not text.isdecimal():
        raise SteeringError(f"Layer {text!r} is not a number; count the decoder blocks from 0.")
    return int(text) if text else None
