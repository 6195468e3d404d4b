"""One Generate: which columns to show, which of them the page has already, the others decoded; then the strip.

The strip is one answer for each stop of the active slider, the other sliders left where they are, so
that dragging that slider flips through whole answers without a request to the server.
"""

import hashlib
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
from steering.interface.app_state import Visit
from steering.interface.html import signed
from steering.interface.playground.columns import ColumnSpec, columns_of, without_zeros
from steering.interface.playground.controls import SLIDER_STEP, STRIP_STOPS, SWEEP, Controls
from steering.interface.playground.sliders import (
    Multipliers,
    SliderPanel,
    fitting,
    most_columns,
    names_of,
    slider_ends,
)
from steering.interface.runs import Run

STRIP_UPDATES_PER_SECOND = 3  # it is prepared while the columns are read; each update sends nine answers


def answer(
    visit: Visit, panel: SliderPanel, controls: Controls, answers_value: Any, run: Run, *, fresh: bool
) -> Generator[dict[str, Any], None, None]:
    """Yield values of the columns panel, the first at once, until all answers are there.

    Args:
        visit: the model and the visitor's shelf.
        panel: the sliders.
        controls: the other controls.
        answers_value: the columns panel's present value, as the browser sent it; columns it has of the same prompt,
            setting and sampling are not decoded again, unless `fresh`.
        run: asked between tokens whether to go on.
        fresh: whether to decode every column again.

    Raises SteeringError for bad input.
    """
    names = names_of(visit)
    specs = columns_of(panel, controls.mode, names, most_columns(visit))
    writer = PanelWriter(visit, controls, read_turns(answers_value), run, specs)
    cached = {} if fresh else writer.cached_cards(answers_value)
    strip = Strip.of(panel, names, visit)
    with_strip = controls.strip and strip.slug in names and controls.mode != SWEEP
    if with_strip and cached:
        writer.reuse_strip(answers_value.get("strip"), strip)
    yield from writer.write_columns(cached)
    if with_strip and not run.over():
        yield from writer.write_strip(strip, cached)


@dataclass(frozen=True)
class Strip:
    """What the strip shows.

    Attributes:
        slug, name, multiplier: of the active vector; others: the other sliders' multipliers.
        ends: of its slider, as far as it reaches at present.
    """

    slug: str
    name: str
    multiplier: float
    others: Multipliers
    ends: tuple[float, float]

    @classmethod
    def of(cls, panel: SliderPanel, names: Mapping[str, str], visit: Visit) -> "Strip":
        """Return the strip of the slider that was moved last."""
        active = panel.active if panel.active in names else next(iter(panel.multipliers), "")
        others = {slug: m for slug, m in panel.multipliers.items() if slug != active}
        multiplier = panel.multipliers.get(active, 0.0)
        vector = next((entry.vector for entry in fitting(visit) if entry.slug == active), None)
        ends = slider_ends(vector) if vector else {"low": 0.0, "high": 0.0}
        low, high = min(ends["low"], multiplier), max(ends["high"], multiplier)  # a number may have been typed beyond
        return cls(active, names.get(active, ""), multiplier, others, (low, high))

    @property
    def stops(self) -> list[float]:
        """The multipliers of the stops, in order, on the slider's steps: nine, or fewer of a short slider."""
        shares = [step / STRIP_STOPS for step in range(STRIP_STOPS + 1)]
        raw = [end * share for end in self.ends for share in shares]
        return sorted({0.0 + SLIDER_STEP * round(m / SLIDER_STEP) for m in raw} | set(self.ends))


