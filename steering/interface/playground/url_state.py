"""The Playground's state in the page's address: written by the browser, read by the server, stored nowhere.

    ?v=cheerful:1.5,formal:-1&pin=pirate:2&p=How+are+you&mode=sweep&hide=opposite&model=SmolLM2...

`assets/url-state.js` writes it, from the sliders' value and the controls that differ from `control_defaults`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from steering.interface.playground.controls import SPECS, Controls, number_in_range
from steering.vectors.action import MAX_MULTIPLIER

LONGEST_PIN_NAME = 60  # characters; what a column's title has room for
MOST_VECTORS = 64  # of one setting; a bound on what an address may make the server do
MOST_HIDDEN = 8  # columns


@dataclass(frozen=True)
class Pin:
    """A setting frozen as a column; `name` is empty where its setting is title enough."""

    setting: dict[str, float]
    name: str = ""


@dataclass(frozen=True)
class UrlState:
    """What an address says; None or empty where it says nothing.

    Attributes:
        given: whether the address holds a setting at all, if only an empty one.
        multipliers: those other than 0, by slug; `active`: slug of the slider moved last.
        pins: settings frozen as columns; `hidden`: ids of columns that were removed.
        model: name of the model that the link was made with.
        controls: values of the controls, by name, unchecked but for being numbers where numbers belong.
    """

    given: bool = False
    multipliers: dict[str, float] = field(default_factory=dict)
    active: str = ""
    pins: list[Pin] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    model: str = ""
    controls: dict[str, str | float] = field(default_factory=dict)

    @property
    def vectors(self) -> list[str]:
        """Slugs of all vectors that the address uses."""
        return [*self.multipliers, *(slug for pin in self.pins for slug in pin.setting)]

    def over(self, usual: Controls) -> Controls:
        """Return the usual controls, those that the address sets replaced."""
        changed: dict[str, Any] = {}
        for name, value in self.controls.items():
            default, choices = getattr(Controls, name), [choice for _, choice in SPECS[name].choices]
            if isinstance(default, bool):
                changed[name] = value == 1
            elif isinstance(default, int | float):
                changed[name] = number_in_range(name, value)
            elif not choices or value in choices:
                changed[name] = value
        return replace(usual, **changed)


def control_defaults() -> dict[str, Any]:
    """Name in the address -> default, in the controls' order; what equals it is left out of an address."""
    return {spec.url_name: getattr(Controls, name) for name, spec in SPECS.items()}


def read(query: Mapping[str, str]) -> UrlState:
    """Read an address's query; whatever is unsound in it is left out, so that an old link still opens the page."""

    def all_values(name: str) -> list[str]:
        return query.getlist(name) if hasattr(query, "getlist") else []

    controls: dict[str, str | float] = {}
    for name, spec in SPECS.items():
        if spec.url_name in query:
            text = query[spec.url_name]
            value = text if isinstance(getattr(Controls, name), str) else _number(text)
            if value is not None:
                controls[name] = value
    parts = [pin.partition(";") for pin in all_values("pin")]
    pins = [Pin(_setting(setting), name[:LONGEST_PIN_NAME]) for setting, _, name in parts]
    return UrlState(
        given="v" in query,
        multipliers=_setting(query.get("v", "")),
        active=query.get("active", ""),
        pins=[pin for pin in pins if pin.setting],
        hidden=all_values("hide")[:MOST_HIDDEN],
        model=query.get("model", ""),
        controls=controls,
    )


def _setting(text: str) -> dict[str, float]:
    """{slug: multiplier} of `cheerful:1.5,formal:-1`; zeros and what is no number are left out."""
    parts = (part.rpartition(":") for part in text.split(",")[:MOST_VECTORS])
    numbers = {slug: _number(number) for slug, _, number in parts if slug}
    return {slug: max(-MAX_MULTIPLIER, min(MAX_MULTIPLIER, number)) for slug, number in numbers.items() if number}


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
