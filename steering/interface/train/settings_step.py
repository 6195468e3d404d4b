"""Step 2 of the Train tab: the method, its presets and its settings. All controls are built from the registry.

A method shows up here with its label, its description, its presets as efforts, and one control for each setting that
has a group; which control that is follows from the setting's kind and range. Only the chosen method's controls are
visible, and only what the person changed is sent, so that everything else stays with the preset and the defaults.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import escape
from typing import Any

import gradio as gr
from gradio.components import Component

from steering.errors import SteeringError
from steering.interface import html
from steering.interface.train.setting_control import SettingControl, Values, make_control
from steering.limits import NO_LIMITS, Limits
from steering.training.config import RUN_GROUP, WHERE_GROUP, MethodConfig, SettingSpec
from steering.training.registry import Method, Preset, methods

AUTOMATIC = "automatic"
"""Value of the layer's dropdown that leaves the layer to the preset, or to the method's default."""


class SettingsStep:
    """The controls of step 2, laid out in the container that is open when it is made.

    Args:
        num_layers: of the model.
        available: methods by name; by default those of the registry.
        limits: which presets are offered.

    Attributes:
        methods: those that can be trained from preference pairs, by name; the first one is chosen at the start.
        method, effort, layer, several_layers, holdout, seed, start_over: controls that all methods share.
        controls: the other settings' controls, by method name and setting name.
        panels: by method name, the containers visible only for that method.
    """

    def __init__(
        self, num_layers: int, available: Mapping[str, Method] | None = None, limits: Limits = NO_LIMITS
    ) -> None:
        self.limits = limits
        available = methods() if available is None else available
        self.methods = {name: method for name, method in available.items() if set(method.inputs) <= {"pairs"}}
        self.controls: dict[str, dict[str, SettingControl]] = {name: {} for name in self.methods}
        self.panels: dict[str, list[gr.Column]] = {name: [] for name in self.methods}
        self._first = next(iter(self.methods))
        first = self.methods[self._first]
        with gr.Row():
            with gr.Column(min_width=260):
                self.method = gr.Dropdown(
                    [(method.label, name) for name, method in self.methods.items()],
                    value=self._first,
                    label="Method",
                    info="how the vector is made from the pairs",
                    interactive=True,
                    elem_id="method",
                )
                self.description = gr.HTML(html.note(first.description), elem_id="method-description")
            with gr.Column(min_width=260):
                self.layer = gr.Dropdown(
                    layer_choices(num_layers),
                    value=AUTOMATIC,
                    label="Layer",
                    info="decoder block to whose output the vector is added, counted from 0",
                    interactive=True,
                    elem_id="layer",
                )
        self.effort = gr.Radio(
            effort_choices(first, limits=limits),
            value=first.default_preset,
            label="Effort",
            elem_id="effort",
            visible=len(first.presets) > 1,
        )
        self.time = gr.HTML(elem_id="training-time")
        with gr.Accordion("Advanced settings", open=False, elem_id="advanced"), gr.Row(elem_classes="groups"):
            self._advanced()

    def _advanced(self) -> None:
        """Lay out the groups: what all methods share first and last, each method's own between."""
        seed = next(spec for spec in MethodConfig.specs() if spec.name == "seed")
        with _group(WHERE_GROUP):  # settings that methods put into the group join the layers
            self.several_layers = gr.Textbox(
                label="Several layers",
                info="instead of the one above, each with a vector of its own",
                placeholder="12, 14",
                max_lines=1,
                max_length=200,
                elem_id="several-layers",
            )
            for name in self.methods:
                self._panel(name, WHERE_GROUP)
        for name in self.methods:
            for group in self._groups(name):
                if group not in (WHERE_GROUP, RUN_GROUP):
                    self._panel(name, group, heading=True)
        with _group(RUN_GROUP):
            for name in self.methods:
                self._panel(name, RUN_GROUP)
            self.holdout = gr.Slider(
                0,
                0.5,
                0.2,
                step=0.05,
                label="Held-out share",
                info="of the pairs, set aside to measure with",
                elem_id="holdout",
            )
            self.seed = SettingControl(
                seed,
                gr.Number(seed.default, label=seed.label, info=seed.help, precision=0, elem_id="seed"),
                seed.default,
            )
            self.start_over = gr.Checkbox(
                label="Start from scratch",
                info="even where an interrupted training could be continued",
                elem_id="start-over",
            )

    def _panel(self, name: str, group: str, *, heading: bool = False) -> None:
        """Lay out one group of one method's settings, visible only while that method is chosen."""
        specs = [spec for spec in self._own_specs(name) if spec.group == group]
        if not specs:
            return
        with gr.Column(min_width=250 if heading else 0, visible=name == self._first) as panel:
            if heading:
                _heading(group)
            for spec in specs:
                self.controls[name][spec.name] = make_control(spec, name, self.methods[name].presets.values())
        self.panels[name].append(panel)

    def _groups(self, name: str) -> list[str]:
        return list(dict.fromkeys(spec.group for spec in self._own_specs(name) if spec.group))

    def _own_specs(self, name: str) -> list[SettingSpec]:
        shared = MethodConfig.model_fields
        return [spec for spec in self.methods[name].config_class.specs() if spec.name not in shared]

    @property
    def inputs(self) -> set[Component]:
        """All controls whose values `settings` and the other readers need."""
        shared = {self.method, self.effort, self.layer, self.several_layers, self.holdout, self.start_over}
        own = {control.component for controls in self.controls.values() for control in controls.values()}
        return shared | own | {self.seed.component}

    @property
    def method_outputs(self) -> list[Component | gr.Column]:
        """What `choose_method` changes."""
        panels = [panel for panels in self.panels.values() for panel in panels]
        return [self.description, self.effort, self.time, *panels]

    @property
    def time_inputs(self) -> list[Any]:
        """The controls on which the time of a training may depend, in a fixed order."""
        own = [control.component for controls in self.controls.values() for control in controls.values()]
        return [self.layer, self.several_layers, self.holdout, *own]

    def layer_update(self, num_layers: int) -> Any:
        """Return the update of `layer` for a model of so many layers; a number chosen before is given up."""
        return gr.update(choices=layer_choices(num_layers), value=AUTOMATIC)

    def choose_method(self, name: str) -> dict[Component | gr.Column, Any]:
        """Show the description, efforts and settings of this method, and hide those of the others."""
        method = self.methods.get(name, self.methods[self._first])
        visible: dict[Component | gr.Column, Any] = {
            panel: gr.update(visible=each == name) for each, panels in self.panels.items() for panel in panels
        }
        effort = gr.update(
            choices=effort_choices(method, limits=self.limits),
            value=method.default_preset,
            visible=len(method.presets) > 1,
        )
        return {self.description: html.note(method.description), self.effort: effort, self.time: "", **visible}

    def chosen_method(self, values: Values) -> Method:
        """Return the method chosen; SteeringError for one that is not offered."""
        name = values[self.method]
        if name not in self.methods:
            raise SteeringError(f"There is no method {name!r} on this page; choose one of: {', '.join(self.methods)}.")
        return self.methods[name]

    def settings(self, values: Values, preset: str | None = None) -> dict[str, Any]:
        """Return the chosen method's settings: the preset's, and over them what the person changed.

        Args:
            preset: name of a preset to take in place of the one chosen.

        Raises SteeringError for a text that should be a number, or numbers.
        """
        method = self.chosen_method(values)
        chosen = preset or values[self.effort]
        settings = method.preset_settings(chosen if chosen in method.presets else method.default_preset, self.limits)
        for control in (self.seed, *self.controls[method.name].values()):
            value = control.changed_value(values)
            if value is not None:
                settings[control.spec.name] = value
        if (values[self.several_layers] or "").strip():
            settings["layer"] = read_layers(values[self.several_layers])
        elif values[self.layer] not in (None, AUTOMATIC):
            settings["layer"] = int(values[self.layer])
        return settings