class PanelWriter:
    """Makes the values of the columns panel for one Generate; `value` is the latest."""

    def __init__(
        self, visit: Visit, controls: Controls, turns: list[dict[str, Any]], run: Run, specs: Sequence[ColumnSpec]
    ) -> None:
        self.visit, self.controls, self.turns, self.run, self.specs = visit, controls, turns, run, specs
        self.in_use = visit.in_use  # the columns of one Generate come from one model
        shelf = [(entry.slug, entry.path.stat().st_mtime_ns) for entry in fitting(visit)]  # as it is now
        asked = [controls.prompt, controls.system, controls.weights, repr(controls.sampling), turns]
        self.key = _hash([*asked, shelf, self.in_use.generation])
        run_of = {"system": controls.system, "weights": controls.weights, "sampling": vars(controls.sampling)}
        self.value = message(turns=turns, asked=controls.prompt, marks=controls.marks, key=self.key, run=run_of)

    def cached_cards(self, answers_value: Any) -> dict[str, Card]:
        """Return the finished cards that the browser has of this prompt and sampling, by `_card_key`."""
        if not isinstance(answers_value, dict) or answers_value.get("key") != self.key:
            return {}
        strip = answers_value.get("strip")
        stops = strip.get("stops") if isinstance(strip, dict) else None
        cards = [*cards_of(answers_value).values(), *(filter(is_card, stops) if isinstance(stops, list) else ())]
        return {
            self._card_key(card["id"], card["multipliers"]): card
            for card in cards
            if card.get("done") is True and (card.get("pieces") or not self.controls.marks)
        }

    def reuse_strip(self, shown_strip: Any, strip: Strip) -> None:
        """Leave the browser's strip where it is, if it is still the right one."""
        if isinstance(shown_strip, dict) and shown_strip.get("key") == self.strip_key(strip):
            self.value = {**self.value, "strip": {**shown_strip, "multiplier": strip.multiplier}}

    def write_columns(self, cached: dict[str, Card]) -> Iterator[dict[str, Any]]:
        """Decode the columns that are not cached, all in one batch; yield the panel's values."""
        ready = {c.id: card for c in self.specs if (card := cached.get(self._card_key(c.id, c.multipliers)))}
        missing = [column for column in self.specs if column.id not in ready]
        if not missing:
            yield self._with_columns(ready, {})
            return
        latest: dict[str, Column] = {}
        queued = False
        for update in throttled(self._stream([(column.id, column.multipliers) for column in missing])):
            if self.run.superseded():
                return
            if isinstance(update, int):
                if update > 1 or queued:  # even an idle server has a queue, for a moment
                    queued = True
                    yield {**self._with_columns(ready, {}), "note": waiting(update)}
            else:
                latest = {spec.id: column for spec, column in zip(missing, update, strict=True)}
                yield self._with_columns(ready, latest)
        if self.run.stopped() and not self.run.superseded():
            yield self._with_columns(ready, latest, stopped=True)

    def _with_columns(
        self, ready: dict[str, Card], decoded: dict[str, Column], *, stopped: bool = False
    ) -> dict[str, Any]:
        """Return the panel's value with a card for each column, cached or decoded so far, both by the columns' ids."""
        baseline = next((decoded[c.id] for c in self.specs if not c.multipliers and c.id in decoded), None)
        cards = []
        for spec in self.specs:
            made = ready.get(spec.id) or card(
                spec.id, spec.kind, spec.title, decoded.get(spec.id), stopped=stopped, baseline=baseline
            )
            cards.append(made | vars(spec))  # a cached card may have stood elsewhere
        self.value = {**self.value, "columns": cards}
        return self.value

    def write_strip(self, strip: Strip, cached: dict[str, Card]) -> Iterator[dict[str, Any]]:
        """Decode the stops that are not cached, all in one batch; yield the panel's values."""
        if not self.turns:  # in a conversation, each column goes on from answers of its own
            done = [card for card in self.value["columns"] if card["done"]]
            cached = cached | {self._card_key("setting", card["multipliers"]): card for card in done}
        stops = [self._stop(strip, multiplier, cached) for multiplier in strip.stops]
        unwritten = [place for place, stop in enumerate(stops) if not stop["done"]]
        together = self.visit.limits.columns or len(stops)
        for missing in (unwritten[start : start + together] for start in range(0, len(unwritten), together)):
            updates = self._stream([("setting", stops[place]["multipliers"]) for place in missing])
            for update in throttled(updates, STRIP_UPDATES_PER_SECOND):
                if self.run.superseded():
                    return
                if isinstance(update, int):
                    continue
                for place, column in zip(missing, update, strict=True):
                    made = card("setting", "setting", stops[place]["title"], column)
                    # Tokens' probabilities are too much to send at each step.
                    sent = made if column.finished else made | {"pieces": None, "warning": ""}
                    stops[place] = stops[place] | sent
                yield self._with_strip(strip, stops, ended=False)
        if unwritten:
            stops = self._warn_with_last_sound(strip, stops)
        yield self._with_strip(strip, stops, ended=True)

    def _stop(self, strip: Strip, multiplier: float, cached: dict[str, Card]) -> Card:
        multipliers = without_zeros({**strip.others, strip.slug: multiplier})
        empty = card("setting", "setting", "", None)
        old = cached.get(self._card_key("setting", multipliers), {})
        return {name: old.get(name, unset) for name, unset in empty.items()} | {
            "id": "setting",
            "title": f"{strip.name} {signed(multiplier)}",
            "multiplier": multiplier,
            "multipliers": multipliers,
        }

    def _with_strip(self, strip: Strip, stops: list[Card], *, ended: bool) -> dict[str, Any]:
        value = {"slug": strip.slug, "name": strip.name, "multiplier": strip.multiplier, "key": self.strip_key(strip)}
        self.value = {**self.value, "strip": {**value, "stops": list(stops), "ended": ended}, "note": ""}
        return self.value

    def _warn_with_last_sound(self, strip: Strip, stops: list[Card]) -> list[Card]:
        """Write into the stops, and into the columns of `value`, up to which multiplier the text stays sound."""
        judged = {stop["multiplier"]: Fluency(0, 0, 0, str(stop["broken"])) for stop in stops if stop["done"]}

        def warned(old: Card, multiplier: float) -> Card:
            return old | {"warning": warning(old["broken"], last_sound(judged, multiplier))}

        columns = []
        for column in self.value["columns"]:
            others = {slug: m for slug, m in column["multipliers"].items() if slug != strip.slug}
            if column["broken"] and others == strip.others:
                column = warned(column, column["multipliers"].get(strip.slug, 0.0))
            columns.append(column)
        self.value = {**self.value, "columns": columns}
        return [warned(stop, stop["multiplier"]) for stop in stops]

    def _stream(self, columns: Sequence[tuple[str, Multipliers]]) -> Iterator[list[Column] | int]:
        """Decode columns, each (id, multipliers), in one batch; yields snapshots and places in the queue."""
        return self.visit.app.decode_server(self.controls.weights).stream(
            self.controls.prompt,
            [self.visit.library.setting(multipliers) for _, multipliers in columns],
            system=self.controls.system,
            histories=[history(self.turns, id) for id, _ in columns],
            sampling=self.controls.sampling,
            trace=self.controls.marks,
            should_stop=self.in_use.until_changed(self.run.over),
        )

    def _card_key(self, id: str, multipliers: Multipliers) -> str:
        """Return the key of an answer: its multipliers, and in a conversation the column whose history it has."""
        return json.dumps([sorted(multipliers.items()), id if self.turns else ""])

    def strip_key(self, strip: Strip) -> str:
        """Return the key of the strip: it is the right one for as long as this stays."""
        return _hash([self.key, strip.slug, strip.ends, sorted(strip.others.items())])


def with_keys_of(
    visit: Visit, panel: SliderPanel, controls: Controls, written: dict[str, Any], run: Run
) -> dict[str, Any]:
    """Return a value of the columns panel that was written elsewhere, as if this page had written it.

    The answers must be those of this panel and these controls; nothing is decoded for them again.
    """
    names = names_of(visit)
    writer = PanelWriter(visit, controls, [], run, columns_of(panel, controls.mode, names, most_columns(visit)))
    strip = {**written["strip"], "key": writer.strip_key(Strip.of(panel, names, visit))}
    return {**written, "key": writer.key, "strip": strip}


def waiting(place: int) -> str:
    """Words for a place in the queue; none for place 0, whose turn it is."""
    if not place:
        return ""
    before = "yours is next" if place == 1 else f"{place - 1} wait{'s' * (place == 2)} before you"
    return f"Others are being answered; {before}."


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
