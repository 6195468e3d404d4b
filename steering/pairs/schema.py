"""One row of preference pairs: which columns hold what, which shapes it can have, whether it can be used."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from steering.errors import SteeringError

MAX_CHARACTERS = 20_000  # of any one text of a pair
CHAT_ROLES = ("system", "user", "assistant")
ROLES = ("prompt", "chosen", "rejected")
PROMPT_NAMES = ("prompt", "question")
ANSWER_NAMES = (  # chosen, rejected
    ("chosen", "rejected"),
    ("matching", "not_matching"),
    ("answer_matching_behavior", "answer_not_matching_behavior"),
)


class Message(NamedTuple):
    """One turn of a conversation; `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """One conversation and two answers to it. All texts are kept exactly as they came, white space included.

    prompt: the last user message.
    chosen: the answer that shows the behavior; rejected: the one that shows its opposite.
    before: the turns before the prompt, usually none; may open with a system message.
    line: where the pair came from, a line of the file or a row (1-based); 0 if from nowhere. Not compared.
    """

    prompt: str
    chosen: str
    rejected: str
    before: tuple[Message, ...] = ()
    line: int = field(default=0, compare=False)

    @property
    def conversation(self) -> tuple[Message, ...]:
        """What is asked: `before`, then the prompt."""
        return (*self.before, Message("user", self.prompt))


class BadRow(Exception):
    """This row cannot be used. The message is the reason reported; what differs from row to row stands in brackets."""


class Fields(NamedTuple):
    """What one row holds for each role, unchecked; None where it holds nothing."""

    prompt: Any
    chosen: Any
    rejected: Any


Row = tuple[int, Fields | str]  # where the row starts; its fields, or why it has none


# Columns -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Layout:
    """Which column holds what. With `letter`, that column says by `A` or `B` which of the two answers is chosen."""

    prompt: str | None = "prompt"
    chosen: str = "chosen"
    rejected: str = "rejected"
    letter: str | None = None

    def fields(self, cells: Mapping[str, Any] | str) -> Fields | str:
        """The fields among the cells of a row, or why there are none (which `cells` may say already)."""
        if isinstance(cells, str):
            return cells
        prompt = None if self.prompt is None else cells.get(self.prompt)
        first, second = cells.get(self.chosen), cells.get(self.rejected)
        if self.letter is None:
            return Fields(prompt, first, second)
        match str(cells.get(self.letter)).strip().upper():
            case "A":
                return Fields(prompt, first, second)
            case "B":
                return Fields(prompt, second, first)
        return f"{self.letter} is neither A nor B"

    def used(self) -> list[str]:
        return [name for name in (self.prompt, self.chosen, self.rejected, self.letter) if name is not None]

    def columns(self) -> dict[str, str]:
        """Role -> column, for people to read."""
        either = f"{self.chosen} or {self.rejected}, as {self.letter} says" if self.letter else ""
        prompt = {} if self.prompt is None else {"prompt": self.prompt}
        return prompt | {"chosen": either or self.chosen, "rejected": either or self.rejected}


def find_layout(names: Iterable[str], columns: Mapping[str, str], source: str, *, conversations: bool) -> Layout:
    """Find the columns of `source` among `names`; `columns` maps roles to names the caller is sure of.

    Where a field can hold a whole conversation, the column of the prompt may be missing. SteeringError if not found.
    """
    names = list(names)
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(_plain(name), []).append(name)

    wanted = {role: _plain(name) for role, name in columns.items()}
    if unknown := [role for role in wanted if role not in ROLES]:
        raise SteeringError(f"columns: {unknown[0]!r} is none of the things to look for; use {', '.join(ROLES)}.")
    if absent := [role for role, name in wanted.items() if name not in found]:
        missing = columns[absent[0]]
        raise SteeringError(f"{source}: there is no column {missing!r}; choose among {listed(names)}.")

    prompt = wanted.get("prompt") or next((name for name in PROMPT_NAMES if name in found), None)
    answers = [(wanted.get("chosen", chosen), wanted.get("rejected", rejected)) for chosen, rejected in ANSWER_NAMES]
    pair = next((pair for pair in answers if found.keys() >= {*pair}), None)
    letter = None
    if pair is None and not wanted.keys() & {"chosen", "rejected"} and found.keys() >= {"a", "b", "matching"}:
        pair, letter = ("a", "b"), "matching"  # BiPO's test_infer.csv
    if pair is None or (prompt is None and not conversations):
        accepted = ", or ".join(" and ".join(pair) for pair in ANSWER_NAMES)
        raise SteeringError(
            f"{source}: cannot tell which columns hold prompt, chosen and rejected among {listed(names)}; name the "
            f"first {' or '.join(PROMPT_NAMES)} and the others {accepted}, or say which is which with "
            "--columns prompt=Q,chosen=A,rejected=B."
        )

    def original(name: str) -> str:
        if len(found[name]) > 1:
            raise SteeringError(f"{source}: more than one column is named {name!r}; rename the others.")
        return found[name][0]

    chosen, rejected = map(original, pair)
    return Layout(prompt and original(prompt), chosen, rejected, letter and original(letter))


def listed(names: list[str]) -> str:
    """Names in quotes, shortened: they may be anything, even a whole text when a file has no header."""
    shown = [repr(name if len(name) <= 40 else name[:39] + "…") for name in names[:12]]
    return ", ".join(shown) + (f" and {len(names) - 12:,} more" if len(names) > 12 else "")


def _plain(name: str) -> str:
    return name.strip().casefold()


# Shapes --------------------------------------------------------------------------------------------------------------


def pair_of(line: int, row: Fields | str) -> PreferencePair:
    """A row as a pair, still to be checked. Its fields are texts, or conversations that may repeat the prompt.

    Raises BadRow if it has another shape.
    """
    if isinstance(row, str):
        raise BadRow(row)
    chosen_head, chosen = _answer("chosen", row.chosen)
    rejected_head, rejected = _answer("rejected", row.rejected)
    heads = [head for head in (chosen_head, rejected_head) if head]
    if row.prompt is None and len(heads) == 2:  # TRL's implicit prompt: what both conversations begin with
        asked = heads[0]
    else:
        prompt = _messages("prompt", row.prompt, "user")
        asked = heads[0] if heads else prompt
        if asked[-len(prompt) :] != prompt:
            raise BadRow("chosen or rejected is a conversation, but its last message does not follow the prompt")
    if any(head != asked for head in heads):
        raise BadRow("chosen and rejected are conversations that differ before their last message")
    if asked[-1].role != "user":
        raise BadRow("prompt does not end with a user message")
    return PreferencePair(asked[-1].content, chosen, rejected, asked[:-1], line)


def _answer(name: str, value: Any) -> tuple[tuple[Message, ...], str]:
    """(the conversation that leads to an answer, empty if the field holds the answer alone; the answer)"""
    *head, last = _messages(name, value, "assistant")
    if last.role != "assistant":
        raise BadRow(f"{name} does not end with an assistant message")
    return tuple(head), last.content


def _messages(name: str, value: Any, role: str) -> tuple[Message, ...]:
    """A field as messages, at least one; a text is one message of the given role."""
    if isinstance(value, str):
        return (Message(role, value),)
    if not isinstance(value, list) or not value:
        raise BadRow(f"{name} is not text ({kind(value)})")
    if not all(isinstance(item, dict) and item.get("role") in CHAT_ROLES for item in value):
        raise BadRow(f"{name} is not text (nor a list of messages with role {', '.join(CHAT_ROLES)})")
    return tuple(Message(item["role"], item.get("content")) for item in value)


# Contents ------------------------------------------------------------------------------------------------------------


def check(pair: PreferencePair) -> None:
    """Raises BadRow if a model could not be trained on this pair."""
    for message in pair.before:  # may be empty: some chats are recorded with an empty system message
        _check_text("a message before the prompt", message.content)
    for name in ROLES:
        text = getattr(pair, name)
        _check_text(name, text)
        if not text.strip():
            raise BadRow(f"{name} is empty")
    if pair.chosen.strip() == pair.rejected.strip():
        raise BadRow("chosen equals rejected")


def _check_text(name: str, text: Any) -> None:
    if not isinstance(text, str):
        raise BadRow(f"{name} is not text ({kind(text)})")
    if len(text) > MAX_CHARACTERS:
        raise BadRow(f"{name} is too long ({len(text):,} characters instead of at most {MAX_CHARACTERS:,})")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair, which JSON can spell: no tokenizer takes it
        raise BadRow(f"{name} holds a broken character (number {error.start + 1:,})") from error


def kind(value: Any) -> str:
    """What `value` is, in plain words."""
    kinds = {type(None): "missing or null", bool: "true or false", int: "a number", float: "a number"}
    kinds |= {str: "a text", list: "a list", dict: "an object"}
    return kinds.get(type(value), type(value).__name__)
