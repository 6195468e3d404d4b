"""Prompts that evaluations are written to: those of pairs, and 60 open ones by topic that ship with the project."""

from collections.abc import Sequence

from steering.pairs.dataset import Pairs
from steering.prompting.prompts import draft_prompts

OPEN = "open"
A_TOPIC = 3
"""Open prompts of each of the twenty topics."""


def open_prompts() -> list[str]:
    """List the open prompts, 60 of twenty topics; topics take turns, so that any part is varied."""
    by_topic: dict[str, list[str]] = {}
    for prompt in draft_prompts():
        by_topic.setdefault(prompt.topic, []).append(prompt.text)
    return [texts[place] for place in range(A_TOPIC) for texts in by_topic.values()]


def distinct_prompts(pairs: Pairs) -> list[str]:
    """List the prompts of pairs, each once, in their order."""
    return list(dict.fromkeys(pair.prompt for pair in pairs))


def evenly(prompts: Sequence[str], count: int) -> list[str]:
    """Take `count` prompts at even distances; all of them if there are no more."""
    if len(prompts) <= count:
        return list(prompts)
    return [prompts[len(prompts) * place // count] for place in range(count)]
