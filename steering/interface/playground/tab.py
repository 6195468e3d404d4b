"""The Playground tab: drag a slider, read the answers side by side. Layout here, work in answering.py."""

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import gradio as gr

from steering import paths
from steering.errors import SteeringError
from steering.interface.answer_cards import columns_panel, message
from steering.interface.app_state import AppState
from steering.interface.html import note
from steering.interface.playground import url_state
from steering.interface.playground.answers import answer
from steering.interface.playground.controls import (
    COMPARE,
    LARGEST_SEED,
    LONGEST_PROMPT,
    SWEEP,
    Controls,
)
from steering.interface.playground.conversation import wire_conversation
from steering.interface.playground.examples import PRESETS, Preset
from steering.interface.playground.next_token import next_word_panel
from steering.interface.playground.run_export import FORMS, taken_along
from steering.interface.playground.sampling_panel import sampling_panel, weights_in_use
from steering.interface.playground.sliders import Mixer, fitting, mixer_panel, mixer_value, read_mixer

MODES = [("Compare: untouched, your setting, its opposite", COMPARE), ("Sweep: one vector from -2 to +2", SWEEP)]
HINTS = """
<div class="hints-body"><b>New here?</b> 1. Drag a slider. 2. Watch the <b>first word</b> change while you drag.
3. Let go and read the answers; then drag again: the last column flips through them at once.
<button type="button" class="hints-close" onclick="localStorage.setItem('steering-hints', 'seen');
this.closest('#hints').style.display = 'none'">Got it</button></div>
"""
ASKED_ANEW, ASKED = (
    f"(...values) => {{ values.splice(-2, 2, {anew}, performance.timeOrigin + performance.now()); return values; }}"
    for anew in ("true", "false")
)
"""Put last into the inputs: whether all is to be written anew, and the time, since requests may overtake each other."""
NOW = "() => performance.timeOrigin + performance.now()"
TELL_PROMPT = "() => { document.dispatchEvent(new CustomEvent('steering:prompt')); }"
SKIP = gr.skip()


@dataclass(frozen=True)
class Playground:
    """The tab's parts that other tabs reach for."""

    mixer: gr.HTML
    prompt: gr.Textbox


