"""The Vectors tab: what is on the shelf; download, bring, delete. Wires its components to `handlers`."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from steering.interface.app_state import AppState
from steering.interface.playground.tab import Playground
from steering.interface.vectors.deploy_panel import DeployPanel
from steering.interface.vectors.details import details
from steering.interface.vectors.handlers import Handlers, Layout
from steering.interface.vectors.shelf import shelf_widget
from steering.vectors.formats import suffixes


def build(app: AppState, arrival: Callable[..., Any], play: Playground) -> None:
    """Lay the tab out and wire it; `arrival` subscribes to the opening of the page, once its visitor is known."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=280):
            shelf = shelf_widget(app, elem_id="shelf")
            with gr.Accordion("Bring a vector file", open=False, elem_id="bring"):
                file = gr.File(
                    label="A .safetensors of ours, or BiPO's .pt",
                    file_types=list(suffixes(readable=True)),
                    height=140,
                    elem_id="vector-file",
                )
                with gr.Row():
                    # A text box: gradio's empty number box sends 0, which is a layer.
                    layer = gr.Textbox(label="Layer", info="for .pt files only", max_length=5, elem_id="import-layer")
                    name = gr.Textbox(label="Name", info="empty: the file's own", max_length=80, elem_id="import-name")
                bring = gr.Button("Put it on the shelf", elem_id="import-vector")
            deploy = None if app.is_public else DeployPanel(app)  # it acts with the login of whoever runs the page
        with gr.Column(scale=2, min_width=320):
            message = gr.HTML(elem_id="shelf-message")
            undo = gr.Button("Undo the deletion", visible=False, size="sm", elem_id="undo-delete")
            details_panel = gr.HTML(details(app.visit(), ""), elem_id="vector-details")
            with gr.Row():
                download = gr.DownloadButton("Download", elem_id="download-vector")
                remove = gr.Button("Delete", variant="stop", elem_id="delete-vector")

    undo_token = gr.State(None)
    layout = Layout(shelf, details_panel, message, download, undo, undo_token, play.sliders)
    handlers = Handlers(app, layout)
    hidden: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    selected = [shelf, details_panel, download]
    changed = [*selected, message, play.sliders]
    shelf.select(handlers.show, shelf, selected, trigger_mode="always_last", **hidden)
    bring.click(handlers.import_file, [file, layer, name, play.sliders], changed, **hidden)
    remove.click(handlers.delete, [shelf, play.sliders], [*changed, undo_token, undo], **hidden)
    undo.click(handlers.undo_delete, [undo_token, play.sliders], [*changed, undo_token, undo], **hidden)
    # Whatever other tabs saved meanwhile is on the shelf when it is looked at.
    arrival(handlers.show, shelf, selected, **hidden)
    play.sliders.change(handlers.show, shelf, selected, **hidden)
    if deploy:
        deploy.wire(arrival, play.sliders.change)
