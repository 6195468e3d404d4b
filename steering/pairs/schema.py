"""A preference pair, what its texts must be, and the words for rows that are none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MAX_CHARACTERS = 20_000
"""Of any one text of a pair: about 5,000 tokens, more than twice what the bundled model reads at once."""

CHAT_ROLES = ("system", "user", "assistant")
"""Who speaks in a turn of a conversation, as in the chat templates of transformers."""

PAIR_FIELDS = ("prompt", "chosen", "rejected")
"""The texts of a pair."""


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


Record = tuple[int, Mapping[str, Any] | str]
"""(line or row number, 1-based; the row's cells by column, or the reason why it could not be parsed)"""


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


def quoted_list(names: list[str]) -> str:
    """Join names in quotes, shortened: a file without a header may have a whole text for a name."""
    quoted = [repr(shortened(name)) for name in names[:12]]
    return ", ".join(quoted) + (f" and {len(names) - 12:,} more" if len(names) > 12 else "")


def shortened(text: str, longest: int = 40) -> str:
    """Cut a text for a message to people, with an ellipsis in the place of the rest."""
    return text if len(text) <= longest else text[: longest - 1] + "…"
