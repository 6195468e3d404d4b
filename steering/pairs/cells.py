"""Values in the cells of a file: found by a path, and looked at for text."""

import json
from collections.abc import Mapping
from typing import Any

from steering.pairs.chat_markup import turns_of
from steering.pairs.messages import LISTS_OF_MESSAGES, is_message, structured
from steering.pairs.schema import BadRow


def value_at(cells: Mapping[str, Any], path: str) -> Any:
    """Return the value of a column, or what a dotted path leads to (`input.messages`, `chosen.0.content`).

    None where there is nothing. A text on the way is parsed as JSON.
    """
    if path in cells:
        return cells[path]
    value: Any = cells
    for step in path.split("."):
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return None
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and step.lstrip("-").isdecimal() and -len(value) <= int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def paths_in(name: str, value: Any, depth: int = 3) -> dict[str, Any]:
    """List a column and the paths into its value that lead to texts or messages, each with what it leads to."""
    found = {name: value}
    if depth and isinstance(value, Mapping):
        for key, inner in value.items():
            found |= paths_in(f"{name}.{key}", inner, depth - 1)
    elif depth and isinstance(value, list) and value and not is_message(value[0]):
        found |= paths_in(f"{name}.0", value[0], depth - 1)
    return {path: inner for path, inner in found.items() if path == name or holds_text(inner)}


def holds_text(value: Any) -> bool:
    """Whether a value is a text with a letter in it, or holds one."""
    if isinstance(value, str):
        return any(character.isalpha() for character in value)
    if isinstance(value, Mapping):
        return any(holds_text(each) for each in value.values())
    return isinstance(value, list) and any(holds_text(each) for each in value[:20])


def holds_conversation(value: Any) -> bool:
    """Whether a value is more than an answer: messages with a user's among them, or a text that holds some."""
    if isinstance(value, str):
        try:
            value = structured(value) or [turn._asdict() for turn in (turns_of(value) or ("", []))[1]]
        except BadRow:  # it means to be messages
            return True
    if isinstance(value, Mapping):
        value = next((value[key] for key in LISTS_OF_MESSAGES if isinstance(value.get(key), list)), [])
    return isinstance(value, list) and len(value) > 1 and all(is_message(item) for item in value)
