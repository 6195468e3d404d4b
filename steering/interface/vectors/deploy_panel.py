"""The panel that makes a Hugging Face Space of the playground; only on a page that its owner alone uses."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

import gradio as gr

from steering.deploy import CPU, FREE, HARDWARE, ZERO, Space, deploy
from steering.errors import SteeringError
from steering.interface import html
from steering.interface.app_state import AppState
from steering.models import bundled

LABELS = {ZERO: "ZeroGPU (free)", CPU: "CPU (PRO or Team plan)"}
LOGIN = "Uses the login of this machine (hf auth login, or HF_TOKEN); a token is never typed here."


class DeployPanel:
    """The panel, folded, laid out in the container that is open when it is made."""

    def __init__(self, app: AppState) -> None:
        self.app = app
        with gr.Accordion("Share it: make a Hugging Face Space", open=False, elem_id="deploy") as self.panel:
            gr.HTML(html.note(f"{LOGIN} {FREE}"), padding=False)
            self.id = gr.Textbox(
                label="Name of the Space",
                placeholder="you/steering-playground",
                max_lines=1,
                max_length=200,
                elem_id="space-id",
            )
            self.hardware = gr.Dropdown(
                [(LABELS.get(name, name), name) for name in sorted(HARDWARE, key=lambda name: name not in LABELS)],
                value=ZERO,
                label="Hardware",
                elem_id="space-hardware",
            )
            self.vectors = gr.Dropdown(
                [],
                value=[],
                multiselect=True,
                label="Your vectors that go along",
                info="besides those that ship; others can read and download them",
                elem_id="space-vectors",
            )
            self.private = gr.Checkbox(label="Private: only you see it", elem_id="space-private")
            self.start = gr.Button("Make the Space", elem_id="make-space")
            self.status = gr.HTML(elem_id="space-status", padding=False)

    def offer_vectors(self) -> Any:
        """Offer what is on the user's shelf now."""
        own = [entry for entry in self.app.visit().library.entries() if entry.section == "own"]
        return gr.update(choices=[(entry.vector.name, entry.slug) for entry in own])

    def make(self, id: str, hardware: str, slugs: Sequence[str], private: bool) -> Iterator[str]:
        """Create the Space and upload its files; yield what to show."""
        yield html.note("Writing its files and uploading them ...")
        try:
            library, model = self.app.visit().library, self.app.model
            space = Space(
                (id or "").strip(),
                hardware,
                model="" if model.name == bundled.NAME else model.source,
                vectors=[library.get(slug, files=False) for slug in slugs or ()],
                private=bool(private),
            )
            address = escape(deploy(space))
        except SteeringError as error:
            yield html.problem(str(error))
            return
        yield f'<p class="note">It builds for some minutes at <a href="{address}" target="_blank">{address}</a>.</p>'

    def wire(self, arrival: Any, changed: Any) -> None:
        """Connect the events.

        Args:
            arrival: subscribes to the opening of the page; changed: to a change of the shelf.
        """
        hidden: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        for event in (arrival, changed):
            event(self.offer_vectors, None, self.vectors, queue=False, **hidden)
        self.start.click(self.make, [self.id, self.hardware, self.vectors, self.private], self.status, **hidden)
