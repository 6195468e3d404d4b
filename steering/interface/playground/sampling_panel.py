"""The folded part of the Playground: system prompt, sampling, and which weights write."""

from typing import Any

import gradio as gr

from steering.interface.app_state import AppState
from steering.interface.playground.controls import DEFAULT_TOKENS, LONGEST_PROMPT, RANGES
from steering.models.chat_template import DEFAULT_SYSTEM_PROMPT


def sampling_panel(app: AppState) -> list[Any]:
    """System prompt, tokens, temperature, top_p, penalty, seed, new_seed, full."""
    system = gr.Textbox(
        DEFAULT_SYSTEM_PROMPT,
        label="System prompt",
        info="The shipped vectors were trained with this one."
        if app.model.prompts.chat
        else "Not used: this model has no chat template, it continues plain text.",
        lines=2,
        max_length=LONGEST_PROMPT,
        elem_id="system",
    )

    def slider(name: str, step: float, value: float, label: str, info: str) -> gr.Slider:
        low, high = RANGES[name]
        return gr.Slider(low, high, value, step=step, label=label, info=info, elem_id=name.replace("_", "-"))

    with gr.Row():
        tokens = slider("tokens", 8, DEFAULT_TOKENS, "Longest answer", "in tokens, about 3/4 of a word each")
        temperature = slider(
            "temperature", 0.05, 0, "Temperature", "0: always the most likely word; higher: more varied"
        )
    with gr.Row():
        penalty = slider("penalty", 0.05, 1.1, "Repetition penalty", "above 1: words said before become rarer")
        top_p = slider("top_p", 0.05, 1, "Top-p", "below 1: only the likeliest words that make up this share")
    with gr.Row():
        seed = gr.Number(
            0, label="Seed", info="of all chance, the same in every column", precision=0, minimum=0, elem_id="seed"
        )
        new_seed = gr.Checkbox(
            False, label="A new seed for each Generate", info="matters above temperature 0", elem_id="new-seed"
        )
    full = gr.Checkbox(False, label="Full-precision weights", info="slower, exact", elem_id="full-weights")
    return [system, tokens, temperature, top_p, penalty, seed, new_seed, full]


def weights_in_use(app: AppState, full: bool) -> tuple[gr.Accordion, gr.Checkbox]:
    """The panel's title, which says what writes, and the switch with what it costs to leave it off."""
    kl, why = app.lightness()
    if why:
        return gr.Accordion(label="System prompt, sampling"), gr.Checkbox(info=f"In use in any case: {why}.")
    used = "full-precision" if full else "float16"
    told = (
        f"Off: float16 copies write several times as fast; next words differ by {kl:.1g} nats (mean KL, measured here)."
    )
    return gr.Accordion(label=f"System prompt, sampling; {used} weights in use"), gr.Checkbox(info=told)
