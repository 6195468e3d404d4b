"""The Playground tab: drag a slider, read the answers side by side. Wires the events of `layout` to `handlers`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from steering.interface.app_state import AppState
from steering.interface.html_component import page_function
from steering.interface.playground.controls import weights_in_use
from steering.interface.playground.conversation import wire_conversation
from steering.interface.playground.handlers import Handlers
from steering.interface.playground.layout import Updates, lay_out
from steering.interface.playground.run_export import export_run

WRITES_AT_ONCE = 16  # visitors whose answers stream; the decode server batches them


@dataclass(frozen=True)
class Playground:
    """The tab's parts that other tabs reach for.

    Attributes:
        generation: its `change` says that the page has learned of another model (see `AppState.generation`).
    """

    sliders: gr.HTML
    prompt: gr.Textbox
    generation: gr.State


def build(app: AppState, arrival: Callable[..., Any]) -> Playground:
    """Lay the tab out and wire it; `arrival` subscribes to the opening of the page, once its visitor is known."""
    layout = lay_out(app)
    handlers = Handlers(app, layout)
    controls = layout.controls
    prompt, system, full = controls["prompt"], controls["system"], controls["full"]
    hidden: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

    def writing(stamp: str) -> dict[str, Any]:
        return {
            "fn": handlers.write,
            "inputs": [layout.stamp, layout.sliders, layout.columns, *controls.values()],
            "outputs": [layout.columns, controls["seed"], layout.generation],
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

    def export(answers_value: Any, form: str) -> gr.Code:
        return export_run(app.model.source, answers_value, form)

    gr.on([layout.export_form.input, layout.export.expand], export, exported, layout.export_text, **hidden)

    def chooser(place: int) -> Any:
        def choose(request: gr.Request, sliders: Any) -> Updates:
            return handlers.choose_chip(place, request, sliders)

        return choose

    changed = [layout.sliders, prompt, layout.advice, layout.columns]
    for place, chip in enumerate(layout.chips):
        chip.click(chooser(place), layout.sliders, changed, queue=False, **hidden).then(**generate)

    restored = [layout.sliders, layout.advice, layout.generation, layout.columns, *controls.values()]
    loaded = arrival(handlers.restore, None, restored, queue=False, **hidden)
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
    arrival(fn=None, js=page_function("start"))

    starters = [layout.starters, layout.starters_text, layout.make_starters, layout.stop_starters]
    starters.append(layout.starters_timer)
    of_model = [layout.model_note, prompt, system, *layout.chips, *starters]
    arrival(handlers.show_model, None, of_model, queue=False, **hidden)
    changes_page = [*of_model, layout.sliders, layout.advice, layout.columns]
    changed_model = layout.generation.change(
        handlers.model_changed, [layout.sliders, prompt], changes_page, queue=False, **hidden
    )
    changed_model.then(**update).then(**shows_weights)
    layout.make_starters.click(handlers.start_starters, None, starters, queue=False, **hidden)
    layout.stop_starters.click(handlers.stop_starters, None, starters, queue=False, **hidden)
    layout.starters_timer.tick(
        handlers.tick,
        [layout.sliders, layout.starters_seen],
        [*starters, *layout.chips, layout.sliders, layout.starters_seen],
        queue=False,
        **hidden,
    )
    return Playground(layout.sliders, prompt, layout.generation)
