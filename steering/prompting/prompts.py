"""The prompts that drafts are written to: 200 of twenty topics, which ship with the project."""

import csv
import random
from typing import NamedTuple

from steering import paths


class DraftPrompt(NamedTuple):
    """A prompt and what it is about."""

    topic: str
    text: str


def draft_prompts() -> list[DraftPrompt]:
    """List the shipped prompts, topic by topic."""
    with (paths.shipped("assets") / "prompts" / "prompts.csv").open(encoding="utf-8", newline="") as file:
        return [DraftPrompt(row["topic"], row["prompt"]) for row in csv.DictReader(file)]


def varied(seed: int) -> list[str]:
    """Return all prompts in an order drawn by the seed in which topics take turns, so that any part is varied."""
    draw = random.Random(seed)
    by_topic: dict[str, list[str]] = {}
    for prompt in draft_prompts():
        by_topic.setdefault(prompt.topic, []).append(prompt.text)
    for texts in by_topic.values():
        draw.shuffle(texts)
    rounds = []
    for place in range(max(map(len, by_topic.values()))):
        turn = [texts[place] for texts in by_topic.values() if place < len(texts)]
        draw.shuffle(turn)
        rounds += turn
    return rounds
