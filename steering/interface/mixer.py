"""The panel of sliders, one per vector, and the pinned settings: one component, so that a drag sends one event."""

from typing import Any

import gradio as gr

from steering import paths
from steering.errors import SteeringError
from steering.generation import MAX_COLUMNS
from steering.interface.studio import Studio
from steering.intervention import Setting
from steering.library import Entry
from steering.vectors import check_multiplier

RANGE, STEP = 3.0, 0.25
MAX_PINS = MAX_COLUMNS - 3  # baseline, setting and opposite come first

Multipliers = dict[str, float]  # slug -> multiplier


def mixer_panel(value: dict[str, Any], **options: Any) -> gr.HTML:
    """Value: {"sliders": [{slug, name, behavior, multiplier}], "pins": [{setting, title}], "active": slug}.

    Fires `release` when a multiplier or a pin changed, not while a slider is dragged.
    """
    assets = paths.shipped("assets")
    return gr.HTML(
        value,
        html_template=(assets / "mixer.html").read_text(encoding="utf-8"),
        js_on_load=(assets / "mixer.js").read_text(encoding="utf-8"),
        max_pins=MAX_PINS,
        **options,
    )


def mixer_value(studio: Studio, multipliers: Multipliers, pins: list[Multipliers], active: str = "") -> dict[str, Any]:
    """The panel for the vectors now on the shelf that fit the model."""
    entries = fitting(studio)
    names = {entry.slug: entry.vector.name for entry in entries}
    kept = [{slug: m for slug, m in pin.items() if slug in names} for pin in pins][:MAX_PINS]
    return {
        "sliders": [
            {
                "slug": entry.slug,
                "name": entry.vector.name,
                "behavior": entry.vector.behavior,
                "multiplier": _clamped(multipliers.get(entry.slug, 0.0)),
            }
            for entry in entries
        ],
        "pins": [
            {"setting": pin, "title": ", ".join(f"{names[s]} {m:+g}" for s, m in pin.items())} for pin in kept if pin
        ],
        "active": active if active in names else "",
        "range": RANGE,
        "step": STEP,
    }


def fitting(studio: Studio) -> list[Entry]:
    """The vectors on the shelf that fit the model."""
    model = studio.model

    def fits(entry: Entry) -> bool:
        vector = entry.vector
        return vector.hidden_size == model.hidden_size and max(vector.layers) < model.num_layers

    return [entry for entry in studio.library.entries() if fits(entry)]


def read_mixer(value: Any) -> tuple[Multipliers, list[Multipliers], str]:
    """Multipliers other than 0, pins, and the slider last moved, from a value a browser sent: nothing is trusted."""
    try:
        multipliers = {str(s["slug"]): _clamped(s["multiplier"]) for s in value["sliders"]}
        pins = [
            {str(slug): check_multiplier(m) for slug, m in pin["setting"].items()}
            for pin in value.get("pins", [])[:MAX_PINS]
        ]
        active = str(value.get("active") or "")
    except (KeyError, TypeError, AttributeError) as error:
        raise SteeringError("The sliders sent something unreadable; reload the page.") from error
    return {slug: m for slug, m in multipliers.items() if m}, pins, active


def setting_of(studio: Studio, multipliers: Multipliers) -> Setting:
    """Vectors and multipliers for slugs and multipliers; SteeringError for a slug that is not on the shelf."""
    vectors = {entry.slug: entry.vector for entry in studio.library.entries()}
    missing = [slug for slug in multipliers if slug not in vectors]
    if missing:
        raise SteeringError(f"The vector {missing[0][:60]!r} is no longer on the shelf; reload the page.")
    return {vectors[slug]: multiplier for slug, multiplier in multipliers.items()}


def _clamped(multiplier: Any) -> float:
    return max(-RANGE, min(RANGE, check_multiplier(multiplier)))
