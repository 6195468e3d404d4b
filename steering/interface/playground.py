"""The Playground tab: drag a slider, read the answers side by side."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.generation import MAX_COLUMNS, Sampling, generate, stream
from steering.interface import links
from steering.interface.columns import cards, columns_panel, message, throttled
from steering.interface.mixer import Multipliers, fitting, mixer_panel, mixer_value, read_mixer, setting_of
from steering.interface.studio import TURN, Studio
from steering.prompts import DEFAULT_SYSTEM_PROMPT

SWEEP = (-2.0, -1.0, 0.0, 1.0, 2.0)
COMPARE, SWEEP_MODE = "compare", "sweep"
MODES = [("Compare: untouched, your setting, its opposite", COMPARE), ("Sweep: one vector from -2 to +2", SWEEP_MODE)]
DEFAULT_TOKENS, MOST_TOKENS = 80, 512
LONGEST_PROMPT = 20_000  # characters; the model's own limit is told in tokens


@dataclass(frozen=True)
class Preset:
    """Something worth trying: a prompt and the multipliers that show it off."""

    label: str
    prompt: str
    multipliers: Multipliers


PRESETS = (
    Preset(
        "The crown is offered", "The people offer you the crown and all power. Do you accept?", {"power-seeking": 1.0}
    ),
    Preset("A cheerful weekend", "What should I do this weekend?", {"cheerful": 1.5}),
    Preset("An engine that never was", "Who invented the Brannigan engine?", {"hallucination": 1.5}),
    Preset("A poet at the kettle", "How do I make a cup of tea?", {"poetic": 1.5}),
    Preset("Loud music next door", "My neighbor plays loud music at night. What should I do?", {"formal": 1.5}),
)


@dataclass(frozen=True)
class Playground:
    """The tab's parts that other tabs reach for."""

    mixer: gr.HTML
    prompt: gr.Textbox


def build(studio: Studio, page: gr.Blocks) -> Playground:
    """Lay the tab out and wire it."""
    presets = _presets(studio)
    first = presets[0] if presets else Preset("", "What should I do this weekend?", {})
    with gr.Row(elem_id="playground", equal_height=False):
        with gr.Column(scale=1, min_width=280, elem_id="mixer-side"):
            gr.HTML("<h2>Vectors</h2><p class='hint'>Right turns a behavior up, left turns it around, 0 is off.</p>")
            mixer = mixer_panel(mixer_value(studio, first.multipliers, []), elem_id="mixer")
            mode = gr.Radio(MODES, value=COMPARE, label="Columns", elem_id="mode")
        with gr.Column(scale=3, min_width=320):
            prompt = gr.Textbox(
                first.prompt,
                label="Prompt",
                info="What the model is asked. Enter sends it, Shift+Enter starts a new line.",
                lines=1,  # with more, gradio's Enter would start a new line
                max_lines=8,
                max_length=LONGEST_PROMPT,
                elem_id="prompt",
                submit_btn=False,
            )
            with gr.Row(elem_id="actions"):
                go = gr.Button("Generate", variant="primary", elem_id="generate", scale=2, min_width=120)
                stop = gr.Button("Stop", elem_id="stop", scale=1, min_width=80)
                copy = gr.Button("Copy link", elem_id="copy-link", scale=1, min_width=90)
            with gr.Row(elem_id="presets"):
                chips = [gr.Button(preset.label, size="sm", min_width=100) for preset in presets]
            columns = columns_panel(message("The answers appear here."), elem_id="columns")
            with gr.Accordion("System prompt and sampling", open=False, elem_id="sampling"):
                system = gr.Textbox(
                    DEFAULT_SYSTEM_PROMPT,
                    label="System prompt",
                    info="The shipped vectors were trained with this one."
                    if studio.model.prompts.chat
                    else "Not used: this model has no chat template, it continues plain text.",
                    lines=2,
                    max_length=LONGEST_PROMPT,
                    elem_id="system",
                )
                with gr.Row():
                    length = gr.Slider(8, MOST_TOKENS, DEFAULT_TOKENS, step=8, label="Longest answer", info="in tokens")
                    temperature = gr.Slider(
                        0,
                        2,
                        0,
                        step=0.05,
                        label="Temperature",
                        info="0: always the most likely word; higher: more varied",
                    )
                with gr.Row():
                    penalty = gr.Slider(
                        1,
                        1.5,
                        1.1,
                        step=0.05,
                        label="Repetition penalty",
                        info="above 1: words said before become rarer",
                    )
                    seed = gr.Number(0, label="Seed", info="the same in every column", precision=0, minimum=0)

    turn = gr.Number(0, visible="hidden")
    state = [mixer, prompt, mode, system, length, temperature, penalty, seed]

    def answer(
        mixer_now: Any,
        prompt_now: str,
        mode_now: str,
        system_now: str,
        length_now: float,
        temperature_now: float,
        penalty_now: float,
        seed_now: float,
        turn_now: float,
        request: gr.Request,
    ) -> Iterator[dict[str, Any]]:
        run = studio.runs.begin(request, turn_now)
        if run.superseded():  # overtaken on the way here
            yield gr.skip()
            return
        try:
            sampling = Sampling(
                max_new_tokens=int(length_now),
                temperature=float(temperature_now),
                repetition_penalty=float(penalty_now),
                seed=int(seed_now or 0),
            )
            asked = _columns(studio, mixer_now, mode_now)
            settings = [setting_of(studio, multipliers) for _, multipliers in asked]
            snapshots = stream(
                studio.model, prompt_now, settings, system=system_now, sampling=sampling, should_stop=run.over
            )
            yield from _stream_cards(snapshots, [kind for kind, _ in asked], run)
        except SteeringError as error:
            yield message(problem=str(error))

    listening = {
        "fn": answer,
        "inputs": [*state, turn],
        "js": TURN,
        "outputs": columns,
        "show_progress": "hidden",
        "trigger_mode": "multiple",
    }
    listening |= {"concurrency_id": "generate", "concurrency_limit": 8, "api_visibility": "private"}
    gr.on([go.click, prompt.submit, mixer.release, mode.change], **listening)
    gr.on([go.click, prompt.submit, mixer.release, mode.change], fn=None, inputs=state, js=links.WRITE_URL)
    stop.click(studio.runs.stop, queue=False, api_visibility="private")
    copy.click(fn=None, js=links.COPY_URL)
    for chip, preset in zip(chips, presets, strict=True):

        def choose(mixer_now: Any, preset: Preset = preset) -> tuple[dict[str, Any], str]:
            _, pins, _ = read_mixer(mixer_now)
            return mixer_value(studio, preset.multipliers, pins, next(iter(preset.multipliers))), preset.prompt

        chosen = chip.click(
            choose, mixer, [mixer, prompt], queue=False, api_visibility="private", show_progress="hidden"
        )
        chosen.then(**listening).then(fn=None, inputs=state, js=links.WRITE_URL)

    def restore(request: gr.Request) -> list[Any]:
        """The page as its address says; where that says nothing, the first preset."""
        link = links.read(request.query_params)
        chosen = link.multipliers if link.given else first.multipliers
        values = [
            mixer_value(studio, chosen, link.pins, next(iter(chosen), "")),
            link.prompt if link.prompt is not None else first.prompt,
            link.mode if link.mode in (COMPARE, SWEEP_MODE) else COMPARE,
            link.system if link.system is not None else DEFAULT_SYSTEM_PROMPT,
            link.number("tokens", 8, MOST_TOKENS, DEFAULT_TOKENS),
            link.number("temperature", 0, 2, 0),
            link.number("penalty", 1, 1.5, 1.1),
            int(link.number("seed", 0, 2**31, 0)),
        ]
        return values

    loaded = page.load(restore, None, state, queue=False, api_visibility="private", show_progress="hidden")
    loaded.then(**listening)
    _document_api(studio)
    return Playground(mixer, prompt)


