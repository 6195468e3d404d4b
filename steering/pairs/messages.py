"""From a cell of a file to the turns of a conversation: texts, lists of messages, and texts that hold such lists."""

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from steering.pairs.chat_markup import ROLES, mark_in, turns_of, without_ends
from steering.pairs.row_notes import RowNotes
from steering.pairs.schema import BadRow, Message, shortened, type_in_words

LONGEST_LITERAL = 200_000
"""Characters of a text that is parsed as a list of messages: ten texts of the greatest length a pair may have."""

LISTS_OF_MESSAGES = ("messages", "conversations", "conversation", "turns")
"""Keys under which an object may hold its messages."""
TEXT_KEYS = ("content", "value", "text")
ROLE_KEYS = ("role", "from", "speaker")
TEXT_PARTS = ("text", "input_text", "output_text")
"""Types of content parts that are text, in OpenAI's two APIs."""
THOUGHTS = ("reasoning_content", "thinking", "reasoning", "thought")
"""Keys of a message for what a reasoning model thought before it answered."""
SILENT_KEYS = (*ROLE_KEYS, *TEXT_KEYS, "weight", "id", "loss", "train", "index", "type", "rank", "score")
"""Keys of a message that lose nothing by not being read."""

ANSWER_MARK = re.compile(r"\s*(?:Assistant|ASSISTANT|#{2,3} Response):[ \t]*\n?")
"""How an answer begins where a transcript was cut before the one who gives it."""

BETWEEN_ROWS = re.compile(r"\}\s*\n\s*\{")
"""Between the objects of an array as numpy prints it, where a list has a comma. No text holds it: repr writes \\n."""
NUMPY_ARRAY = re.compile(r"^array\((.*?)(?:,\s*dtype=\w+)?\)$", re.DOTALL)


def turns(name: str, value: Any, role: str, notes: RowNotes, line: int) -> tuple[Message, ...]:
    """Read a cell as the turns of a conversation, at least one.

    Args:
        name: of the field, for messages.
        value: a text (one message of `role`, unless it holds a conversation), a message, a list of messages, or a list
            of texts, of which the first counts.
        notes: told what was taken apart or left out.

    Raises:
        BadRow: it is none of these.
    """
    if isinstance(value, str):
        spelled = structured(value, name)
        if spelled is None:
            return _text_turns(name, value, role, notes, line)
        notes.add("Cells that hold a list of messages as text were read as messages", value, line)
        value = spelled
    whole = value
    if isinstance(value, Mapping):
        value = next((value[key] for key in LISTS_OF_MESSAGES if isinstance(value.get(key), list)), [value])
    unlike = isinstance(value, list) and any(isinstance(each, Mapping) and not _is_like_message(each) for each in value)
    if not isinstance(value, list) or not value or unlike:
        raise BadRow(f"{name} is not text ({type_in_words(whole)})")
    if all(isinstance(item, str) for item in value):
        return _first_text(name, value, role, notes, line)
    return tuple(_message(name, item, role, notes, line) for item in value)


def _first_text(name: str, texts: list[str], role: str, notes: RowNotes, line: int) -> tuple[Message, ...]:
    if len(texts) > 1 and role != "assistant":
        raise BadRow(f"{name} is a list of several texts")
    if len(texts) > 1:
        notes.add(f"Where {name} holds several answers, the first one was taken", texts[0], line)
    return _text_turns(name, texts[0], role, notes, line)


