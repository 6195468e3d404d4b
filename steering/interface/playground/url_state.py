"""The playground's state in the page's address: written by the browser, read by the server, stored nowhere.

?v=cheerful:1.5,formal:-1&pin=pirate:2&p=How+are+you&mode=sweep&hide=opposite&model=SmolLM2...
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from steering.interface.playground.controls import NAMES, RANGES, Controls

_DEFAULTS = {NAMES[f.name]: "" if f.name == "prompt" else f.default for f in fields(Controls)}  # in their order

WRITE_URL = """
(mixer, ...controls) => {
  const defaults = DEFAULTS;
  const setting = (pairs) => pairs.filter(([, m]) => m !== 0).map(([slug, m]) => `${slug}:${m}`).join(',');
  const query = new URLSearchParams();
  query.set('v', setting(mixer.sliders.map((s) => [s.slug, s.multiplier])));
  if (mixer.active) query.set('active', mixer.active);
  for (const pin of mixer.pins) {
    query.append('pin', setting(Object.entries(pin.setting)) + (pin.name ? `;${pin.name}` : ''));
  }
  for (const id of mixer.hidden) query.append('hide', id);
  Object.keys(defaults).forEach((name, i) => {
    const value = typeof controls[i] === 'boolean' ? Number(controls[i]) : controls[i] ?? 0;
    const usual = typeof defaults[name] === 'boolean' ? Number(defaults[name]) : defaults[name];
    if (value !== usual) query.set(name, value);
  });
  query.set('model', mixer.model);
  const kept = new URLSearchParams(location.search).get('__theme');
  if (kept) query.set('__theme', kept);
  const long = query.toString().length >= 6000;
  if (long) query.delete('p');
  document.querySelector('#copy-link').dataset.left = long ? ', without the long prompt' : '';
  history.replaceState(null, '', `${location.pathname}?${query}`);
}
""".replace("DEFAULTS", json.dumps(_DEFAULTS))

COPY_URL = """
async () => {
  const button = document.querySelector('#copy-link');
  const done = (text) => { button.textContent = text; setTimeout(() => { button.textContent = 'Copy link'; }, 1500); };
  try { await navigator.clipboard.writeText(location.href); done(`Link copied${button.dataset.left || ''}`); }
  catch { window.prompt('Copy this link:', location.href); }
}
"""


@dataclass(frozen=True)
class Pin:
    """A setting frozen as a column; `name` is empty where its setting is title enough."""

    setting: dict[str, float]
    name: str = ""


@dataclass(frozen=True)
class Link:
    """What an address says; None or empty where it says nothing."""

    given: bool = False
    multipliers: dict[str, float] = field(default_factory=dict)
    active: str = ""
    pins: list[Pin] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    model: str = ""
    controls: dict[str, str | float] = field(default_factory=dict)

    def over(self, usual: Controls) -> Controls:
        """The usual controls, with what the address says in their place."""
        said: dict[str, object] = {}
        for name, value in self.controls.items():
            default = getattr(Controls, name, "")
            if isinstance(default, bool):
                said[name] = value == 1
            elif name in RANGES:
                low, high = RANGES[name]
                said[name] = type(default)(min(high, max(low, value)))
            elif name != "mode" or value in ("compare", "sweep"):
                said[name] = value
        return replace(usual, **said)


def read(query: Mapping[str, str]) -> Link:
    """Read an address's query; whatever is unsound in it is left out, so that an old link still opens the page."""

    def every(name: str) -> list[str]:
        return query.getlist(name) if hasattr(query, "getlist") else []

    controls: dict[str, str | float] = {}
    for control, name in NAMES.items():
        if name in query:
            text = control == "prompt" or isinstance(getattr(Controls, control), str)
            value = query[name] if text else _number(query[name])
            if value is not None:
                controls[control] = value
    pins = [Pin(_setting(setting), name[:60]) for setting, _, name in (pin.partition(";") for pin in every("pin"))]
    return Link(
        given="v" in query,
        multipliers=_setting(query.get("v", "")),
        active=query.get("active", ""),
        pins=[pin for pin in pins if pin.setting],
        hidden=every("hide")[:8],
        model=query.get("model", ""),
        controls=controls,
    )


def _setting(text: str) -> dict[str, float]:
    parts = (part.rpartition(":") for part in text.split(",")[:64])
    numbers = {slug: _number(number) for slug, _, number in parts if slug}
    return {slug: max(-100.0, min(100.0, number)) for slug, number in numbers.items() if number}


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
