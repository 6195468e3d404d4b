"""The panel of sliders, one per vector, and the pinned settings: one component, so that a drag sends one event."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.interface.app_state import AppState
from steering.interface.html_component import widget
from steering.interface.playground.controls import SLIDER_RANGE, SLIDER_STEP
from steering.interface.playground.url_state import LONGEST_PIN_NAME, Pin
from steering.vectors.library import Entry
from steering.vectors.vector import check_multiplier, setting_title

MAX_COLUMNS = 8
MAX_PINS = MAX_COLUMNS - 3  # baseline, setting and opposite come first
HIDEABLE = ("baseline", "setting", "opposite")
"""Ids of the columns that a visitor may remove from a comparison."""

Multipliers = dict[str, float]
"""A setting as the browser names it: slug -> multiplier."""


@dataclass(frozen=True)
class SliderPanel:
    """The panel as a browser has it.

    Attributes:
        multipliers: those other than 0, by slug; `active`: slug of the slider moved last, or empty.
        pins: settings frozen as columns; `hidden`: ids of columns of the comparison that were removed.
    """

    multipliers: Multipliers = field(default_factory=dict)
    pins: Sequence[Pin] = ()
    active: str = ""
    hidden: Sequence[str] = ()


def slider_widget(app: AppState, panel: SliderPanel, **options: Any) -> gr.HTML:
    """Make the panel's component; its value is what `panel_value` makes.

    Fires `release` when a multiplier or the columns changed, not while a slider is dragged.
    """

    def pin_title(setting: str) -> str:
        """Title of a setting that the browser is about to pin, sent as JSON; empty for what is no setting."""
        try:
            multipliers = {str(slug): check_multiplier(m) for slug, m in json.loads(setting).items()}
        except (SteeringError, ValueError, TypeError, AttributeError, RecursionError):
            return ""
        return title_of(multipliers, names_of(fitting(app)))

    return widget(panel_value(app, panel), "sliders", server_functions=[pin_title], **options)


def panel_value(app: AppState, panel: SliderPanel) -> dict[str, Any]:
    """Make the component's value for the vectors now on the shelf that fit the model.

    {"sliders": [{slug, name, behavior, multiplier}], "pins": [{setting, title, name}], "active": slug,
    "hidden": [column id], "range", "step", "max_pins", "model"}
    """
    entries = fitting(app)
    names = names_of(entries)
    pins = [Pin({slug: m for slug, m in pin.setting.items() if slug in names}, pin.name) for pin in panel.pins]
    return {
        "sliders": [
            {
                "slug": entry.slug,
                "name": entry.vector.name,
                "behavior": entry.vector.behavior,
                "multiplier": _clamped(panel.multipliers.get(entry.slug, 0.0)),
            }
            for entry in entries
        ],
        "pins": [
            {"setting": pin.setting, "title": title_of(pin.setting, names), "name": pin.name}
            for pin in pins[:MAX_PINS]
            if pin.setting
        ],
        "active": panel.active if panel.active in names else "",
        "hidden": [id for id in panel.hidden if id in HIDEABLE],
        "range": SLIDER_RANGE,
        "step": SLIDER_STEP,
        "max_pins": MAX_PINS,
        "model": app.model.name,
    }


def read_panel(value: Any) -> SliderPanel:
    """Read the panel from a value a browser sent: nothing is trusted.

    Raises SteeringError for what is no value of the panel, or a multiplier that is no number.
    """
    try:
        multipliers = {str(s["slug"]): _clamped(s["multiplier"]) for s in value["sliders"]}
        pins = [
            Pin(
                {str(slug): check_multiplier(m) for slug, m in pin["setting"].items()},
                str(pin.get("name") or "")[:LONGEST_PIN_NAME],
            )
            for pin in value.get("pins", [])[:MAX_PINS]
        ]
        hidden = [str(id) for id in value.get("hidden", []) if id in HIDEABLE]
        active = str(value.get("active") or "")
    except (KeyError, TypeError, AttributeError) as error:
        raise SteeringError("The sliders sent something unreadable; reload the page.") from error
    return SliderPanel({slug: m for slug, m in multipliers.items() if m}, pins, active, hidden)


def title_of(multipliers: Multipliers, names: Mapping[str, str]) -> str:
    """Title of a setting by its vectors' names: `cheerful +1.5, formal -1`, or `baseline`."""
    return setting_title((names.get(slug, slug), m) for slug, m in multipliers.items())


def names_of(entries: Sequence[Entry]) -> dict[str, str]:
    """Slug -> the vector's name."""
    return {entry.slug: entry.vector.name for entry in entries}


def fitting(app: AppState) -> list[Entry]:
    """List the vectors on the shelf that fit the page's model."""
    return app.library.fitting(app.model.hidden_size, app.model.num_layers)


def _clamped(multiplier: Any) -> float:
    return max(-SLIDER_RANGE, min(SLIDER_RANGE, check_multiplier(multiplier)))
