"""From one row of a file to one preference pair: its columns, the shapes its fields can have, and its checks."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from steering.errors import SteeringError

MAX_CHARACTERS = 20_000
"""Of any one text of a pair: about 5,000 tokens, more than twice what the bundled model reads at once."""

CHAT_ROLES = ("system", "user", "assistant")
"""Who speaks in a turn of a conversation, as in the chat templates of transformers."""

PAIR_FIELDS = ("prompt", "chosen", "rejected")
"""The texts of a pair; layouts and `columns` arguments map them to columns."""

PROMPT_NAMES = ("prompt", "question")
"""Column names of the prompt: TRL's; BiPO's and CAA's."""

ANSWER_NAMES = (
    ("chosen", "rejected"),
    ("matching", "not_matching"),
    ("answer_matching_behavior", "answer_not_matching_behavior"),
)
"""Column names of (chosen, rejected): those of TRL, of BiPO's files, of CAA's."""


class Message(NamedTuple):
    """One turn of a conversation; `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """One conversation and two answers to it. All texts stay exactly as they came, white space included.

    Attributes:
        prompt: the last user message.
        chosen: the answer that shows the behavior.
        rejected: the answer that shows its opposite.
        before: the turns before the prompt, usually none; may open with a system message.
        line: where the pair came from, a line of the file or a row (1-based); 0 if made in memory. Not compared.
    """

    prompt: str
    chosen: str
    rejected: str
    before: tuple[Message, ...] = ()
    line: int = field(default=0, compare=False)

    @property
    def conversation(self) -> tuple[Message, ...]:
        """The turns that the answers reply to: `before`, then the prompt."""
        return (*self.before, Message("user", self.prompt))


class BadRow(Exception):
    """A row that cannot be used; the message says why, with what differs from row to row in brackets at its end."""


class RawFields(NamedTuple):
    """The values of one row for the fields of a pair, not yet checked: texts, lists of messages, or anything else.

    None where the row has no value.
    """

    prompt: Any
    chosen: Any
    rejected: Any


Record = tuple[int, Mapping[str, Any] | str]
"""(line or row number, 1-based; the row's cells by column, or the reason why it could not be parsed)"""

RawRow = tuple[int, RawFields | str]
"""(line or row number, 1-based; the row's fields, or the reason why it has none)"""


# Columns -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Layout:
    """Which column holds which field of a pair.

    Attributes:
        prompt: None where `chosen` and `rejected` hold whole conversations.
        chosen: with `letter`, the column of answer A.
        rejected: with `letter`, the column of answer B.
        letter: column that says by `A` or `B` which of the two answers is the chosen one (BiPO's test_infer.csv).
    """

    prompt: str | None = "prompt"
    chosen: str = "chosen"
    rejected: str = "rejected"
    letter: str | None = None

    def fields(self, cells: Mapping[str, Any] | str) -> RawFields | str:
        """Pick the fields out of a row's cells; return the reason where there are none.

        Args:
            cells: column -> value, or the reason why the row could not be parsed, which is returned as it is.
        """
        if isinstance(cells, str):
            return cells
        prompt = None if self.prompt is None else cells.get(self.prompt)
        first, second = cells.get(self.chosen), cells.get(self.rejected)
        if self.letter is None:
            return RawFields(prompt, first, second)
        match str(cells.get(self.letter)).strip().upper():
            case "A":
                return RawFields(prompt, first, second)
            case "B":
                return RawFields(prompt, second, first)
        return f"{self.letter} is neither A nor B"

    def rows(self, records: Iterable[Record]) -> Iterator[RawRow]:
        """Pick the fields of every record."""
        return ((number, self.fields(cells)) for number, cells in records)

    def used(self) -> list[str]:
        """List the columns to be read."""
        return [name for name in (self.prompt, self.chosen, self.rejected, self.letter) if name is not None]

    def columns(self) -> dict[str, str]:
        """Map the fields of a pair to their columns, for people to read."""
        either = f"{self.chosen} or {self.rejected}, as {self.letter} says" if self.letter else ""
        prompt = {} if self.prompt is None else {"prompt": self.prompt}
        return prompt | {"chosen": either or self.chosen, "rejected": either or self.rejected}


def find_layout(names: Iterable[str], columns: Mapping[str, str], source: str, *, conversations: bool) -> Layout:
    """Find out which columns hold prompt, chosen and rejected; upper and lower case do not matter.

    Args:
        names: all columns of the file.
        columns: field of a pair -> column, where the caller says so.
        source: the file's name, for error messages.
        conversations: whether cells can hold lists of messages, so that the column of the prompt may be missing.

    Raises:
        SteeringError: the names fit no known layout, or `columns` names a field or a column that does not exist.
    """
    names = list(names)
    originals: dict[str, list[str]] = {}  # normalised name -> names as they are written
    for name in names:
        originals.setdefault(_normalized(name), []).append(name)

    wanted = {role: _normalized(name) for role, name in columns.items()}
    if unknown := [role for role in wanted if role not in PAIR_FIELDS]:
        raise SteeringError(f"columns: {unknown[0]!r} is none of the things to look for; use {', '.join(PAIR_FIELDS)}.")
    if absent := [role for role, name in wanted.items() if name not in originals]:
        missing = columns[absent[0]]
        raise SteeringError(f"{source}: there is no column {missing!r}; choose among {quoted_list(names)}.")

    prompt = wanted.get("prompt") or next((name for name in PROMPT_NAMES if name in originals), None)
    answers = [(wanted.get("chosen", chosen), wanted.get("rejected", rejected)) for chosen, rejected in ANSWER_NAMES]
    pair = next((pair for pair in answers if originals.keys() >= {*pair}), None)
    letter = None
    if pair is None and not wanted.keys() & {"chosen", "rejected"} and originals.keys() >= {"a", "b", "matching"}:
        pair, letter = ("a", "b"), "matching"  # BiPO's test_infer.csv
    if pair is None or (prompt is None and not conversations):
        accepted = ", or ".join(" and ".join(pair) for pair in ANSWER_NAMES)
        raise SteeringError(
            f"{source}: cannot tell which columns hold prompt, chosen and rejected among {quoted_list(names)}; name "
            f"the first {' or '.join(PROMPT_NAMES)} and the others {accepted}, or say which is which with "
            "--columns prompt=Q,chosen=A,rejected=B."
        )

    def original(name: str) -> str:
        if len(originals[name]) > 1:
            raise SteeringError(f"{source}: more than one column is named {name!r}; rename the others.")
        return originals[name][0]

    chosen, rejected = map(original, pair)
    return Layout(prompt and original(prompt), chosen, rejected, letter and original(letter))


def quoted_list(names: list[str]) -> str:
    """Join names in quotes, shortened: a file without a header may have a whole text for a name."""
    quoted = [repr(name if len(name) <= 40 else name[:39] + "…") for name in names[:12]]
    return ", ".join(quoted) + (f" and {len(names) - 12:,} more" if len(names) > 12 else "")


def _normalized(name: str) -> str:
    return name.strip().casefold()


# Shapes --------------------------------------------------------------------------------------------------------------


def pair_of(line: int, row: RawFields | str) -> PreferencePair:
    """Make a pair of a row, its texts not yet checked (see `check`).

    A field is a text or a list of messages; a list in `chosen` and `rejected` may repeat the conversation that leads to
    the answer, and gives the prompt where the row has none (TRL's implicit prompt). Raises BadRow for another shape.
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
    """Split a field into (the turns that lead to the answer, empty if it holds the answer alone; the answer)."""
    *head, last = _messages(name, value, "assistant")
    if last.role != "assistant":
        raise BadRow(f"{name} does not end with an assistant message")
    return tuple(head), last.content


def _messages(name: str, value: Any, role: str) -> tuple[Message, ...]:
    """Read a field as messages, at least one; a text is one message of the given role."""
    if isinstance(value, str):
        return (Message(role, value),)
    if not isinstance(value, list) or not value:
        raise BadRow(f"{name} is not text ({type_in_words(value)})")
    if not all(isinstance(item, dict) and item.get("role") in CHAT_ROLES for item in value):
        raise BadRow(f"{name} is not text (nor a list of messages with role {', '.join(CHAT_ROLES)})")
    return tuple(Message(item["role"], item.get("content")) for item in value)


# Contents ------------------------------------------------------------------------------------------------------------


def check(pair: PreferencePair) -> None:
    """Raise BadRow if a model could not be trained on this pair."""
    for message in pair.before:  # may be empty: some chats are recorded with an empty system message
        _check_text("a message before the prompt", message.content)
    for name in PAIR_FIELDS:
        text = getattr(pair, name)
        _check_text(name, text)
        if not text.strip():
            raise BadRow(f"{name} is empty")
    if pair.chosen.strip() == pair.rejected.strip():
        raise BadRow("chosen equals rejected")


def _check_text(name: str, text: Any) -> None:
    if not isinstance(text, str):
        raise BadRow(f"{name} is not text ({type_in_words(text)})")
    if len(text) > MAX_CHARACTERS:
        raise BadRow(f"{name} is too long ({len(text):,} characters instead of at most {MAX_CHARACTERS:,})")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair, which JSON can spell: no tokenizer takes it
        raise BadRow(f"{name} holds a broken character (number {error.start + 1:,})") from error


def type_in_words(value: Any) -> str:
    """Name the type of a JSON value in plain words."""
    kinds = {type(None): "missing or null", bool: "true or false", int: "a number", float: "a number"}
    kinds |= {str: "a text", list: "a list", dict: "an object"}
    return kinds.get(type(value), type(value).__name__)
