"""What the Playground tab consists of: its components, laid out, not yet wired."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from steering.interface.answer_cards import columns_panel, message
from steering.interface.app_state import AppState
from steering.interface.html import note
from steering.interface.playground.controls import LONGEST_PROMPT, SPECS, component, sampling_controls
from steering.interface.playground.examples import EXAMPLES, first_example, resolved
from steering.interface.playground.next_token import next_token_panel
from steering.interface.playground.run_export import FORMS
from steering.interface.playground.sliders import slider_widget
from steering.interface.playground.url_state import control_defaults

HINTS = """
<div class="hints-body"><button type="button" class="hints-close">Got it</button><b>New here?</b> 1. Drag a slider.
2. Watch the <b>first word</b> change while you drag. 3. Let go and read the answers; then drag again: the last column
flips through them at once.</div>
"""

TICK_SECONDS = 1.0
"""Between two looks at how far the making of vectors is; a page asks only while it goes on."""

Updates = dict[Any, Any]
"""Component -> its new value: what a handler returns."""


@dataclass(frozen=True)
class Layout:
    """The tab's components.

    Attributes:
        sliders, columns: the panels of sliders and of answers; advice: a sentence about the example or the link.
        model_note: a sentence about the model, where it needs one.
        controls: every other control by its name in `Controls`, in that order.
        generate, stop, follow_up, start_over, copy_link: the buttons.
        chips: a button for each of `EXAMPLES`; those that do not suit the model are hidden.
        export, export_form, export_text: the folded panel with the answers as text.
        sampling: the folded panel with system prompt and sampling.
        stamp: hidden; when a request was sent and whether it is for new answers, filled in by the browser.
        url_defaults: hidden; what the browser leaves out of the address.
        starters: the panel that makes vectors for a model that none fits: starters_text, the buttons make_starters and
            stop_starters, a timer that asks how far it is, and how many vectors this page has seen made.
        generation: `AppState.generation` as this page has seen it; changes when the page learns of another model.
    """

    sliders: gr.HTML
    columns: gr.HTML
    advice: gr.HTML
    model_note: gr.HTML
    controls: dict[str, Any]
    generate: gr.Button
    stop: gr.Button
    follow_up: gr.Button
    start_over: gr.Button
    copy_link: gr.Button
    chips: list[gr.Button]
    export: gr.Accordion
    export_form: gr.Radio
    export_text: gr.Code
    sampling: gr.Accordion
    stamp: gr.JSON
    url_defaults: gr.JSON
    starters: gr.Column
    starters_text: gr.HTML
    make_starters: gr.Button
    stop_starters: gr.Button
    starters_timer: gr.Timer
    starters_seen: gr.State
    generation: gr.State


def lay_out(app: AppState) -> Layout:
    """Make the tab's components where they stand."""
    visit = app.visit()
    shown, first = resolved(visit), first_example(visit)
    made: dict[str, Any] = {}
    gr.HTML(HINTS, elem_id="hints")
    with gr.Row(elem_id="playground", equal_height=False):
        with gr.Column(scale=1, min_width=280, elem_id="slider-side"):
            gr.HTML("<h2>Vectors</h2><p class='hint'>Right turns a behavior up, left turns it around, 0 is off.</p>")
            with gr.Column(visible=False, elem_id="starters") as starters:
                starters_text = gr.HTML(elem_id="starters-text", padding=False)
                make_starters = gr.Button(variant="primary", elem_id="make-starters")
                stop_starters = gr.Button("Stop", visible=False, size="sm", elem_id="stop-starters")
            sliders = slider_widget(app, first.panel, elem_id="sliders")
        with gr.Column(scale=3, min_width=320):
            model_note = gr.HTML(elem_id="model-note", padding=False)
            made["prompt"] = component(
                "prompt",
                value=first.prompt,
                max_lines=8,
                max_length=min(LONGEST_PROMPT, app.limits.prompt_characters or LONGEST_PROMPT),
                submit_btn=False,
            )
            with gr.Row(elem_id="actions"):
                generate = gr.Button("Generate", variant="primary", elem_id="generate", scale=2, min_width=120)
                stop = gr.Button("Stop", elem_id="stop", scale=1, min_width=70)
                follow_up = gr.Button("Follow up", elem_id="follow-up", scale=1, min_width=90)
                start_over = gr.Button("Start over", elem_id="new-conversation", visible=False, scale=1, min_width=90)
                copy_link = gr.Button("Copy link", elem_id="copy-link", scale=1, min_width=90)
            with gr.Row(elem_id="examples"):
                chips = [
                    gr.Button(example.label, size="sm", min_width=100, visible=place in shown)
                    for place, example in enumerate(EXAMPLES)
                ]
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
                made |= sampling_controls(app.limits)
    return Layout(
        sliders=sliders,
        columns=columns,
        advice=advice,
        model_note=model_note,
        controls={name: made[name] for name in SPECS},
        generate=generate,
        stop=stop,
        follow_up=follow_up,
        start_over=start_over,
        copy_link=copy_link,
        chips=chips,
        export=export,
        export_form=form,
        export_text=text,
        sampling=sampling,
        stamp=gr.JSON({}, visible="hidden"),
        url_defaults=gr.JSON(control_defaults(), visible="hidden"),
        starters=starters,
        starters_text=starters_text,
        make_starters=make_starters,
        stop_starters=stop_starters,
        starters_timer=gr.Timer(TICK_SECONDS, active=False),
        starters_seen=gr.State(0),
        generation=gr.State(app.generation),
    )
