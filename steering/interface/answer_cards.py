"""Answers side by side, as cards that fill while the model decodes: their values, and reading them back from a browser.

`assets/answer-cards.js` draws them.
"""

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

UPDATES_PER_SECOND = 12  # smooth to the eye; each update sends all cards
MIN_REPEATED_SHOWN = 0.05  # a lesser share of repeated four-word runs is common in sound text
FOOT_HINT = (
    "Perplexity: how surprising the untouched model finds this text, per word; its own answers have 3 to 6. "
    "Repeated: share of four-word runs that stood in it before."
)
MOST_TURNS = 20  # bounds on what a browser may send; the model's own limit counts tokens
LONGEST_TURN = 20_000  # characters
MOST_ANSWERS = 16  # of one turn: columns come and go between turns
LONGEST_ID = 20  # characters of a column's id

Card = dict[str, Any]


def columns_panel(value: dict[str, Any] | None = None, **options: Any) -> gr.HTML:
    """Make the component that shows cards. Fires `edit` with the number of a turn in its value's "edit".

    Its value: {"columns": [card], "strip": answers over the active slider's range or None, "turns": [{user, answers}],
    "asked": the prompt now answered, "note": text above them, "problem": what went wrong, "marks": whether words are
    marked}; a card is what `card` makes.
    """
    return widget(value or message(), "answer-cards", **options)


def message(note: str = "", problem: str = "", **more: Any) -> dict[str, Any]:
    """Make a value of the panel with no columns, only words."""
    return {"columns": [], "strip": None, "turns": [], "asked": "", "marks": False} | {
        "note": note,
        "problem": problem,
        **more,
    }


def card(
    id: str, kind: str, title: str, column: Column | None, *, stopped: bool = False, baseline: Column | None = None
) -> Card:
    """Make the card of one column; None is a column that has no token yet.

    Args:
        id: the column's place on the page; `kind`: its colour (baseline, setting, opposite, pin); `title`: above it.
        column: what is decoded so far.
        stopped: whether its run was stopped.
        baseline: the untouched model's column of the same run, against which its fluency is judged.
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
    """Say that a column has broken down, and at which multiplier it was last sound; empty without a reason."""
    if not reason:
        return ""
    where = "" if last_sound is None else f" Last sound at {signed(last_sound)}."
    return f"Broken down: this answer {reason}.{where}"


def cards(columns: Sequence[Column], kinds: Sequence[str], note: str = "") -> dict[str, Any]:
    """Make a whole value of the panel for columns that need nothing but a title and a colour."""
    made = [card(f"{kind}:{i}", kind, c.title, c) for i, (c, kind) in enumerate(zip(columns, kinds, strict=True))]
    return message(note, columns=made)


def pieces(column: Column) -> list[list[Any]] | None:
    """[text, untouched, steered] of every token of a traced column, with its two probabilities; None if not traced."""
    if not column.trace:
        return None
    return [[chance.text, float(f"{chance.untouched:.3g}"), float(f"{chance.steered:.3g}")] for chance in column.trace]


def throttled(
    updates: Iterable[list[Column] | int], per_second: float = UPDATES_PER_SECOND
) -> Iterator[list[Column] | int]:
    """Thin a stream's snapshots out to so many a second; keep the first, the last, and every place in the queue."""
    latest_at = 0.0
    pending = None
    for update in updates:
        if isinstance(update, int):
            yield update
        elif time.monotonic() - latest_at >= 1 / per_second:
            latest_at, pending = time.monotonic(), None
            yield update
        else:
            pending = update
    if pending is not None:
        yield pending


def read_turns(value: Any) -> list[dict[str, Any]]:
    """Read the conversation from a value a browser sent: [{"user": text, "answers": {column id: text}}].

    Raises SteeringError for what is no conversation, or one of too many turns.
    """
    try:
        turns = [
            {
                "user": str(turn["user"])[:LONGEST_TURN],
                "answers": {
                    str(id)[:LONGEST_ID]: str(text)[:LONGEST_TURN]
                    for id, text in list(turn["answers"].items())[:MOST_ANSWERS]
                },
            }
            for turn in (value or {}).get("turns") or []
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise SteeringError("The conversation sent is unreadable; reload the page.") from error
    if len(turns) > MOST_TURNS:
        raise SteeringError(f"The conversation has {len(turns)} turns and {MOST_TURNS} are the most; start a new one.")
    return turns


def cards_of(value: Any) -> dict[str, Card]:
    """Read the cards from a value a browser sent, by id; those that could not be shown again are left out."""
    cards = value.get("columns") if isinstance(value, dict) else None
    return {str(card["id"]): card for card in cards if is_card(card)} if isinstance(cards, list) else {}


def is_card(card: Any) -> bool:
    """Whether what a browser sent has the fields of a card that this module reads."""
    texts = ("id", "text", "broken", "foot", "warning")
    return (
        isinstance(card, dict)
        and all(isinstance(card.get(name), str) for name in texts)
        and isinstance(card.get("multipliers"), dict)
    )


def history(turns: Sequence[dict[str, Any]], id: str) -> Conversation:
    """Return the conversation of one column: the user's turns and the column's own answers.

    Where the column was not there yet, the setting's answer stands in, then the baseline's, then any.
    """
    conversation: list[tuple[str, str]] = []
    for turn in turns:
        answers = turn["answers"]
        own = next((answers[name] for name in (id, "setting", "baseline") if name in answers), None)
        conversation.append(("user", turn["user"]))
        conversation.append(("assistant", next(iter(answers.values()), "") if own is None else own))
    return conversation


def _foot(column: Column | None, stopped: bool, judged: Fluency | None) -> str:
    if column is None or not column.tokens:
        return "waiting for the first word" if not stopped else "stopped"
    parts = [f"{column.tokens} tokens", f"{column.tokens_per_second:.0f} per second"]
    if judged:
        parts.append(f"perplexity {judged.perplexity:.1f}")
        if judged.repeated >= MIN_REPEATED_SHOWN:
            parts.append(f"{100 * judged.repeated:.0f} % repeated")
    if stopped and not column.finished:
        parts.append("stopped")
    return " · ".join(parts)
