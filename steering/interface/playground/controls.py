"""The Playground's controls besides the vectors: each is declared once, as a field of `Controls`.

The declaration gives the control's name in the page's address, its words and its limits; from it come the gradio
component (`component`), the check of what a browser sends (`Controls.read`) and the reading of an address
(`url_state`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.generation.sampling import Sampling
from steering.interface.app_state import AppState
from steering.limits import Limits
from steering.models.chat_template import DEFAULT_SYSTEM_PROMPT

SLIDER_RANGE, SLIDER_STEP = 3.0, 0.25
"""A vector's slider runs from minus to plus this multiplier: three times the strength it was trained at, either way."""
SWEEP_MULTIPLIERS = (-2.0, -1.0, 0.0, 1.0, 2.0)
"""The columns of a sweep over one vector."""
STRIP_STOPS = 4
"""Stops of the strip on either side of 0, at even distances to the slider's end."""

COMPARE, SWEEP = "compare", "sweep"
DEFAULT_TOKENS, MOST_TOKENS = 80, 512
DEFAULT_REPETITION_PENALTY = 1.1
"""A small model that decodes greedily repeats itself without; the page and the API agree on it."""
LONGEST_PROMPT = 20_000  # characters; a bound on what a browser may send, the model's own limit counts tokens
LARGEST_SEED = 2**31


@dataclass(frozen=True)
class ControlSpec:
    """How one control looks and what it may hold.

    Attributes:
        url_name: name of its parameter in the page's address.
        label, hint: words beside it.
        low, high, step: limits of a number; without a step it is a number box, with one a slider.
        choices: (label, value) of each choice; empty where it is not a choice.
        lines: rows of a text box.
    """

    url_name: str
    label: str
    hint: str = ""
    low: float = -math.inf
    high: float = math.inf
    step: float | None = None
    choices: tuple[tuple[str, str], ...] = ()
    lines: int = 1


def _control(default: Any, url_name: str, label: str, hint: str = "", **spec: Any) -> Any:
    return field(default=default, metadata={"spec": ControlSpec(url_name, label, hint, **spec)})


@dataclass(frozen=True)
class Controls:
    """One reading of the controls.

    Attributes:
        mode: `compare` (untouched, setting, opposite) or `sweep` (one vector at `SWEEP_MULTIPLIERS`).
        tokens, temperature, top_p, penalty, seed: sampling; new_seed: draw a new seed for each Generate.
        marks: trace each token's probabilities, so that words that steering changed can be marked.
        strip: write an answer for each of the stops of the active slider, too.
        full: decode with the model's own weights instead of the float16 copy.
    """

    prompt: str = _control("", "p", "Prompt", lines=1)  # with more lines, gradio's Enter would start a new one
    mode: str = _control(
        COMPARE,
        "mode",
        "Columns",
        choices=(
            ("Compare: untouched, your setting, its opposite", COMPARE),
            (f"Sweep: one vector from {SWEEP_MULTIPLIERS[0]:+g} to {SWEEP_MULTIPLIERS[-1]:+g}", SWEEP),
        ),
    )
    system: str = _control(
        DEFAULT_SYSTEM_PROMPT, "sys", "System prompt", "The shipped vectors were trained with this one.", lines=2
    )
    tokens: int = _control(
        DEFAULT_TOKENS,
        "tokens",
        "Longest answer",
        "in tokens, about 3/4 of a word each",
        low=8,
        high=MOST_TOKENS,
        step=8,
    )
    temperature: float = _control(
        0.0,
        "temperature",
        "Temperature",
        "0: always the most likely word; higher: more varied",
        low=0,
        high=2,
        step=0.05,
    )
    top_p: float = _control(
        1.0, "top_p", "Top-p", "below 1: only the likeliest words that make up this share", low=0.05, high=1, step=0.05
    )
    penalty: float = _control(
        DEFAULT_REPETITION_PENALTY,
        "penalty",
        "Repetition penalty",
        "above 1: words said before become rarer",
        low=1,
        high=1.5,
        step=0.05,
    )
    seed: int = _control(0, "seed", "Seed", "of all chance, the same in every column", low=0, high=LARGEST_SEED)
    new_seed: bool = _control(False, "new_seed", "A new seed for each Generate", "matters above temperature 0")
    marks: bool = _control(True, "marks", "Mark the words that steering changed")
    strip: bool = _control(True, "strip", "Prepare the slider's whole range to flip through")
    full: bool = _control(False, "full", "Full-precision weights", "slower, exact")

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "Controls":
        """Check what a browser sent, by the controls' names; numbers are brought into their range.

        Raises SteeringError for a text that is too long and for what is no number.
        """
        checked: dict[str, Any] = {}
        for name, spec in SPECS.items():
            value, default = values[name], getattr(cls, name)
            if isinstance(default, bool):
                checked[name] = bool(value)
            elif isinstance(default, str):
                checked[name] = _checked_text(name, spec, value)
            else:
                checked[name] = number_in_range(name, default if value is None else value)
        return cls(**checked)

    def within(self, limits: Limits) -> "Controls":
        """Return the same controls with answers no longer than the limits allow."""
        return replace(self, tokens=min(self.tokens, limits.new_tokens or self.tokens))

    @property
    def sampling(self) -> Sampling:
        """How tokens are drawn."""
        return Sampling(
            max_new_tokens=self.tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            repetition_penalty=self.penalty,
            seed=self.seed,
        )

    @property
    def weights(self) -> str:
        """Which weights decode: `full` or `float16`."""
        return "full" if self.full else "float16"


