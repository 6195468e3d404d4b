"""The Playground tab: drag a slider, read the answers side by side. Wires the events of `layout` to `handlers`."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from steering.interface.app_state import AppState
from steering.interface.html_component import page_function
from steering.interface.playground.controls import weights_in_use
from steering.interface.playground.conversation import wire_conversation
from steering.interface.playground.examples import Example
from steering.interface.playground.handlers import Handlers
from steering.interface.playground.layout import Updates, lay_out
from steering.interface.playground.run_export import export_run

WRITES_AT_ONCE = 16  # visitors whose answers stream; the decode server batches them


@dataclass(frozen=True)
class Playground:
    """The tab's parts that other tabs reach for."""

    sliders: gr.HTML
    prompt: gr.Textbox


def build(app: AppState, page: gr.Blocks) -> Playground:
    """Lay the tab out and wire it."""
    layout = lay_out(app)
    handlers = Handlers(app, layout)
    controls = layout.controls
    prompt, system, full = controls["prompt"], controls["system"], controls["full"]
    hidden: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

    def writing(stamp: str) -> dict[str, Any]:
        return {
            "fn": handlers.write,
            "inputs": [layout.stamp, layout.sliders, layout.columns, *controls.values()],
            "outputs": [layout.columns, controls["seed"]],
            "js": page_function(stamp),
            "trigger_mode": "multiple",
            "concurrency_id": "write",
            "concurrency_limit": WRITES_AT_ONCE,
            **hidden,
        }

    generate, update = writing("stampGenerate"), writing("stampUpdate")
    gr.on([layout.generate.click, prompt.submit], **generate)
    changes = [controls["mode"].change, *(controls[name].input for name in ("marks", "strip", "full"))]
    gr.on([layout.sliders.release, *changes], **update)
    layout.stop.click(handlers.stop, layout.stamp, js=page_function("stampStop"), queue=False, api_visibility="private")
    wire_conversation(app, layout, hidden)

    in_url = [layout.url_defaults, layout.sliders, *controls.values()]
    events = [layout.generate.click, prompt.submit, layout.sliders.change, *(c.change for c in controls.values())]
    gr.on(events, fn=None, inputs=in_url, js=page_function("writeUrl"))
    layout.copy_link.click(fn=None, js=page_function("copyUrl"))
    gr.on([prompt.change, system.change, full.change], fn=None, js=page_function("announcePrompt"))

    exported = [layout.columns, layout.export_form]
    export = partial(export_run, app.model.source)
    gr.on([layout.export_form.input, layout.export.expand], export, exported, layout.export_text, **hidden)

    def chooser(example: Example) -> Any:
        def choose(request: gr.Request, sliders: Any) -> Updates:
            return handlers.choose_example(example, request, sliders)

        return choose

    changed = [layout.sliders, prompt, layout.advice, layout.columns]
    for chip, example in layout.examples:
        chip.click(chooser(example), layout.sliders, changed, queue=False, **hidden).then(**generate)

    restored = [layout.sliders, layout.advice, *controls.values()]
    loaded = page.load(handlers.restore, None, restored, queue=False, **hidden)
    loaded.then(**update)  # with the seed of the address
    shows_weights: dict[str, Any] = {
        "fn": partial(weights_in_use, app),
        "inputs": full,
        "outputs": [layout.sampling, full],
        "queue": False,
        **hidden,
    }
    loaded.then(**shows_weights)
    full.change(**shows_weights)
    page.load(fn=None, js=page_function("start"))
    return Playground(layout.sliders, prompt)
