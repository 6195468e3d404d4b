"""System prompts that make a model show a behavior, and its opposite."""

import re

from steering.errors import SteeringError

LONGEST_BEHAVIOR = 500
"""Characters of a description."""
HOW = "Show it strongly in every answer. Answer in two or three short sentences."
"""What both sides are told, so that they differ in the behavior alone."""
_ORDERS = (
    "talk answer speak refuse write use be act mention accept avoid reply respond sound praise seek take give tell "
    "prefer like love hate always never do show make say agree disagree want try help admit pretend behave"
)
VERBS = frozenset(_ORDERS.split())
"""Words that open a description in the form of an order."""
SENTENCE = re.compile(r"(?i)(you|i|the assistant|the model|it) ")
"""Opens a description that is a whole sentence."""


def contrasting_system_prompts(behavior: str, opposite: str = "") -> tuple[str, str]:
    """Return the system prompts for the chosen and the rejected answers.

    Args:
        behavior: a word or phrase: "cheerful", "a pirate", "answers in rhymes", "talk like a pirate".
        opposite: the same for the other side; by default the behavior's negation.

    Raises SteeringError for an empty or very long description.

    Example:
        >>> contrasting_system_prompts("cheerful", "gloomy")[1][:23]
        'You are gloomy. Show it'
    """
    wanted, unwanted = _checked(behavior, "behavior"), _checked(opposite, "opposite") if opposite.strip() else ""
    return f"{_sentence(wanted)} {HOW}", f"{_sentence(unwanted) if unwanted else _negation(wanted)} {HOW}"


def _checked(text: str, name: str) -> str:
    text = " ".join(text.split()).rstrip(".!").strip()
    if not text:
        raise SteeringError(f"The {name} is empty; describe it in a word or a sentence, such as: cheerful.")
    if len(text) > LONGEST_BEHAVIOR:
        raise SteeringError(f"The {name} has {len(text):,} characters; describe it in at most {LONGEST_BEHAVIOR}.")
    return text


def _sentence(behavior: str) -> str:
    """Put a description into a sentence about the assistant, whatever its grammar."""
    first = behavior.split()[0].lower()
    if SENTENCE.match(behavior):
        return f"This is how you are: {behavior}."
    if first.endswith("ing") and " " in behavior:
        return f"You are known for {behavior}."
    if first in VERBS:
        return f"In every answer, {_lower(behavior)}."
    if first == "is" or _third_person(first):
        return f"You are somebody who {_lower(behavior)}."
    return f"You are {_lower(behavior)}."


def _negation(behavior: str) -> str:
    first = behavior.split()[0].lower()
    if SENTENCE.match(behavior):
        return f"You are the opposite of this: {behavior}."
    if first in VERBS:
        return f"In every answer, do the opposite of this: {_lower(behavior)}."
    if first == "is" or _third_person(first):
        return f"You are the opposite of somebody who {_lower(behavior)}."
    return f"You are not at all {_lower(behavior)}, but the plain opposite."


def _third_person(word: str) -> bool:
    """Whether a word is a verb such as `answers`: not `cautious`, not `fearless`."""
    return word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3


def _lower(text: str) -> str:
    """Begin with a small letter, but for names and abbreviations."""
    first, _, rest = text.partition(" ")
    return text if first[1:] != first[1:].lower() or first == "I" else f"{first[:1].lower()}{text[1:]}"
