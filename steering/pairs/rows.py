"""From the values of one row to one preference pair: whatever shape they have, one conversation and two answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from steering.pairs.messages import turns
from steering.pairs.row_notes import RowNotes
from steering.pairs.schema import BadRow, Message, PreferencePair, type_in_words

Turns = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class RawFields:
    """The values of one row for the fields of a pair, not yet checked: texts, lists of messages, or anything else.

    None where the row has no value.

    Attributes:
        prompt, chosen, rejected: as in `PreferencePair`; the answers may bring the conversation that leads to them.
        input: a text that follows the prompt (Alpaca's).
        system: text of the system message.
        history: turns before the prompt: messages, or [user, assistant] pairs (LLaMA-Factory).
    """

    prompt: Any = None
    chosen: Any = None
    rejected: Any = None
    input: Any = None
    system: Any = None
    history: Any = None


RawRow = tuple[int, RawFields | str]
"""(line or row number, 1-based; the row's fields, or the reason why it has none)"""


def pair_of(line: int, row: RawFields | str, notes: RowNotes) -> PreferencePair:
    """Make a pair of a row, its texts not yet checked (see `schema.check`).

    Without a prompt, the conversation is what the answers' own conversations begin with (TRL's implicit prompt). Raises
    BadRow for a row that is no pair.
    """
    if isinstance(row, str):
        raise BadRow(row)
    chosen_head, chosen, rejected_head, rejected = _answers(line, row, notes)
    heads = [head for head in (chosen_head, rejected_head) if head]
    context = (*_system(row.system), *_history(line, row.history, notes))
    if row.prompt is None and heads:
        asked = heads[0]
    else:
        asked = _prompt(line, row, notes)
        if heads:
            _check_end(heads[0], asked)
            asked = heads[0]
    if any(head != asked for head in heads):
        raise BadRow("chosen and rejected are conversations that differ before their last message")
    asked = _after_context(asked, context)
    if asked[-1].role != "user":
        raise BadRow("prompt does not end with a user message")
    return PreferencePair(asked[-1].content, chosen, rejected, asked[:-1], line)


def _prompt(line: int, row: RawFields, notes: RowNotes) -> Turns:
    asked = turns("prompt", row.prompt, "user", notes, line)
    if row.input is None or row.input == "":
        return asked
    if not isinstance(row.input, str):
        raise BadRow(f"input is not text ({type_in_words(row.input)})")
    last = asked[-1]
    if not isinstance(last.content, str) or not last.content.strip():
        return (*asked[:-1], last._replace(content=row.input))
    return (*asked[:-1], last._replace(content=f"{last.content}\n{row.input}"))


def _answers(line: int, row: RawFields, notes: RowNotes) -> tuple[Turns, str, Turns, str]:
    """Return (turns before the chosen answer, the answer), and the same for the rejected one."""
    chosen = turns("chosen", row.chosen, "assistant", notes, line)
    rejected = turns("rejected", row.rejected, "assistant", notes, line)
    if len(chosen) > 1 and len(rejected) > 1 and chosen[:-1] != rejected[:-1]:
        shared = _shared(chosen, rejected)
        parted = [each[len(shared)] for each in (chosen, rejected) if len(each) > len(shared)]
        if shared and shared[-1].role == "user" and [turn.role for turn in parted] == ["assistant"] * 2:
            what = "Conversations that part before their last message end with the answers in which they part"
            notes.add(what, parted[0].content if isinstance(parted[0].content, str) else "", line)
            return shared, parted[0].content, shared, parted[1].content
    for name, spoken in (("chosen", chosen), ("rejected", rejected)):
        if spoken[-1].role != "assistant":
            raise BadRow(f"{name} does not end with an assistant message")
    return chosen[:-1], chosen[-1].content, rejected[:-1], rejected[-1].content


def _shared(first: Turns, second: Turns) -> Turns:
    return tuple(a for a, _ in takewhile(lambda both: both[0] == both[1], zip(first, second, strict=False)))


def _check_end(head: Turns, prompt: Turns) -> None:
    """Raise BadRow unless a conversation ends with the prompt; white space around a text does not count."""
    wanted = [(turn.role, _stripped(turn.content)) for turn in prompt if turn.role != "system"]
    given = [(turn.role, _stripped(turn.content)) for turn in head if turn.role != "system"]
    if given[-len(wanted) :] != wanted:
        raise BadRow("chosen or rejected is a conversation, but its last message does not follow the prompt")


def _stripped(content: Any) -> Any:
    return content.strip() if isinstance(content, str) else content


def _after_context(asked: Turns, context: Turns) -> Turns:
    """Put the turns of other columns before the conversation, unless it holds them already."""
    if not context or asked[: len(context)] == context:
        return asked
    if context[0].role == "system" and asked[0].role == "system":
        if asked[0].content == context[0].content:
            return (*context, *asked[1:])
        raise BadRow("the system message of the row and that of its conversation differ")
    return (*context, *asked) if asked[0].role != "system" else (asked[0], *context, *asked[1:])


def _system(value: Any) -> Turns:
    if value is None or value == "":
        return ()
    if not isinstance(value, str):
        raise BadRow(f"system is not text ({type_in_words(value)})")
    return (Message("system", value),)


def _history(line: int, value: Any, notes: RowNotes) -> Turns:
    if value is None or value == "" or value == []:
        return ()
    if isinstance(value, list) and all(_is_exchange(item) for item in value):
        return tuple(
            Message(role, text)
            for exchange in value
            for role, text in zip(("user", "assistant"), exchange, strict=True)
        )
    return turns("history", value, "user", notes, line)


def _is_exchange(item: Any) -> bool:
    return isinstance(item, Sequence) and not isinstance(item, str) and len(item) == 2 and _all_texts(item)


def _all_texts(items: Sequence[Any]) -> bool:
    return all(isinstance(item, str) for item in items)
