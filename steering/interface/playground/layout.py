"""What the Playground tab consists of: its components, laid out, not yet wired."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from steering.interface.answer_cards import columns_panel, message
from steering.interface.app_state import AppState
from steering.interface.html import note
from steering.interface.playground.controls import SPECS, component, sampling_controls
from steering.interface.playground.examples import WITHOUT_VECTORS, Example, examples_for
from steering.interface.playground.next_token import next_token_panel
from steering.interface.playground.run_export import FORMS
from steering.interface.playground.sliders import slider_widget
from steering.interface.playground.url_state import control_defaults

HINTS = """
<div class="hints-body"><button type="button" class="hints-close">Got it</button><b>New here?</b> 1. Drag a slider.
2. Watch the <b>first word</b> change while you drag. 3. Let go and read the answers; then drag again: the last column
flips through them at once.</div>
"""


Updates = dict[Any, Any]
"""Component -> its new value: what a handler returns."""


@dataclass(frozen=True)
class Layout:
    """The tab's components.

    Attributes:
        sliders, columns: the panels of sliders and of answers; advice: a sentence about the example or the link.
        controls: every other control by its name in `Controls`, in that order.
        generate, stop, follow_up, start_over, copy_link: the buttons.
        examples: each example with its button; first_example: what the page opens with.
        export, export_form, export_text: the folded panel with the answers as text.
        sampling: the folded panel with system prompt and sampling.
        stamp: hidden; when a request was sent and whether it is for new answers, filled in by the browser.
        url_defaults: hidden; what the browser leaves out of the address.
    """

    sliders: gr.HTML
    columns: gr.HTML
    advice: gr.HTML
    controls: dict[str, Any]
    generate: gr.Button
    stop: gr.Button
    follow_up: gr.Button
    start_over: gr.Button
    copy_link: gr.Button
    examples: list[tuple[gr.Button, Example]]
    first_example: Example
    export: gr.Accordion
    export_form: gr.Radio
    export_text: gr.Code
    sampling: gr.Accordion
    stamp: gr.JSON
    url_defaults: gr.JSON


def lay_out(app: AppState) -> Layout:
    """Make the tab's components where they stand."""
    examples = examples_for(app)
    first = examples[0] if examples else WITHOUT_VECTORS
    made: dict[str, Any] = {}
    gr.HTML(HINTS, elem_id="hints")
    with gr.Row(elem_id="playground", equal_height=False):
        with gr.Column(scale=1, min_width=280, elem_id="slider-side"):
            gr.HTML("<h2>Vectors</h2><p class='hint'>Right turns a behavior up, left turns it around, 0 is off.</p>")
            sliders = slider_widget(app, first.panel, elem_id="sliders")
        with gr.Column(scale=3, min_width=320):
            made["prompt"] = component(
                "prompt",
                value=first.prompt,
                placeholder="What the model is asked. Enter sends it, Shift+Enter starts a new line.",
                max_lines=8,
                submit_btn=False,
            )
            with gr.Row(elem_id="actions"):
                generate = gr.Button("Generate", variant="primary", elem_id="generate", scale=2, min_width=120)
                stop = gr.Button("Stop", elem_id="stop", scale=1, min_width=70)
                follow_up = gr.Button("Follow up", elem_id="follow-up", scale=1, min_width=90)
                start_over = gr.Button("Start over", elem_id="new-conversation", visible=False, scale=1, min_width=90)
                copy_link = gr.Button("Copy link", elem_id="copy-link", scale=1, min_width=90)
            with gr.Row(elem_id="examples"):
                chips = [gr.Button(example.label, size="sm", min_width=100) for example in examples]
            advice = gr.HTML(note(first.hint), elem_id="advice")
            next_token_panel(app, elem_id="next-token")
            columns = columns_panel(message("The answers appear here."), elem_id="columns")
            made["mode"] = component("mode", container=False)
            with gr.Row(elem_id="switches"):
                made |= {name: component(name, min_width=200) for name in ("marks", "strip")}
            with gr.Accordion("Take these answers along", open=False, elem_id="export") as export:
                form = gr.Radio(list(FORMS), value=next(iter(FORMS)), label="As", elem_id="export-form")
                text = gr.Code(label="", language="python", elem_id="export-text", interactive=False, max_lines=24)
            with gr.Accordion("System prompt, sampling", open=False, elem_id="sampling") as sampling:
                made |= sampling_controls(app)
    return Layout(
        sliders=sliders,
        columns=columns,
        advice=advice,
        controls={name: made[name] for name in SPECS},
        generate=generate,
        stop=stop,
        follow_up=follow_up,
        start_over=start_over,
        copy_link=copy_link,
        examples=list(zip(chips, examples, strict=True)),
        first_example=first,
        export=export,
        export_form=form,
        export_text=text,
        sampling=sampling,
        stamp=gr.JSON({}, visible="hidden"),
        url_defaults=gr.JSON(control_defaults(), visible="hidden"),
    )