def _text_turns(name: str, text: str, role: str, notes: RowNotes, line: int) -> tuple[Message, ...]:
    """Take a text apart that is a conversation in a chat template or a transcript; else it is one message."""
    if found := turns_of(text):
        kind, spoken = found
        if role == "assistant" and spoken[-1].role != "assistant":
            raise BadRow(f"{name} is a conversation that ends without an answer")
        what = "Transcripts were" if kind == "transcript" else f"Text in a chat template ({kind}) was"
        notes.add(f"{what} read as messages", text, line)
        return tuple(spoken)
    plain = without_ends(text) if role == "assistant" else text
    if role == "assistant" and (said := ANSWER_MARK.match(plain)) and plain[said.end() :].strip():
        notes.add(f"{said.group().strip()!r} at the beginning of answers was taken off", plain, line)
        return (Message(role, plain[said.end() :]),)
    if plain != text:
        notes.add("End-of-turn tokens at the end of answers were taken off", text[-40:], line)
    if mark := mark_in(plain):
        notes.add("Marks of a chat template inside of a text are trained as plain text", _around(plain, mark), line)
    return (Message(role, plain),)


def _message(name: str, item: Any, role: str, notes: RowNotes, line: int) -> Message:
    if not isinstance(item, Mapping):
        raise BadRow(f"{name} is not text (nor a list of messages)")
    said = next((str(item[key]) for key in ROLE_KEYS if item.get(key) is not None), role)
    if said.strip().lower() not in ROLES:
        known = "system, developer, user and assistant"
        raise BadRow(f"{name} has a message of role {shortened(said)!r}, which is none of {known}")
    for key in item:
        if key in THOUGHTS and item[key]:
            notes.add(f"{key} is left out: the vector learns from the answers alone", str(item[key]), line)
        elif key not in SILENT_KEYS and key not in THOUGHTS and _holds_text(item[key]):
            notes.add(f"{shortened(str(key))} beside a message's text is left out", str(item[key]), line)
    content = next((item[key] for key in TEXT_KEYS if item.get(key) is not None), None)
    return Message(ROLES[said.strip().lower()], _joined(name, content))


def _joined(name: str, content: Any) -> Any:
    """Join content parts of type text; anything but a list stays as it is, for `check` to judge."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        text = part.get("text") if isinstance(part, Mapping) else part
        if kind not in TEXT_PARTS or not isinstance(text, str):
            raise BadRow(f"{name} holds content other than text ({shortened(str(kind))})")
        texts.append(text)
    return "".join(texts)


def structured(text: str, name: str = "a cell") -> Any:
    """Parse a text that spells a message or a list of messages, as JSON or as Python; None for any other text.

    Raises BadRow for one that clearly means to and is damaged.
    """
    body = text.strip()
    if array := NUMPY_ARRAY.match(body):
        body = array.group(1).strip()
    if not (
        body.startswith(("[", "{"))
        and body.endswith(("]", "}"))
        and re.search(r"""["'](role|from|content)["']\s*:""", body)
    ):
        return None
    if len(body) > LONGEST_LITERAL:
        raise BadRow(f"{name} is too long ({len(text):,} characters of messages)")
    for candidate in (body, BETWEEN_ROWS.sub("},\n{", body)):
        for parse in (json.loads, ast.literal_eval):
            try:
                value = parse(candidate)
            except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
                continue
            return value if _is_messages(value) else None
    if re.match(r"""\[?\s*\{\s*["'](role|from|content|value)["']\s*:""", body):
        raise BadRow(f"{name} holds a list of messages that cannot be read ({shortened(body)})")
    return None


def _is_messages(value: Any) -> bool:
    if isinstance(value, dict):
        return is_message(value) or any(_is_messages(value.get(key)) for key in LISTS_OF_MESSAGES)
    return isinstance(value, list) and bool(value) and all(is_message(item) for item in value)


def is_message(value: Any) -> bool:
    """Whether a value is an object with a role and a text, in any of the spellings."""
    return (
        isinstance(value, Mapping) and any(key in value for key in ROLE_KEYS) and any(key in value for key in TEXT_KEYS)
    )


def _is_like_message(value: Mapping[str, Any]) -> bool:
    return any(key in value for key in (*TEXT_KEYS, *ROLE_KEYS))


def _holds_text(value: Any) -> bool:
    return bool(value) and not isinstance(value, bool | int | float)


def _around(text: str, mark: str) -> str:
    place = max(text.find(mark) - 10, 0)
    return text[place : place + 60]
