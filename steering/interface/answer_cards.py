"""Answers side by side, as cards that fill while the model writes."""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.evaluation.fluency import Fluency, fluency
from steering.generation.results import Column
from steering.interface.html import signed
from steering.interface.html_component import widget
from steering.models.chat_template import Conversation

UPDATES_PER_SECOND = 12  # a reader sees no more, and a browser is not kept busy
REPEATED_SHOWN = 0.05
FOOT_HINT = (
    "Perplexity: how surprising the untouched model finds this text, per word; its own answers have 3 to 6. "
    "Repeated: share of four-word runs that stood in it before."
)
MOST_TURNS = 20
LONGEST_TURN = 20_000  # characters

Card = dict[str, Any]


def columns_panel(value: dict[str, Any] | None = None, **options: Any) -> gr.HTML:
    """Value: {"columns": [card], "strip": the active slider's range or None, "turns": [{user, answers}], "asked": the
    prompt now answered, "note": text above them, "problem": what went wrong, "marks": whether words are marked}.

    A card is what `card` makes. Fires `edit` with the number of a turn in "edit".
    """
    return widget(value or message(), "columns", **options)


def message(note: str = "", problem: str = "", **more: Any) -> dict[str, Any]:
    """No columns, only words."""
    return {"columns": [], "strip": None, "turns": [], "asked": "", "marks": False} | {
        "note": note,
        "problem": problem,
        **more,
    }


def card(
    id: str, kind: str, title: str, column: Column | None, *, stopped: bool = False, baseline: Column | None = None
) -> Card:
    """One column as the page shows it; `kind` colours it (baseline, setting, opposite, pin).

    The baseline of the same run makes the judgement on its fluency relative.
    """
    written = {"text": "", "pieces": None} if column is None else {"text": column.text, "pieces": pieces(column)}
    finished = column is not None and column.finished
    judged = fluency(column, baseline if baseline and baseline.trace else None) if column and column.trace else None
    return {
        "id": id,
        "kind": kind,
        "title": title,
        **written,
        "foot": _foot(column, stopped, judged),
        "foot_hint": FOOT_HINT if judged else "",
        "fluency": vars(judged) if judged else None,
        "broken": judged.reason if judged else "",
        "warning": warning(judged.reason) if judged else "",
        "tokens": column.tokens if column else 0,
        "writing": not finished and not stopped,
        "done": finished,
    }


def warning(reason: str, last_sound: float | None = None) -> str:
    """Words for a column that has broken down."""
    if not reason:
        return ""
    where = "" if last_sound is None else f" Last sound at {signed(last_sound)}."
    return f"Broken down: this answer {reason}.{where}"


def cards(columns: Sequence[Column], kinds: Sequence[str], note: str = "") -> dict[str, Any]:
    """A whole value for columns that need nothing but a title and a colour."""
    shown = [card(f"{kind}:{i}", kind, c.title, c) for i, (c, kind) in enumerate(zip(columns, kinds, strict=True))]
    return message(note, columns=shown)


def pieces(column: Column) -> list[list[Any]] | None:
    """[text, untouched, steered] of every token of a traced column; None for one that is not."""
    if not column.trace:
        return None
    return [[chance.text, float(f"{chance.untouched:.3g}"), float(f"{chance.steered:.3g}")] for chance in column.trace]


def throttled(
    news: Iterable[list[Column] | int], per_second: float = UPDATES_PER_SECOND
) -> Iterator[list[Column] | int]:
    """At most so many of the snapshots, the first and the last always, and every place in the queue."""
    shown = 0.0
    pending = None
    for item in news:
        if isinstance(item, int):
            yield item
        elif time.monotonic() - shown >= 1 / per_second:
            shown, pending = time.monotonic(), None
            yield item
        else:
            pending = item
    if pending is not None:
        yield pending


def read_turns(value: Any) -> list[dict[str, Any]]:
    """The conversation so far, from a value a browser sent: [{"user": text, "answers": {column id: text}}]."""
    try:
        turns = [
            {
                "user": str(turn["user"])[:LONGEST_TURN],
                "answers": {str(id)[:20]: str(text)[:LONGEST_TURN] for id, text in list(turn["answers"].items())[:16]},
            }
            for turn in (value or {}).get("turns") or []
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise SteeringError("The conversation sent is unreadable; reload the page.") from error
    if len(turns) > MOST_TURNS:
        raise SteeringError(f"The conversation has {len(turns)} turns and {MOST_TURNS} are the most; start a new one.")
    return turns


def cards_of(value: Any) -> dict[str, Card]:
    """Cards by id, from a value a browser sent; only those that are sound enough to be shown again."""
    cards = value.get("columns") if isinstance(value, dict) else None
    return {str(card["id"]): card for card in cards if is_card(card)} if isinstance(cards, list) else {}


def is_card(card: Any) -> bool:
    texts = ("id", "text", "broken", "foot", "warning")
    return (
        isinstance(card, dict)
        and all(isinstance(card.get(name), str) for name in texts)
        and isinstance(card.get("multipliers"), dict)
    )


def history(turns: Sequence[dict[str, Any]], id: str) -> Conversation:
    """The turns as one column lived them; a column that was not there then takes over the setting's, or another's."""
    told: list[tuple[str, str]] = []
    for turn in turns:
        answers = turn["answers"]
        said = next((answers[name] for name in (id, "setting", "baseline") if name in answers), None)
        told.append(("user", turn["user"]))
        told.append(("assistant", next(iter(answers.values()), "") if said is None else said))
    return told


def _foot(column: Column | None, stopped: bool, judged: Fluency | None) -> str:
    if column is None or not column.tokens:
        return "waiting for the first word" if not stopped else "stopped"
    parts = [f"{column.tokens} tokens", f"{column.tokens_per_second:.0f} per second"]
    if judged:
        parts.append(f"perplexity {judged.perplexity:.1f}")
        if judged.repeated >= REPEATED_SHOWN:
            parts.append(f"{100 * judged.repeated:.0f} % repeated")
    if stopped and not column.finished:
        parts.append("stopped")
    return " · ".join(parts)
