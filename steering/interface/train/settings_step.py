"""Step 2 of the Train tab: what is chosen there, and the settings that it comes to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from steering.errors import SteeringError
from steering.training import METHODS
from steering.training.methods.bipo.presets import EFFORTS

METHOD_LABELS = {"bipo": "BiPO: trained both ways"}
CHOOSE = "choose"
SIGNS = [("drawn by lot, as in the paper", "drawn"), ("both in every step", "both"), ("+1 only", "plus")]
SCOPES = [("everywhere", "all"), ("only in the answer", "answer")]
GROUPS = ("Where it steers", "What it learns from a pair", "How it learns", "The run as a whole")

Given = Mapping[Component, Any]
"""What the controls say, as gradio hands it to a handler whose inputs are a set."""


@dataclass(frozen=True)
class Choice:
    """One advanced setting: its control, and what its value means; None leaves the setting to the effort."""

    control: Component
    meaning: Callable[[Any], Any]


class Choices:
    """The controls of step 2, laid out where it is made."""

    def __init__(self, num_layers: int) -> None:
        self.effort = gr.Radio(labels(), value="quick", label="Effort", elem_id="effort")
        with gr.Row():
            layers = [("Choose for me", CHOOSE), *((str(k), str(k)) for k in range(num_layers))]
            self.layer = gr.Dropdown(
                layers,
                value=CHOOSE,
                label="Layer",
                info="Where the vector is added. Quick takes the middle one, the other efforts look for the best.",
                interactive=True,
                elem_id="layer",
            )
            self.method = gr.Dropdown(
                [(METHOD_LABELS.get(key, key), key) for key in METHODS],
                value="bipo",
                label="Method",
                info="How the vector is made from the pairs.",
                interactive=True,
            )
        with gr.Accordion("Advanced settings", open=False, elem_id="advanced"), gr.Row(elem_classes="groups"):
            where, learns, how, whole = (self._group(title) for title in GROUPS)
        with where:
            self.several = gr.Textbox(
                label="Several layers",
                info="instead of the one above, each with a vector of its own",
                placeholder="12, 14",
                max_length=200,
                elem_id="several-layers",
            )
            scope = gr.Radio(SCOPES, value="all", label="Steered text", info="also when it is used", elem_id="scope")
        with learns:
            signs = gr.Dropdown(
                SIGNS,
                value="drawn",
                label="Direction of a step",
                info="both: steadier, twice the work; +1: may not turn around",
                interactive=True,
                elem_id="signs",
            )
            weight = gr.Slider(
                0,
                1,
                0,
                step=0.1,
                label="Weight on length",
                info="0: long answers count more, as in the paper; 1: all count alike",
                elem_id="length-weight",
            )
            beta = gr.Number(0.1, label="Beta", info="how soon a pair counts as learned", elem_id="beta")
        with how:
            batch = gr.Number(4, label="Batch size", info="pairs in each step", precision=0, elem_id="batch-size")
            rate = gr.Number(0, label="Learning rate", info="0: as the effort says", elem_id="learning-rate")
            pull = gr.Number(
                0, label="Pull towards small norms (L2)", info="0: none; more: a shorter vector", elem_id="l2"
            )
        with whole:
            self.holdout = gr.Slider(
                0,
                0.5,
                0.2,
                step=0.05,
                label="Held-out share",
                info="pairs kept aside to measure with",
                elem_id="holdout",
            )
            patience = gr.Number(
                0,
                label="Patience",
                info="measurements without progress before it ends; 0: as the effort says",
                precision=0,
                elem_id="patience",
            )
            seed = gr.Number(0, label="Seed", info="decides all that is left to chance", precision=0, elem_id="seed")
            self.anew = gr.Checkbox(
                label="Begin anew",
                info="even where an interrupted training could go on",
                elem_id="begin-anew",
            )
        self.advanced = {
            "token_scope": Choice(scope, str),
            "signs": Choice(signs, str),
            "length_weight": Choice(weight, float),
            "beta": Choice(beta, float),
            "batch_size": Choice(batch, int),
            "learning_rate": Choice(rate, lambda value: float(value) or None),
            "l2": Choice(pull, float),
            "patience": Choice(patience, lambda value: int(value) or None),
            "seed": Choice(seed, int),
        }

    @staticmethod
    def _group(title: str) -> gr.Column:
        with gr.Column(min_width=250) as group:
            gr.HTML(f"<h3>{title}</h3>", padding=False)
        return group

    @property
    def inputs(self) -> set[Component]:
        controls = {self.effort, self.layer, self.method, self.several, self.holdout, self.anew}
        return controls | {choice.control for choice in self.advanced.values()}

    @property
    def of_estimate(self) -> list[Component]:
        """The controls on which the time a training takes depends."""
        return [self.layer, self.several, self.holdout, *(self.advanced[n].control for n in ("batch_size", "signs"))]

    def settings(self, given: Given, effort: str | None = None) -> dict[str, Any]:
        """The method's settings, for this effort or the one chosen.

        Raises SteeringError for layers that are no numbers.
        """
        effort = effort or given[self.effort]
        settings = dict(EFFORTS[effort if effort in EFFORTS else "quick"].settings)
        for name, choice in self.advanced.items():
            value = given[choice.control]
            meant = None if value is None or value == "" else choice.meaning(value)
            if meant is not None:
                settings[name] = meant
        layer = given[self.layer]
        if (given[self.several] or "").strip():
            settings["layer"] = layers_of(given[self.several])
        elif layer not in (None, CHOOSE):
            settings["layer"] = int(layer)
        return settings


def labels(times: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """The efforts as choices of a radio; `times` says how long each takes, in words, where that is known."""
    times = times or {}
    return [
        (f"{effort.label}{f': {times[key]}' if key in times else ''}\n{effort.hint}", key)
        for key, effort in EFFORTS.items()
    ]


def layers_of(text: str) -> tuple[int, ...]:
    """`12, 14` as numbers."""
    try:
        return tuple(int(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise SteeringError(f"Several layers: {text.strip()!r} is not a list such as 12, 14.") from None