def build(app: AppState, page: gr.Blocks) -> Playground:
    """Lay the tab out and wire it."""
    presets = _presets(app)
    first = presets[0] if presets else Preset("", "What should I do this weekend?", {}, "")
    usual = Controls(first.prompt)
    gr.HTML(HINTS, elem_id="hints")
    with gr.Row(elem_id="playground", equal_height=False):
        with gr.Column(scale=1, min_width=280, elem_id="mixer-side"):
            gr.HTML("<h2>Vectors</h2><p class='hint'>Right turns a behavior up, left turns it around, 0 is off.</p>")
            mixer = mixer_panel(mixer_value(app, _of_preset(first)), elem_id="mixer")
        with gr.Column(scale=3, min_width=320):
            prompt = gr.Textbox(
                first.prompt,
                label="Prompt",
                placeholder="What the model is asked. Enter sends it, Shift+Enter starts a new line.",
                lines=1,  # with more, gradio's Enter would start a new line
                max_lines=8,
                max_length=LONGEST_PROMPT,
                elem_id="prompt",
                submit_btn=False,
            )
            with gr.Row(elem_id="actions"):
                go = gr.Button("Generate", variant="primary", elem_id="generate", scale=2, min_width=120)
                stop = gr.Button("Stop", elem_id="stop", scale=1, min_width=70)
                follow = gr.Button("Follow up", elem_id="follow-up", scale=1, min_width=90)
                begin = gr.Button("Start over", elem_id="new-conversation", visible=False, scale=1, min_width=90)
                copy = gr.Button("Copy link", elem_id="copy-link", scale=1, min_width=90)
            with gr.Row(elem_id="presets"):
                chips = [gr.Button(preset.label, size="sm", min_width=100) for preset in presets]
            advice = gr.HTML(note(first.hint), elem_id="advice")
            next_word_panel(app, elem_id="next-word")
            columns = columns_panel(message("The answers appear here."), elem_id="columns")
            mode = gr.Radio(MODES, value=COMPARE, label="Columns", elem_id="mode", container=False)
            with gr.Row(elem_id="switches"):
                marks = gr.Checkbox(True, label="Mark the words that steering changed", elem_id="marks", min_width=200)
                strip = gr.Checkbox(
                    True, label="Prepare the slider's whole range to flip through", elem_id="strip", min_width=200
                )
            with gr.Accordion("Take these answers along", open=False, elem_id="export") as export:
                form = gr.Radio(list(FORMS), value=next(iter(FORMS)), label="As", elem_id="export-form")
                code = gr.Code(label="", language="python", elem_id="export-text", interactive=False, max_lines=24)
            with gr.Accordion("System prompt, sampling", open=False, elem_id="sampling") as folded:
                system, tokens, temperature, top_p, penalty, seed, new_seed, full = sampling_panel(app)

    fresh, turn = gr.Checkbox(False, visible="hidden"), gr.Number(0, visible="hidden")
    parts = {
        "prompt": prompt,
        "mode": mode,
        "system": system,
        "tokens": tokens,
        "temperature": temperature,
        "top_p": top_p,
        "penalty": penalty,
        "seed": seed,
        "new_seed": new_seed,
        "marks": marks,
        "strip": strip,
        "full": full,
    }
    controls = [parts[field.name] for field in fields(Controls)]
    hidden = {"api_visibility": "private", "show_progress": "hidden"}

    def write(
        mixer_now: Any,
        shown: Any,
        prompt_now: str,
        mode_now: str,
        system_now: str,
        tokens_now: float,
        temperature_now: float,
        top_p_now: float,
        penalty_now: float,
        seed_now: float,
        new_seed_now: bool,
        marks_now: bool,
        strip_now: bool,
        full_now: bool,
        anew: bool,
        turn_now: float,
        request: gr.Request,
    ) -> Iterator[tuple[Any, Any]]:
        run = app.runs.begin(request, turn_now)
        if run.superseded():  # overtaken on the way here
            yield SKIP, SKIP
            return
        seed_shown = seed_now
        if new_seed_now and anew:
            seed_now = seed_shown = random.randrange(LARGEST_SEED)
        given = [prompt_now, mode_now, system_now, tokens_now, temperature_now, top_p_now, penalty_now, seed_now]
        try:
            asked = Controls.read([*given, new_seed_now, marks_now, strip_now, full_now])
            with closing(answer(app, read_mixer(mixer_now), asked, shown, run, fresh=anew)) as panels:
                for panel in panels:
                    yield panel, seed_shown
                    seed_shown = SKIP
            if run.superseded():
                yield SKIP, SKIP  # gradio sends a run's last value once more when it ends
        except SteeringError as error:
            turns = shown.get("turns", []) if isinstance(shown, dict) else []
            yield message(problem=str(error), turns=turns), SKIP

    def writing(*, anew: bool) -> dict[str, Any]:
        return {
            "fn": write,
            "inputs": [mixer, columns, *controls, fresh, turn],
            "outputs": [columns, seed],
            "js": ASKED_ANEW if anew else ASKED,
            "trigger_mode": "multiple",
            "concurrency_id": "write",
            "concurrency_limit": 16,
            **hidden,
        }

    gr.on([go.click, prompt.submit], **writing(anew=True))
    gr.on([mixer.release, mode.change, marks.input, strip.input, full.input], **writing(anew=False))
    noted = [go.click, prompt.submit, mixer.change, *(part.change for part in controls)]
    gr.on(noted, fn=None, inputs=[mixer, *controls], js=url_state.WRITE_URL)
    gr.on([prompt.change, system.change, full.change], fn=None, js=TELL_PROMPT)
    stop.click(app.runs.stop, turn, js=NOW, queue=False, api_visibility="private")
    copy.click(fn=None, js=url_state.COPY_URL)
    gr.on([form.input, export.expand], partial(taken_along, app.model.source), [columns, form], code, **hidden)
    wire_conversation(app, columns, prompt, follow, begin, hidden)

    def chooser(preset: Preset) -> Callable[..., tuple[Any, ...]]:
        def choose(mixer_now: Any, request: gr.Request) -> tuple[Any, ...]:
            app.runs.begin(request)  # what is still being written would bring the old answers back
            try:
                now = read_mixer(mixer_now)
            except SteeringError as error:
                return SKIP, SKIP, SKIP, message(problem=str(error))
            chosen = _of_preset(preset)
            panel = mixer_value(app, Mixer(chosen.multipliers, now.pins, chosen.active, now.hidden))
            return panel, preset.prompt, note(preset.hint), message()

        return choose

    for chip, preset in zip(chips, presets, strict=True):
        chosen = chip.click(chooser(preset), mixer, [mixer, prompt, advice, columns], queue=False, **hidden)
        chosen.then(**writing(anew=True))

    def restore(request: gr.Request) -> list[Any]:
        """The page as its address says; where that says nothing, the first preset."""
        link = url_state.read(request.query_params)
        now = link.over(usual)
        start = Mixer(link.multipliers, link.pins, link.active, link.hidden) if link.given else _of_preset(first)
        told = note(first.hint) if not link.given else ""
        if link.model and link.model != app.model.name:
            told = note(f"This link was made with the model {link.model[:80]}; this page runs {app.model.name}.")
        return [mixer_value(app, start), told, *(getattr(now, field.name) for field in fields(Controls))]

    loaded = page.load(restore, None, [mixer, advice, *controls], queue=False, **hidden)
    loaded.then(**writing(anew=False))  # with the seed of the address
    told = {"fn": partial(weights_in_use, app), "inputs": full, "outputs": [folded, full], "queue": False, **hidden}
    loaded.then(**told)
    full.change(**told)
    keys = (paths.shipped("assets") / "playground.js").read_text(encoding="utf-8")
    page.load(fn=None, js=keys)
    return Playground(mixer, prompt)


def _of_preset(preset: Preset) -> Mixer:
    return Mixer(dict(preset.multipliers), active=next(iter(preset.multipliers), ""))


def _presets(app: AppState) -> list[Preset]:
    there = {entry.slug for entry in fitting(app)}
    return [preset for preset in PRESETS if set(preset.multipliers) <= there]
