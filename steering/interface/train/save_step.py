"""What happens in step 4 of the Train tab: a vector is named and saved, a run that was not saved is opened."""

from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.interface import html
from steering.interface.app_state import AppState
from steering.interface.charts import loss_chart, margin_chart
from steering.interface.playground.sliders import Mixer, mixer_value, read_mixer
from steering.vectors.vector import SteeringVector

SKIP = gr.skip()


@dataclass
class Keeping:
    """Handlers of step 4."""

    app: AppState

    def save(self, vector: SteeringVector | None, name: str, behavior: str, mixer: Any) -> tuple[Any, ...]:
        """Puts the vector on the shelf and its slider, at +1, on the Playground."""
        if vector is None:
            return html.problem("There is nothing to save yet: train a vector first."), SKIP, SKIP, SKIP
        if not (name or "").strip():
            return html.problem("The vector needs a name: write one and save again."), SKIP, SKIP, SKIP
        try:
            draft = vector.extra.pop("draft", None)
            fresh = replace(vector, name=name.strip(), behavior=(behavior or "").strip())
            entry = self.app.library.add(fresh)
            if draft:
                self.app.library.drafts.discard(draft)
            pins = read_mixer(mixer).pins
            panel = mixer_value(self.app, Mixer({entry.slug: fresh.default_multiplier}, pins, entry.slug))
        except SteeringError as error:
            return html.problem(str(error)), SKIP, SKIP, SKIP
        text = html.note(f"Saved as {entry.vector.name}. Its slider is on the Playground, set to +1.")
        return text, panel, gr.update(visible=True), None

    def list_drafts(self) -> tuple[Any, Any]:
        choices = [(label, token) for token, label in self.app.library.drafts.labels()]
        value = choices[0][1] if choices else None
        return gr.update(visible=bool(choices)), gr.update(choices=choices, value=value)

    def open_draft(self, token: str | None) -> tuple[Any, ...]:
        try:
            vector = self.app.library.drafts.open(token or "")
        except SteeringError as error:
            return SKIP, html.problem(str(error)), *[SKIP] * 4
        vector.extra["draft"] = token
        table = html.results_table(vector.metrics.get("held_out", [])) or html.note("It was not measured to the end.")
        curve = vector.metrics.get("curve", [])
        told = html.note(f"Opened: {html.where(vector)}. Give it a name and save it.")
        return vector, table, vector.name, told, loss_chart(curve), margin_chart(curve)
