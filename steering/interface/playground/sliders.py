"""The panel of sliders, one per vector, and the pinned settings: one component, so that a drag sends one event.

A vector made for another model of the same size can be added, too; its slider is folded away. One of another size is
only named, with the model that it is for.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.interface.app_state import AppState, Visit
from steering.interface.html_component import widget
from steering.interface.playground.controls import SLIDER_RANGE, SLIDER_STEP
from steering.interface.playground.url_state import LONGEST_PIN_NAME, Pin
from steering.models.loading import LanguageModel
from steering.vectors.action import check_multiplier
from steering.vectors.entry import Entry
from steering.vectors.vector import SteeringVector, setting_title

MAX_COLUMNS, FIRST_COLUMNS = 8, 3
"""Answers side by side; of a comparison, baseline, setting and opposite come first."""
MAX_PINS = MAX_COLUMNS - FIRST_COLUMNS
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

    def pin_title(request: str) -> str:
        """Title of a setting about to be pinned, sent as JSON of {setting, ticket}; empty for what is no setting."""
        try:
            asked = json.loads(request)
            multipliers = {str(slug): check_multiplier(m) for slug, m in asked["setting"].items()}
            visit = app.visit_with_ticket(asked.get("ticket"))
        except (SteeringError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return ""
        return title_of(multipliers, names_of(visit))

    return widget(panel_value(app.visit(), panel), "sliders", server_functions=[pin_title], **options)


def panel_value(visit: Visit, panel: SliderPanel) -> dict[str, Any]:
    """Make the component's value for the vectors now on the shelf.

    {"sliders": [{slug, name, behavior, multiplier, low, high, measured, dose, kl, made_for}], "others": [{name,
    made_for}], "pins": [{setting, title, name}], "active": slug, "hidden": [column id], "range", "step", "max_pins",
    "model", "generation", "ticket"}; `made_for` of a slider is empty where the vector was made for the page's model,
    `others` are vectors that cannot be added to it, `generation` tells a page that was opened with another model, and
    the visitor's ticket goes with the panels' own requests to the server, which carry no session.
    """
    in_use = visit.in_use
    entries, names = fitting(visit), names_of(visit)
    pins = [Pin({slug: m for slug, m in pin.setting.items() if slug in names}, pin.name) for pin in panel.pins]
    return {
        "sliders": [
            {
                "slug": entry.slug,
                "name": names[entry.slug],
                "behavior": entry.vector.behavior,
                "multiplier": _clamped(panel.multipliers.get(entry.slug, 0.0)),
                **slider_ends(entry.vector),
                **_units(entry.vector),
                "made_for": "" if made_for(entry.vector, in_use.model) else home_of(entry.vector),
            }
            for entry in entries
        ],
        "others": [
            {"name": entry.vector.name, "made_for": home_of(entry.vector)}
            for entry in visit.library.entries()
            if entry.slug not in names
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
        "max_pins": min(MAX_PINS, most_columns(visit) - FIRST_COLUMNS),
        "model": in_use.model.name,
        "generation": in_use.generation,
        "ticket": visit.visitor.ticket,
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


def most_columns(visit: Visit) -> int:
    """Return how many answers may stand side by side."""
    return min(MAX_COLUMNS, visit.limits.columns or MAX_COLUMNS)


def title_of(multipliers: Multipliers, names: Mapping[str, str]) -> str:
    """Title of a setting by its vectors' names: `cheerful +1.5, formal -1`, or `baseline`."""
    return setting_title((names.get(slug, slug), m) for slug, m in multipliers.items())


def names_of(visit: Visit) -> dict[str, str]:
    """Slug -> name beside the slider, of the vectors that can be added; the page's own model is not named in it."""
    tail = f" ({visit.model.name})"
    return {entry.slug: entry.vector.name.removesuffix(tail) for entry in fitting(visit)}


def fitting(visit: Visit) -> list[Entry]:
    """List the vectors on the shelf that can be added to the page's model, those that were made for it first."""
    model = visit.model
    entries = visit.library.fitting(model.hidden_size, model.num_layers)
    return sorted(entries, key=lambda entry: not made_for(entry.vector, model))


def own_entries(visit: Visit) -> list[Entry]:
    """List the vectors on the shelf that were made for the page's model."""
    return [entry for entry in fitting(visit) if made_for(entry.vector, visit.model)]


def made_for(vector: SteeringVector, model: LanguageModel) -> bool:
    """Tell whether a vector that can be added to the model was made for it, or does not say for which.

    Its weights in another number type have another fingerprint, and the same id.
    """
    known = vector.model_fingerprint or vector.model_id
    same = vector.model_fingerprint == model.fingerprint or vector.model_id in (model.source, model.name)
    return same or not known


def home_of(vector: SteeringVector) -> str:
    """Name the model that a vector was made for, by its size where it does not say."""
    return vector.model_id or f"a model of hidden size {vector.hidden_size}"


def is_stale(app: AppState, sliders_value: Any) -> bool:
    """Tell whether the sliders that a browser sent are those of a model that is no longer in use."""
    sent = sliders_value.get("generation") if isinstance(sliders_value, dict) else None
    return sent is not None and sent != app.generation


def slider_ends(vector: SteeringVector) -> dict[str, Any]:
    """Return the ends of a vector's slider: the useful range that was measured, else the usual ones.

    A side on which nothing was useful keeps the usual end, since its slider must move.
    """
    try:
        low, high = (float(end) for end in vector.metrics["useful_range"])
    except (KeyError, TypeError, ValueError):  # not measured, or a file of somebody else's making
        low, high = 0.0, 0.0
    return {
        "low": max(low, -SLIDER_RANGE) if low < 0 else -SLIDER_RANGE,
        "high": min(high, SLIDER_RANGE) if high > 0 else SLIDER_RANGE,
        "measured": low < 0 < high,
    }


def _units(vector: SteeringVector) -> dict[str, float | None]:
    """Return what multiplier 1 is in the other units; None where it was not measured.

    `dose`: the norm at the first layer over that of the residual stream. `kl`: in units of the multiplier at which the
    95th percentile of the KL divergence is 1 nat, by which vectors of all methods are comparable.
    """

    def number(value: Any) -> float | None:
        first = value[0] if isinstance(value, list | tuple) and value else value
        return float(first) if isinstance(first, int | float) and first > 0 else None

    stream, unit = number(vector.method.get("residual_norm")), number(vector.metrics.get("unit_multiplier"))
    return {"dose": stream and vector.norms[vector.layers[0]] / stream, "kl": unit and 1 / unit}


def _clamped(multiplier: Any) -> float:
    return max(-SLIDER_RANGE, min(SLIDER_RANGE, check_multiplier(multiplier)))
