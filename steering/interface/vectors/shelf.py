"""The list of vectors on the Vectors tab, and which of them is selected."""

from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.interface.app_state import AppState, Visit
from steering.interface.html_component import widget
from steering.interface.playground.sliders import home_of, own_entries
from steering.vectors.entry import Entry

TAGS = {"shipped": "shipped", "published": "published", "own": "yours"}
"""Words for the part of the shelf that a vector is in."""


def shelf_widget(app: AppState, **options: Any) -> gr.HTML:
    """Make the list's component; its value is what `shelf_value` makes. Fires `select` when a vector is chosen.

    "clicks" in its value counts the choices; in an answer to a value that was sent before the last choice it is less,
    and the browser asks again. A value without it, from an import or a deletion, makes the choice itself.
    """
    return widget({**shelf_value(app.visit()), "clicks": 0}, "shelf", **options)


def shelf_value(visit: Visit, selected: str = "") -> dict[str, Any]:
    """Make the list's value, {"items": [{slug, name, behavior, tag, misfit}], "selected": slug}.

    Those made for the page's model come first. Where no vector has the slug `selected`, the first one is selected.
    """
    own = {entry.slug for entry in own_entries(visit)}
    items = [
        {
            "slug": entry.slug,
            "name": entry.vector.name,
            "behavior": entry.vector.behavior,
            "tag": TAGS[entry.section],
            "misfit": "" if entry.slug in own else f"made for {home_of(entry.vector)}",
        }
        for entry in sorted(visit.library.entries(), key=lambda entry: entry.slug not in own)
    ]
    slugs = [item["slug"] for item in items]
    return {"items": items, "selected": selected if selected in slugs else next(iter(slugs), "")}


def selected_slug(value: Any) -> str:
    """Slug of the selected vector, from a value a browser sent; empty if there is none."""
    return str(value.get("selected", "")) if isinstance(value, dict) else ""


def entry_or_first(visit: Visit, slug: str) -> Entry | None:
    """Return the vector with this slug, else the first one of the list, else None."""
    entries = visit.library.entries()
    first = next(iter(own_entries(visit)), entries[0] if entries else None)
    return next((entry for entry in entries if entry.slug == slug), first)


def misfit(visit: Visit, entry: Entry) -> str:
    """Why a vector cannot be added to the page's model, in a sentence; empty if it can."""
    try:
        entry.vector.check_fits(visit.model.hidden_size, visit.model.num_layers, visit.model.name)
    except SteeringError as error:
        return str(error)
    return ""