def layer_choices(num_layers: int) -> list[tuple[str, str]]:
    """Return the choices of the layer's dropdown: automatic, then every layer."""
    return [("Choose for me", AUTOMATIC), *((str(k), str(k)) for k in range(num_layers))]


def effort_choices(
    method: Method, times: Mapping[str, str] | None = None, limits: Limits = NO_LIMITS
) -> list[tuple[str, str]]:
    """Return the presets that the limits offer as choices of a radio.

    Args:
        times: how long each takes, in words, where that is known.
    """
    times = times or {}

    def label(name: str, preset: Preset) -> str:
        return f"{preset.label}{f': {times[name]}' if name in times else ''}\n{preset.hint}"

    return [(label(name, each), name) for name, each in method.presets.items() if limits.offers(name)]


def read_layers(text: str) -> tuple[int, ...]:
    """Read `12, 14` as numbers; SteeringError for anything else."""
    try:
        return tuple(int(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise SteeringError(f"Several layers: {text.strip()!r} is not a list such as 12, 14.") from None


@contextmanager
def _group(title: str) -> Iterator[None]:
    with gr.Column(min_width=250):
        _heading(title)
        yield


def _heading(title: str) -> None:
    gr.HTML(f"<h3>{escape(title)}</h3>", padding=False)