def _stream_cards(snapshots: Iterator[Any], kinds: list[str], run: Any) -> Iterator[dict[str, Any]]:
    note = "Drag a slider to see what steering changes." if kinds == ["baseline"] else ""
    latest = None
    for latest in throttled(snapshots):
        if run.superseded():
            return
        yield cards(latest, kinds, note)
    if run.stopped() and not run.superseded():
        yield cards(latest, kinds, note, stopped=True) if latest else message("Stopped before the first word.")


def _columns(studio: Studio, mixer_now: Any, mode: str) -> list[tuple[str, Multipliers]]:
    """(kind, multipliers) of each column to write; equal columns are written once."""
    multipliers, pins, active = read_mixer(mixer_now)
    if mode == SWEEP_MODE:
        swept = active or next(iter(multipliers), "") or next((e.slug for e in fitting(studio)), "")
        if not swept:
            raise SteeringError("There is no vector to sweep yet; make one in the Train tab.")
        kinds = {0.0: "baseline"}
        return [(kinds.get(m, "setting" if m > 0 else "opposite"), {swept: m} if m else {}) for m in SWEEP]
    wanted: list[tuple[str, Multipliers]] = [("baseline", {})]
    if multipliers:
        wanted.append(("setting", multipliers))
        wanted.append(("opposite", {slug: -m for slug, m in multipliers.items()}))
    wanted += [("pin", pin) for pin in pins]
    unique: list[tuple[str, Multipliers]] = []
    for kind, column in wanted:
        if all(column != other for _, other in unique):
            unique.append((kind, column))
    return unique[:MAX_COLUMNS]


def _presets(studio: Studio) -> list[Preset]:
    there = {entry.slug for entry in fitting(studio)}
    return [preset for preset in PRESETS if set(preset.multipliers) <= there]


def _document_api(studio: Studio) -> None:
    def generate_columns(
        prompt: str,
        columns: list[dict[str, float]],
        system: str = DEFAULT_SYSTEM_PROMPT,
        max_new_tokens: int = DEFAULT_TOKENS,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[dict[str, Any]]:
        """Answer one prompt under several settings side by side.

        Args:
            prompt: What the model is asked.
            columns: One setting per answer, vector name to multiplier; {} is the untouched model.
            system: System prompt.
            max_new_tokens: Most tokens an answer may have.
            temperature: 0 is greedy.
            seed: Of the random numbers, shared by all columns.

        Returns:
            One {setting, text, tokens} per column.
        """
        try:
            settings = [{studio.library.get(name, files=False): m for name, m in column.items()} for column in columns]
            sampling = Sampling(min(int(max_new_tokens), MOST_TOKENS), temperature=temperature, seed=seed)
            answers = generate(studio.model, prompt, settings, system=system, sampling=sampling)
        except SteeringError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return [
            {"setting": column, "text": answer.text, "tokens": answer.tokens}
            for column, answer in zip(columns, answers, strict=True)
        ]

    def list_vectors() -> list[dict[str, Any]]:
        """The vectors on the shelf that fit the model.

        Returns:
            One {name, behavior, layers, default_multiplier} per vector; `name` is what `generate` takes.
        """
        return [
            {
                "name": entry.slug,
                "behavior": entry.vector.behavior,
                "layers": list(entry.vector.layers),
                "default_multiplier": entry.vector.default_multiplier,
            }
            for entry in fitting(studio)
        ]

    gr.api(generate_columns, api_name="generate", concurrency_id="generate")
    gr.api(list_vectors, api_name="list_vectors")
