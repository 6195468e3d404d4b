"""What the Vectors tab's events do on the server; each returns {component: value}."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.interface import html
from steering.interface.app_state import AppState, Visit
from steering.interface.files import downloadable
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

    def show(self, request: gr.Request | None, shelf: Any) -> Updates:
        """Show the shelf as it is now, and its selected vector; see `shelf_widget` for "clicks"."""
        visit = self.app.visit(request)
        updates = self._selected(visit, selected_slug(shelf))
        if isinstance(shelf, dict) and isinstance(shelf.get("clicks"), int):
            updates[self.layout.shelf]["clicks"] = shelf["clicks"]
        return updates

    def import_file(self, request: gr.Request | None, path: str | None, layer: str, name: str, sliders: Any) -> Updates:
        """Put a vector file on the shelf; `layer` is the text of a box, for files that do not say their layer."""
        if not path:
            return self._problem("Drop a vector file first.")
        visit = self.app.visit(request)
        try:
            visit.limits.check_file(Path(path))
            vector = read_any(path, layer=_layer(layer), name=(name or "").strip() or None)
            entry = visit.library.add(vector)
            panel = panel_value(visit, read_panel(sliders))
        except SteeringError as error:
            return self._problem(str(error))
        text = html.note(f"{entry.vector.name} is on the shelf.")
        if entry.slug not in {other.slug for other in fitting(visit)}:
            text += html.note(misfit(visit, entry))
        return {self.layout.message: text, self.layout.sliders: panel, **self._selected(visit, entry.slug)}

    def delete(self, request: gr.Request | None, shelf: Any, sliders: Any) -> Updates:
        """Take the selected vector off the shelf, and offer to undo it."""
        visit, slug = self.app.visit(request), selected_slug(shelf)
        try:
            panel = read_panel(sliders)
            entry = next((entry for entry in visit.library.entries() if entry.slug == slug), None)
            token = visit.library.delete(slug)
        except SteeringError as error:
            return self._problem(str(error))
        return {
            self.layout.message: html.note(f"{entry.vector.name if entry else slug} was taken off the shelf."),
            self.layout.sliders: panel_value(visit, panel),
            self.layout.undo_token: token,
            self.layout.undo: gr.update(visible=True),
            **self._selected(visit, ""),
        }

    def undo_delete(self, request: gr.Request | None, token: str | None, sliders: Any) -> Updates:
        """Put back what was deleted last."""
        visit = self.app.visit(request)
        try:
            panel = read_panel(sliders)
            entry = visit.library.restore(token or "")
        except SteeringError as error:
            return self._problem(str(error))
        return {
            self.layout.message: html.note(f"{entry.vector.name} is back."),
            self.layout.sliders: panel_value(visit, panel),
            self.layout.undo_token: None,
            self.layout.undo: gr.update(visible=False),
            **self._selected(visit, entry.slug),
        }

    def _selected(self, visit: Visit, slug: str) -> Updates:
        """Return the shelf with this vector selected, else the first one; its details and its file."""
        entry = entry_or_first(visit, slug)
        slug = entry.slug if entry else ""
        return {
            self.layout.shelf: shelf_value(visit, slug),
            self.layout.details: details(visit, slug),
            self.layout.download: downloadable(entry.path) if entry else None,
        }

    def _problem(self, text: str) -> Updates:
        return {self.layout.message: html.problem(text)}


def _layer(text: str) -> int | None:
    """Read the layer written in a text box; None for an empty one, SteeringError for what is no number."""
    text = (text or "").strip()
    if text and not text.isdecimal():
        raise SteeringError(f"Layer {text!r} is not a number; count the decoder blocks from 0.")
    return int(text) if text else None
