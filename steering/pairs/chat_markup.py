r"""Texts that hold a whole conversation: chat templates already applied, and transcripts ("Human: ... Assistant: ...").

Trained as they stand, such texts would be wrapped in the model's own template once more. Where a text is unambiguous,
`turns_of` takes it apart; everything else stays the text that it is.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from steering.pairs.schema import Message

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "question": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "ai": "assistant",
}
"""Names that data sets give to those who speak, in lower case -> the role in a chat template."""


@dataclass(frozen=True)
class Markup:
    """How a chat template marks its turns.

    Attributes:
        name: for people.
        opening: pattern of a turn's head; its group `role` is a key of `ROLES`.
        ends: tokens that close a turn.
    """

    name: str
    opening: str
    ends: tuple[str, ...]


MARKUPS = (
    Markup("ChatML", r"<\|im_start\|>[ \t]*(?P<role>\w+)[ \t]*\n?", ("<|im_end|>",)),
    Markup("Llama 3", r"<\|start_header_id\|>(?P<role>\w+)<\|end_header_id\|>\s*", ("<|eot_id|>", "<|eom_id|>")),
    Markup("Llama 4", r"<\|header_start\|>(?P<role>\w+)<\|header_end\|>\s*", ("<|eot|>",)),
    Markup("Gemma", r"<start_of_turn>(?P<role>\w+)\n?", ("<end_of_turn>",)),
    Markup("Gemma 4", r"<\|turn>(?P<role>\w+)\n?", ("<turn|>",)),
    Markup("Granite", r"<\|start_of_role\|>(?P<role>\w+)<\|end_of_role\|>", ("<|end_of_text|>",)),
    Markup(
        "Command R",
        r"<\|START_OF_TURN_TOKEN\|><\|(?P<role>SYSTEM|USER|CHATBOT)_TOKEN\|>",
        ("<|END_OF_TURN_TOKEN|>",),
    ),
    Markup("Phi", r"<\|(?P<role>system|user|assistant)\|>\n?", ("<|end|>", "<|endoftext|>", "</s>")),
    Markup("DeepSeek", r"<｜(?P<role>User|Assistant)｜>", ("<｜end▁of▁sentence｜>",)),
)
"""Formats of public chat models, as their published templates write them."""

BEGINNINGS = ("<|begin_of_text|>", "<bos>", "<s>", "<|startoftext|>", "<BOS_TOKEN>", "<｜begin▁of▁sentence｜>")
"""Tokens that some templates open the whole text with."""

ENDS = tuple(dict.fromkeys(end for markup in MARKUPS for end in markup.ends)) + ("<eos>", "[/INST]")
INST = re.compile(r"\[INST\](.*?)\[/INST\]", re.DOTALL)
SYSTEM_IN_INST = re.compile(r"\s*<<SYS>>(.*?)<</SYS>>", re.DOTALL)
SYSTEM_PROMPT = re.compile(r"\[SYSTEM_PROMPT\](.*?)\[/SYSTEM_PROMPT\]", re.DOTALL)

TRANSCRIPTS = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        r"^[ \t]*(?P<role>Human|Assistant|System):[ \t]?",
        r"^[ \t]*(?P<role>User|Assistant|System):[ \t]?",
        r"^[ \t]*(?P<role>User|Bot|System):[ \t]?",
        r"^[ \t]*(?P<role>User|AI|System):[ \t]?",
        r"^[ \t]*(?P<role>Human|AI|System):[ \t]?",
        r"(?:^|(?<=\s)|(?<=</s>))(?P<role>USER|ASSISTANT|SYSTEM):[ \t]?",
        r"^#{2,3} (?P<role>System|Instruction|Response):?[ \t]*\n?",
        r"^#{2,3} (?P<role>System|Human|Assistant):?[ \t]*\n?",
        r"^#{2,3} (?P<role>System|User|Assistant):?[ \t]*\n?",
        r"^(?P<role>Question|Answer):[ \t]?",
        r"^(?P<role>Q|A):[ \t]?",
    )
)
"""Marks of who speaks, at the beginning of a line (Vicuna's also after a space)."""

MARKED = {"instruction": "user", "q": "user", "response": "assistant", "answer": "assistant", "a": "assistant"}
"""What the marks of transcripts mean beside `ROLES`."""

ONE_TURN = re.compile(r"\s*(Human|#{2,3} Instruction|#{2,3} Human):", re.IGNORECASE)
"""Transcripts of a single user turn: other words may open a plain text just as well."""

SIGNS = re.compile(
    "|".join([*(markup.opening.replace("?P<role>", "?:") for markup in MARKUPS), *map(re.escape, ENDS), r"\[INST\]"])
)
"""Any mark of a chat template."""


def turns_of(text: str) -> tuple[str, list[Message]] | None:
    r"""Take a whole conversation apart, if the text is one.

    Returns:
        (name of the format, its turns), or None for plain text. A head without text at the end, which asks for the
        answer, makes no turn.

    Example:
        >>> turns_of("Human: Hi\n\nAssistant:")
        ('transcript', [Message(role='user', content='Hi')])
    """
    for markup in MARKUPS:
        if (turns := _marked_up(text, markup)) is not None:
            return markup.name, turns
    if (turns := _inst(text)) is not None:
        return "[INST]", turns
    for pattern in TRANSCRIPTS:
        if (turns := _transcript(text, pattern)) is not None:
            return "transcript", turns
    return None


def without_ends(text: str) -> str:
    """Take tokens that close a turn off the end of a text that has no other mark of a template."""
    body = text
    while stripped := next((body.rstrip().removesuffix(end) for end in ENDS if body.rstrip().endswith(end)), None):
        body = stripped
    return text if body is text or SIGNS.search(body) else body.rstrip()


def mark_in(text: str) -> str:
    """Return the first mark of a chat template in a text; empty if there is none."""
    found = SIGNS.search(text)
    return found.group().strip() if found else ""


def _marked_up(text: str, markup: Markup) -> list[Message] | None:
    body = text.strip()
    for beginning in BEGINNINGS:
        body = body.removeprefix(beginning).lstrip()
    heads = list(re.finditer(markup.opening, body))
    leading = _without(body[: heads[0].start()], BEGINNINGS).strip() if heads else ""
    if not heads or (leading and markup.name != "DeepSeek"):  # DeepSeek's template has the system text there
        return None
    turns = [Message("system", leading)] if leading else []
    for role, content in _segments(body, heads):
        if role.lower() not in ROLES:
            return None
        turns.append(Message(ROLES[role.lower()], _without_tail(content, (*markup.ends, *BEGINNINGS))))
    return _plausible(turns)


def _inst(text: str) -> list[Message] | None:
    """Take Llama 2's and Mistral's form apart: [INST] user [/INST] assistant </s>."""
    body = _without(text.strip(), ("<s>",)).lstrip()
    turns: list[Message] = []
    if system := SYSTEM_PROMPT.match(body):
        turns.append(Message("system", system.group(1).strip()))
        body = body[system.end() :].lstrip()
    asked = list(INST.finditer(body))
    if not asked or asked[0].start() != 0:
        return None
    for place, each in enumerate(asked):
        user = each.group(1)
        if not turns and (system := SYSTEM_IN_INST.match(user)):
            turns.append(Message("system", system.group(1).strip()))
            user = user[system.end() :]
        turns.append(Message("user", user.strip()))
        end = asked[place + 1].start() if place + 1 < len(asked) else len(body)
        if answer := _without(body[each.end() : end], ("</s>",)).strip():
            turns.append(Message("assistant", answer))
    return _plausible(turns)


def _transcript(text: str, pattern: re.Pattern[str]) -> list[Message] | None:
    heads = list(pattern.finditer(text))
    if not heads:
        return None
    leading = text[: heads[0].start()].strip()
    roles = [_role(head["role"]) for head in heads]
    if leading and not (heads[0].group().startswith("#") and leading.startswith("Below is an instruction")):
        return None  # marks in the middle of a text belong to the text; only Alpaca has a preamble
    spoken = [role for role in roles if role != "system"]
    alternating = all(a != b for a, b in zip(spoken, spoken[1:], strict=False))
    if not alternating or "system" in roles[1:] or not spoken:
        return None
    alone = len(spoken) == 1
    if alone and (spoken[0] == "assistant" or not ONE_TURN.match(text)):
        return None
    if not alone and spoken[0] != "user":
        return None
    turns = [Message("system", leading)] if leading else []
    for role, content in _segments(text, heads):
        turns.append(Message(_role(role), _without_tail(content, ("</s>", "<|endoftext|>"))))
    return _plausible(turns)


def _segments(text: str, heads: list[re.Match[str]]) -> Iterator[tuple[str, str]]:
    """Yield (role as it is written, what stands up to the next head)."""
    for place, head in enumerate(heads):
        end = heads[place + 1].start() if place + 1 < len(heads) else len(text)
        yield head["role"], text[head.end() : end]


def _plausible(turns: list[Message]) -> list[Message] | None:
    """Take off an empty last turn of the assistant; None if a turn besides the system's has no text."""
    if turns and turns[-1].role == "assistant" and not turns[-1].content.strip():
        turns = turns[:-1]
    empty = any(not turn.content.strip() for turn in turns if turn.role != "system")
    return None if empty or not turns or any(mark_in(turn.content) for turn in turns) else turns


def _role(mark: str) -> str:
    return MARKED.get(mark.lower()) or ROLES[mark.lower()]


def _without(text: str, tokens: tuple[str, ...]) -> str:
    for token in tokens:
        text = text.replace(token, "")
    return text


def _without_tail(content: str, tokens: tuple[str, ...]) -> str:
    """Strip white space and closing tokens around a turn."""
    content = content.strip()
    while shorter := next((content.removesuffix(token).strip() for token in tokens if content.endswith(token)), None):
        content = shorter
    return "" if content in tokens else content
