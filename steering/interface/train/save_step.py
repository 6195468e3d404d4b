"""Saving, in step 3 of the Train tab: a vector is named and saved; a run that was not saved is opened again.

The handlers return the parts of the page that change, by name: `saved` (HTML), `sliders` (the Playground's panel),
`visit` (the button that leads there), `unsaved`, `results`, `name`, `status`, `loss_chart`, `margin_chart`, `charts`,
`drafts_box`, `draft`.
"""

from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.interface import html
from steering.interface.app_state import AppState
from steering.interface.charts import loss_chart, margin_chart
from steering.interface.playground.sliders import SliderPanel, panel_value, read_panel
from steering.interface.shared_page import keeping_note
from steering.vectors.vector import SteeringVector

Update = dict[str, Any]


@dataclass(frozen=True, eq=False)
class UnsavedRun:
    """What a training came to, before it is saved.

    Attributes:
        vector: with its held-out results.
        draft_id: the draft on disk (see `vectors.drafts`) that holds the same vector until it is saved.
    """

    vector: SteeringVector
    draft_id: str


@dataclass
class SaveStep:
    """Handlers of saving."""

    app: AppState

    def save(
        self, request: gr.Request | None, unsaved: UnsavedRun | None, name: str, behavior: str, sliders: Any
    ) -> Update:
        """Save the vector under this name, discard its draft, and set its slider on the Playground to +1.

        After a failure the run and its draft are still there, and saving can be tried again.
        """
        if unsaved is None:
            return {"saved": html.problem("There is nothing to save yet: train a vector first.")}
        if not (name or "").strip():
            return {"saved": html.problem("The vector needs a name: write one and save again.")}
        vector = replace(unsaved.vector, name=name.strip(), behavior=(behavior or "").strip())
        try:
            visit, pins = self.app.visit(request), read_panel(sliders).pins
            entry = visit.library.add(vector)
        except SteeringError as error:
            return {"saved": html.problem(str(error))}
        visit.library.drafts.discard(unsaved.draft_id)
        return {
            "saved": html.note(f"Saved as {entry.vector.name}. Its slider is on the Playground, set to +1.")
            + keeping_note(self.app),
            "sliders": panel_value(visit, SliderPanel({entry.slug: vector.default_multiplier}, pins, entry.slug)),
            "visit": gr.update(visible=True),
            "unsaved": None,
            "save": gr.update(variant="secondary"),
        }

    def list_drafts(self, request: gr.Request | None = None) -> Update:
        """Offer the runs that were not saved, newest first; hide the box where there are none."""
        choices = [(label, draft_id) for draft_id, label in self.app.visit(request).library.drafts.labels()]
        value = choices[0][1] if choices else None
        return {"drafts_box": gr.update(visible=bool(choices)), "draft": gr.update(choices=choices, value=value)}

    def open_draft(self, request: gr.Request | None, draft_id: str | None) -> Update:
        """Show the vector of a run that was not saved as if it had just ended."""
        try:
            vector = self.app.visit(request).library.drafts.open(draft_id or "")
        except SteeringError as error:
            return {"results": html.problem(str(error))}
        curve = vector.metrics.get("curve", [])
        results = html.results_table(vector.metrics.get("held_out", []))
        return {
            "unsaved": UnsavedRun(vector, draft_id or ""),
            "results": results or html.note("It was not measured to the end."),
            "name": vector.name,
            "status": html.note(f"Opened: {html.where(vector)}. Give it a name and save it."),
            "loss_chart": loss_chart(curve),
            "margin_chart": margin_chart(curve),
            "charts": gr.update(visible=bool(curve)),
            "save": gr.update(variant="primary"),
        }
