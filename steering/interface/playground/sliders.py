"""The panel of sliders, one per vector, and the pinned settings: one component, so that a drag sends one event."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.interface.app_state import AppState
from steering.interface.html_component import widget
from steering.interface.playground.url_state import Pin
from steering.intervention.additions import Setting
from steering.vectors.library import Entry
from steering.vectors.vector import check_multiplier

RANGE, STEP = 3.0, 0.25
MAX_COLUMNS = 8
MAX_PINS = MAX_COLUMNS - 3  # baseline, setting and opposite come first
HIDEABLE = ("baseline", "setting", "opposite")

Multipliers = dict[str, float]  # slug -> multiplier


@dataclass(frozen=True)
class Mixer:
    """The panel as a browser has it.

    Attributes:
        multipliers: those other than 0, by slug; `active`: slug of the slider moved last, or empty.
        pins: settings frozen as columns; `hidden`: columns of the comparison that were removed.
    """

    multipliers: Multipliers = field(default_factory=dict)
    pins: Sequence[Pin] = ()
    active: str = ""
    hidden: Sequence[str] = ()


def mixer_panel(value: dict[str, Any], **options: Any) -> gr.HTML:
    """Value: {"sliders": [{slug, name, behavior, multiplier}], "pins": [{setting, title, name}], "active": slug,
    "hidden": [column id], "range", "step", "max_pins", "model"}.

    Fires `release` when a multiplier or the columns changed, not while a slider is dragged.
    """
    return widget(value, "mixer", **options)


def mixer_value(app: AppState, mixer: Mixer) -> dict[str, Any]:
    """The panel for the vectors now on the shelf that fit the model."""
    entries = fitting(app)
    names = {entry.slug: entry.vector.name for entry in entries}
    kept = [Pin({s: m for s, m in pin.setting.items() if s in names}, pin.name) for pin in mixer.pins]
    return {
        "sliders": [
            {
                "slug": entry.slug,
                "name": entry.vector.name,
                "behavior": entry.vector.behavior,
                "multiplier": _clamped(mixer.multipliers.get(entry.slug, 0.0)),
            }
            for entry in entries
        ],
        "pins": [
            {"setting": pin.setting, "title": title_of(pin.setting, names), "name": pin.name}
            for pin in kept[:MAX_PINS]
            if pin.setting
        ],
        "active": mixer.active if mixer.active in names else "",
        "hidden": [id for id in mixer.hidden if id in HIDEABLE],
        "range": RANGE,
        "step": STEP,
        "max_pins": MAX_PINS,
        "model": app.model.name,
    }


def title_of(multipliers: Multipliers, names: dict[str, str]) -> str:
    """`cheerful +1.5, formal -1`, or `baseline`."""
    return ", ".join(f"{names.get(slug, slug)} {m:+g}" for slug, m in multipliers.items() if m) or "baseline"


def fitting(app: AppState) -> list[Entry]:
    """The vectors on the shelf that fit the model."""
    model = app.model

    def fits(entry: Entry) -> bool:
        vector = entry.vector
        return vector.hidden_size == model.hidden_size and max(vector.layers) < model.num_layers

    return [entry for entry in app.library.entries() if fits(entry)]


def read_mixer(value: Any) -> Mixer:
    """The panel from a value a browser sent: nothing is trusted."""
    try:
        multipliers = {str(s["slug"]): _clamped(s["multiplier"]) for s in value["sliders"]}
        pins = [
            Pin({str(slug): check_multiplier(m) for slug, m in pin["setting"].items()}, str(pin.get("name") or "")[:60])
            for pin in value.get("pins", [])[:MAX_PINS]
        ]
        hidden = [str(id) for id in value.get("hidden", []) if id in HIDEABLE]
        active = str(value.get("active") or "")
    except (KeyError, TypeError, AttributeError) as error:
        raise SteeringError("The sliders sent something unreadable; reload the page.") from error
    return Mixer({slug: m for slug, m in multipliers.items() if m}, pins, active, hidden)


def setting_of(app: AppState, multipliers: Multipliers) -> Setting:
    """Vectors and multipliers for slugs and multipliers; SteeringError for a slug that is not on the shelf."""
    vectors = {entry.slug: entry.vector for entry in app.library.entries()}
    missing = [slug for slug in multipliers if slug not in vectors]
    if missing:
        raise SteeringError(f"The vector {missing[0][:60]!r} is no longer on the shelf; reload the page.")
    return {vectors[slug]: multiplier for slug, multiplier in multipliers.items()}


def _clamped(multiplier: Any) -> float:
    return max(-RANGE, min(RANGE, check_multiplier(multiplier)))