SPECS: dict[str, ControlSpec] = {f.name: f.metadata["spec"] for f in fields(Controls)}
"""Each control's declaration, in their order on the page."""


def number_in_range(name: str, value: Any) -> float:
    """Bring a number into the control's range, as an int where the control holds one.

    Raises SteeringError for what is no finite number.
    """
    spec = SPECS[name]
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise SteeringError(f"{name.replace('_', ' ')} is {value!r}; give a number from {spec.low:g} to {spec.high:g}.")
    return type(getattr(Controls, name))(min(spec.high, max(spec.low, value)))


def _checked_text(name: str, spec: ControlSpec, value: Any) -> str:
    text = str(value or "")
    if len(text) > LONGEST_PROMPT:
        what = "system prompt" if name == "system" else name
        raise SteeringError(f"The {what} has {len(text):,} characters; {LONGEST_PROMPT:,} are the most.")
    return text


def component(name: str, **options: Any) -> Any:
    """Make the gradio component of a control; `options` override its declaration."""
    spec, default = SPECS[name], getattr(Controls, name)
    common = {"value": default, "label": spec.label, "elem_id": name.replace("_", "-")} | options
    if not spec.choices and spec.hint:
        common = {"info": spec.hint} | common
    if spec.choices:
        return gr.Radio(list(spec.choices), **common)
    if isinstance(default, bool):
        return gr.Checkbox(**common)
    if isinstance(default, str):
        return gr.Textbox(**{"lines": spec.lines, "max_length": LONGEST_PROMPT} | common)
    if spec.step is None:
        return gr.Number(precision=0, minimum=spec.low, **common)
    return gr.Slider(**{"minimum": spec.low, "maximum": spec.high, "step": spec.step} | common)


def sampling_controls(limits: Limits) -> dict[str, Any]:
    """Lay out the folded panel: system prompt, sampling, and which weights decode; return its components by name."""
    made: dict[str, Any] = {"system": component("system")}
    most = min(MOST_TOKENS, limits.new_tokens or MOST_TOKENS)
    options = {"tokens": {"maximum": most, "value": min(DEFAULT_TOKENS, most)}}
    for row in (("tokens", "temperature"), ("penalty", "top_p"), ("seed", "new_seed")):
        with gr.Row():
            made |= {name: component(name, **options.get(name, {})) for name in row}
    made["full"] = component("full", elem_id="full-weights")
    return made


def weights_in_use(app: AppState, full: bool) -> tuple[gr.Accordion, gr.Checkbox]:
    """Return the panel with a title that names the weights in use, and their switch with what leaving it off costs."""
    report = app.precision()
    if report.why_full:
        info = f"In use in any case: {report.why_full}."
        return gr.Accordion(label="System prompt, sampling"), gr.Checkbox(info=info)
    used = "full-precision" if full else "float16"
    cost = f"next words differ by {report.kl:.1g} nats (mean KL, measured here)"
    return (
        gr.Accordion(label=f"System prompt, sampling; {used} weights in use"),
        gr.Checkbox(info=f"Off: float16 copies write several times as fast; {cost}."),
    )
