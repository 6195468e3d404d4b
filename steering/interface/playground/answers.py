"""One Generate: which columns are wanted, which of them the page has already, the others written; then the strip."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from steering.errors import SteeringError
from steering.evaluation.fluency import Fluency, last_sound
from steering.generation.results import Column
from steering.interface.answer_cards import (
    Card,
    card,
    cards_of,
    history,
    is_card,
    message,
    read_turns,
    throttled,
    warning,
)
from steering.interface.app_state import AppState, Run
from steering.interface.playground.controls import SWEEP, Controls
from steering.interface.playground.sliders import MAX_COLUMNS, RANGE, Mixer, Multipliers, fitting, setting_of, title_of

SWEPT = (-2.0, -1.0, 0.0, 1.0, 2.0)
STOPS = tuple(RANGE * step / 4 for step in range(-4, 5))
"""Multipliers of the strip."""
STRIP_UPDATES = 3
"""A second: it is prepared beside what is being read."""


@dataclass(frozen=True)
class Wanted:
    """A column to show: `id` is its place in the comparison, which outlives its setting; `kind` its colour."""

    id: str
    kind: str
    title: str
    multipliers: Multipliers


def answer(
    app: AppState, mixer: Mixer, controls: Controls, shown: Any, run: Run, *, fresh: bool
) -> Iterator[dict[str, Any]]:
    """Values of the columns panel, the first at once, until all is written.

    Args:
        shown: the panel's present value, as the browser sent it; columns it has of the same prompt, setting and
            sampling are not written again, unless `fresh`.

    Raises SteeringError for bad input.
    """
    names = {entry.slug: entry.vector.name for entry in fitting(app)}
    wanted = columns_of(mixer, controls.mode, names)
    turns = read_turns(shown)
    page = _Page(app, controls, turns, run, wanted)
    known = {} if fresh else page.known(shown)
    slug = mixer.active if mixer.active in names else next(iter(mixer.multipliers), "")
    others = {other: m for other, m in mixer.multipliers.items() if other != slug}
    with_strip = controls.strip and slug in names and controls.mode != SWEEP
    if with_strip and known:
        page.keep_strip(shown.get("strip"), slug, mixer.multipliers.get(slug, 0.0), others)
    yield from page.write_columns(known)
    if with_strip and not run.over():
        yield from page.write_strip(slug, names[slug], mixer.multipliers.get(slug, 0.0), others, known)


def columns_of(mixer: Mixer, mode: str, names: dict[str, str]) -> list[Wanted]:
    """The columns to show; equal settings are shown once, as the pin if one is."""
    multipliers = mixer.multipliers
    if mode == SWEEP:
        swept = mixer.active or next(iter(multipliers), "") or next(iter(names), "")
        if not swept:
            raise SteeringError("There is no vector to sweep yet; make one in the Train tab.")
        settings = [("baseline" if not m else "setting" if m > 0 else "opposite", {swept: m}) for m in SWEPT]
        wanted = [Wanted(f"sweep:{m[swept]:g}", kind, title_of(m, names), _moved(m)) for kind, m in settings]
    else:
        wanted = [Wanted("baseline", "baseline", "baseline", {})]
        if multipliers:
            opposite = {slug: -m for slug, m in multipliers.items()}
            wanted.append(Wanted("setting", "setting", title_of(multipliers, names), multipliers))
            wanted.append(Wanted("opposite", "opposite", title_of(opposite, names), opposite))
        wanted = [column for column in wanted if column.id not in mixer.hidden]
    for place, pin in enumerate(mixer.pins):
        pinned = Wanted(f"pin:{place}", "pin", pin.name or title_of(pin.setting, names), _moved(pin.setting))
        same = [i for i, column in enumerate(wanted) if column.multipliers == pinned.multipliers]
        if same:
            wanted[same[0]] = pinned
        else:
            wanted.append(pinned)
    if not wanted:
        raise SteeringError("Every column is hidden; show one again, or move a slider.")
    return wanted[:MAX_COLUMNS]


class _Page:
    """The value that is being made."""

    def __init__(
        self, app: AppState, controls: Controls, turns: list[dict[str, Any]], run: Run, wanted: Sequence[Wanted]
    ) -> None:
        self.app, self.controls, self.turns, self.run, self.wanted = app, controls, turns, run, wanted
        shelf = [(entry.slug, entry.path.stat().st_mtime_ns) for entry in fitting(app)]  # as it is now
        self.key = _hash([controls.prompt, controls.system, controls.weights, repr(controls.sampling), turns, shelf])
        run_of = {"system": controls.system, "weights": controls.weights, "sampling": vars(controls.sampling)}
        self.value = message(turns=turns, asked=controls.prompt, marks=controls.marks, key=self.key, run=run_of)

    def known(self, shown: Any) -> dict[str, Card]:
        """The finished columns that the browser has of this very question, by what makes them what they are."""
        if not isinstance(shown, dict) or shown.get("key") != self.key:
            return {}
        strip = shown.get("strip")
        stops = strip.get("stops") if isinstance(strip, dict) else None
        every = [*cards_of(shown).values(), *(filter(is_card, stops) if isinstance(stops, list) else ())]
        return {
            self._name(old["id"], old["multipliers"]): old
            for old in every
            if old.get("done") is True and (old.get("pieces") or not self.controls.marks)
        }

    def keep_strip(self, strip: Any, slug: str, multiplier: float, others: Multipliers) -> None:
        """Let the strip that the browser has stand, if it is still the right one."""
        if isinstance(strip, dict) and strip.get("key") == self._strip_key(slug, others):
            self.value = {**self.value, "strip": {**strip, "multiplier": multiplier}}

    def _strip_key(self, slug: str, others: Multipliers) -> str:
        return _hash([self.key, slug, sorted(others.items())])

    def write_columns(self, known: dict[str, Card]) -> Iterator[dict[str, Any]]:
        names = {column.id: self._name(column.id, column.multipliers) for column in self.wanted}
        have = {id: known[name] for id, name in names.items() if name in known}
        missing = [column for column in self.wanted if column.id not in have]

        def told(written: Sequence[Column], *, stopped: bool = False) -> dict[str, Any]:
            by_id = dict(zip((column.id for column in missing), written, strict=False))
            baseline = next((by_id[c.id] for c in missing if not c.multipliers and c.id in by_id), None)
            columns = []
            for column in self.wanted:
                new = by_id.get(column.id)
                dress = {"id": column.id, "kind": column.kind, "title": column.title, "multipliers": column.multipliers}
                if column.id in have:
                    columns.append(have[column.id] | dress)
                    continue
                made = card(column.id, column.kind, column.title, new, stopped=stopped, baseline=baseline)
                columns.append(made | dress)
            self.value = {**self.value, "columns": columns}
            return self.value

        if not missing:
            yield told([])
            return
        latest: list[Column] = []
        queued = False
        for news in throttled(self._stream([(column.id, column.multipliers) for column in missing])):
            if self.run.superseded():
                return
            if isinstance(news, int):
                if news > 1 or queued:  # even an idle server has a queue, for a moment
                    queued = True
                    yield {**told([]), "note": waiting(news)}
            else:
                latest = news
                yield told(latest)
        if self.run.stopped() and not self.run.superseded():
            yield told(latest, stopped=True)

    def write_strip(
        self, slug: str, name: str, multiplier: float, others: Multipliers, known: dict[str, Card]
    ) -> Iterator[dict[str, Any]]:
        """The active vector's whole range; the other vectors stay where they are."""
        for column in self.value["columns"]:
            if column["done"]:
                known = {**known, self._name("setting", column["multipliers"]): column} if not self.turns else known
        stops: list[Card] = []
        empty = card("setting", "setting", "", None)
        for stop in STOPS:
            multipliers = _moved({**others, slug: stop})
            old = known.get(self._name("setting", multipliers), {})
            kept = {field: old.get(field, unset) for field, unset in empty.items()} | {"id": "setting"}
            stops.append({**kept, "multiplier": stop, "multipliers": multipliers})
        strip = {"slug": slug, "name": name, "multiplier": multiplier, "key": self._strip_key(slug, others)}
        missing = [place for place, stop in enumerate(stops) if not stop["done"]]

        def told(*, ended: bool = False) -> dict[str, Any]:
            self.value = {**self.value, "strip": {**strip, "stops": list(stops), "ended": ended}, "note": ""}
            return self.value

        if not missing:
            yield told(ended=True)
            return
        written = self._stream([("setting", stops[place]["multipliers"]) for place in missing])
        for news in throttled(written, STRIP_UPDATES):
            if self.run.superseded():
                return
            if isinstance(news, int):
                continue
            for place, column in zip(missing, news, strict=True):
                made = card("setting", "setting", "", column)
                later = {} if column.finished else {"pieces": None, "warning": ""}  # too much to send at each step
                stops[place] = stops[place] | made | later
            yield told()
        self._tell_last_sound(stops, slug, others)
        yield told(ended=True)

    def _tell_last_sound(self, stops: list[Card], slug: str, others: Multipliers) -> None:
        """Where a column has broken down, say how far the vector goes without."""
        judged = {stop["multiplier"]: Fluency(0, 0, 0, str(stop["broken"])) for stop in stops if stop["done"]}

        def told(reason: str, multiplier: float) -> str:
            return warning(reason, last_sound(judged, multiplier))

        for place, stop in enumerate(stops):
            stops[place] = stop | {"warning": told(stop["broken"], stop["multiplier"])}
        columns = []
        for column in self.value["columns"]:
            rest = {other: m for other, m in column["multipliers"].items() if other != slug}
            if column["broken"] and rest == others:
                column = {**column, "warning": told(column["broken"], column["multipliers"].get(slug, 0.0))}
            columns.append(column)
        self.value = {**self.value, "columns": columns}

    def _stream(self, asked: Sequence[tuple[str, Multipliers]]) -> Iterator[list[Column] | int]:
        return self.app.decode_server(self.controls.weights).stream(
            self.controls.prompt,
            [setting_of(self.app, multipliers) for _, multipliers in asked],
            system=self.controls.system,
            histories=[history(self.turns, id) for id, _ in asked],
            sampling=self.controls.sampling,
            trace=self.controls.marks,
            should_stop=self.run.over,
        )

    def _name(self, id: str, multipliers: Multipliers) -> str:
        """What makes a column what it is; in a conversation also whose history it has."""
        return json.dumps([sorted(multipliers.items()), id if self.turns else ""])


def waiting(place: int) -> str:
    """Words for a place in the queue."""
    if not place:
        return ""
    before = "yours is next" if place == 1 else f"{place - 1} wait{'s' * (place == 2)} before you"
    return f"Others are being answered; {before}."


def _moved(multipliers: Multipliers) -> Multipliers:
    return {slug: m for slug, m in multipliers.items() if m}


def _hash(what: Any) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
