"""The playground's state in the page's address: written by the browser, read by the server, stored nowhere.

?v=cheerful:1.5,formal:-1&pin=pirate:2&p=How+are+you&mode=sweep&sys=...&tokens=80&temperature=0&penalty=1.1&seed=0
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

WRITE_URL = """
(mixer, prompt, mode, system, tokens, temperature, penalty, seed) => {
  const setting = (pairs) => pairs.filter(([, m]) => m !== 0).map(([slug, m]) => `${slug}:${m}`).join(',');
  const query = new URLSearchParams();
  query.set('v', setting(mixer.sliders.map((s) => [s.slug, s.multiplier])));
  for (const pin of mixer.pins) query.append('pin', setting(Object.entries(pin.setting)));
  query.set('p', prompt);
  query.set('mode', mode);
  if (!system.startsWith('You are a helpful, honest and concise')) query.set('sys', system);
  query.set('tokens', tokens); query.set('temperature', temperature);
  query.set('penalty', penalty); query.set('seed', seed ?? 0);
  const kept = new URLSearchParams(location.search).get('__theme');
  if (kept) query.set('__theme', kept);
  const address = `${location.pathname}?${query}`;
  if (address.length < 6000) history.replaceState(null, '', address);
}
"""

COPY_URL = """
async () => {
  const button = document.querySelector('#copy-link');
  const done = (text) => { button.textContent = text; setTimeout(() => { button.textContent = 'Copy link'; }, 1500); };
  try { await navigator.clipboard.writeText(location.href); done('Link copied'); }
  catch { window.prompt('Copy this link:', location.href); }
}
"""


@dataclass(frozen=True)
class Link:
    """What an address says; None or empty where it says nothing."""

    given: bool = False
    multipliers: dict[str, float] = field(default_factory=dict)
    pins: list[dict[str, float]] = field(default_factory=list)
    prompt: str | None = None
    mode: str | None = None
    system: str | None = None
    numbers: dict[str, float] = field(default_factory=dict)

    def number(self, name: str, low: float, high: float, default: float) -> float:
        value = self.numbers.get(name, default)
        return min(high, max(low, value))


def read(query: Mapping[str, str]) -> Link:
    """Read an address's query; whatever is unsound in it is left out, so that an old link still opens the page."""
    pins = query.getlist("pin") if hasattr(query, "getlist") else []
    numbers = {name: _number(query[name]) for name in ("tokens", "temperature", "penalty", "seed") if name in query}
    return Link(
        given="v" in query,
        multipliers=_setting(query.get("v", "")),
        pins=[pin for pin in map(_setting, pins) if pin],
        prompt=query.get("p"),
        mode=query.get("mode"),
        system=query.get("sys"),
        numbers={name: value for name, value in numbers.items() if value is not None},
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
