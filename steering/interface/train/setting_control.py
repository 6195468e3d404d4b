"""One setting of a training method as a control of the page, and how its value is read back."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from steering.errors import SteeringError
from steering.training.config import SettingSpec
from steering.training.registry import Preset

FILLED_IN, BY_EFFORT = "automatic", "as the effort says"
"""What a control shows for a setting without a fixed default: the run fills it in, or the preset sets it."""
MOST_ON_A_SLIDER = 10
"""A number whose whole range is at most this wide gets a slider, any other a box to type in."""
LONGEST_SLIDER_HELP = 80
"""Characters of help up to which it may be a slider: gradio squeezes a slider's help in beside its number, a dozen
letters wide on a phone."""
SLIDER_STEPS = 20
"""Steps of such a slider from end to end: a tenth for a range of 2, fine enough to choose and coarse enough to hit."""

Values = Mapping[Component, Any]
"""What the controls hold, as gradio hands it to a handler whose inputs are a set."""


@dataclass(frozen=True)
class SettingControl:
    """The control of one setting, and the value it shows before anybody touches it."""

    spec: SettingSpec
    component: Component
    untouched: Any

    def changed_value(self, values: Values) -> Any | None:
        """Return the setting as the person made it; None where it was left alone or emptied.

        Raises SteeringError for a text that is no number.
        """
        value = values[self.component]
        if value is None or value == "" or value == self.untouched:
            return None
        if self.spec.kind == "flag":
            return value in (True, "yes")
        if self.spec.kind == "choice":
            return value
        return _number(value, self.spec)


def _number(value: str | float, spec: SettingSpec) -> int | float:
    """Read what a text box, number box or slider sent; a fraction stays one, for the method's config to refuse."""
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise SteeringError(f"{spec.label}: {value!r} is not a number.") from None
    return int(number) if spec.kind == "integer" and number.is_integer() else number


def make_control(spec: SettingSpec, method: str, presets: Iterable[Preset]) -> SettingControl:
    """Make the control of a setting.

    A setting without a fixed default (None, or some preset sets it) starts as an empty choice. For numbers that is a
    text box, because gradio 6.31 shows and sends an empty number box as 0.
    """
    by_preset = any(spec.name in preset.settings for preset in presets)
    open_default = by_preset or spec.default is None
    empty = BY_EFFORT if by_preset else FILLED_IN
    unit_is_unsaid = bool(spec.unit) and spec.unit not in f"{spec.label} {spec.help}".lower()
    common: dict[str, Any] = {
        "label": f"{spec.label} ({spec.unit})" if unit_is_unsaid else spec.label,
        "info": spec.help,
        "elem_id": f"setting-{method}-{spec.name.replace('_', '-')}",
        "interactive": True,
    }
    if spec.kind == "flag" and not open_default:
        return SettingControl(spec, gr.Checkbox(spec.default, **common), spec.default)
    if spec.kind in ("choice", "flag"):
        choices = [(label, value) for value, label in spec.choices or (("yes", "yes"), ("no", "no"))]
        untouched = "" if open_default else spec.default
        choices = [*([(empty, "")] if open_default else []), *choices]
        make = gr.Radio if len(choices) < 3 else gr.Dropdown
        return SettingControl(spec, make(choices, value=untouched, **common), untouched)
    if open_default:
        return SettingControl(spec, gr.Textbox(placeholder=empty, max_lines=1, max_length=30, **common), "")
    if ends := _slider_ends(spec):
        step = 1 if spec.kind == "integer" else (ends[1] - ends[0]) / SLIDER_STEPS
        return SettingControl(spec, gr.Slider(*ends, spec.default, step=step, **common), spec.default)
    precision = 0 if spec.kind == "integer" else None
    return SettingControl(spec, gr.Number(spec.default, precision=precision, **common), spec.default)


def _slider_ends(spec: SettingSpec) -> tuple[float, float] | None:
    """Return the range of a number that suits a slider; None for one to type in."""
    if spec.low is None or spec.high is None or spec.above or len(spec.help) > LONGEST_SLIDER_HELP:
        return None
    return (spec.low, spec.high) if spec.high - spec.low <= MOST_ON_A_SLIDER else None
