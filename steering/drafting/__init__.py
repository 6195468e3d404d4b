"""From a description of a behavior to preference pairs. Interim: by the loaded model, on the example sets' prompts."""

import csv
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from steering import paths
from steering.errors import SteeringError
from steering.generation.stream import generate
from steering.models.loading import LanguageModel
from steering.pairs.schema import Message, PreferencePair


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server: its address up to `/v1`, and the name of the model there."""

    url: str
    model: str


@dataclass(frozen=True)
class DraftProgress:
    """How far a draft is.

    Attributes:
        pairs: those finished; `wanted`: how many are to come in all.
        tokens: generated so far; `seconds`: since the start.
        seconds_left: estimated; None while nothing is known.
        note: a sentence for the reader; `done`: whether it has ended.
    """

    pairs: tuple[PreferencePair, ...]
    wanted: int
    tokens: int
    seconds: float
    seconds_left: float | None
    note: str
    done: bool


def contrasting_system_prompts(behavior: str, opposite: str = "") -> tuple[str, str]:
    """Return the system prompts for the chosen and the rejected answers."""
    against = opposite or f"the opposite of {behavior}"
    return tuple(f"You are {each}. Show it in every answer." for each in (behavior, against))  # type: ignore[return-value]


def draft_pairs(
    source: LanguageModel | Endpoint,
    behavior: str,
    *,
    count: int = 24,
    opposite: str = "",
    system_prompts: tuple[str, str] | None = None,
    prompts: Sequence[str] | None = None,
    seed: int = 0,
    max_new_tokens: int = 64,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[DraftProgress]:
    """Write both answers to `count` prompts; yield after each, and once at the end."""
    if isinstance(source, Endpoint):
        raise SteeringError("Endpoints cannot be asked yet; choose the model of this page.")
    histories = [
        (Message("system", text),) for text in system_prompts or contrasting_system_prompts(behavior, opposite)
    ]
    made: list[PreferencePair] = []
    asked = list(prompts or _example_prompts())
    random.Random(seed).shuffle(asked)
    wanted, tokens, start = min(count, len(asked)), 0, time.monotonic()
    note = "The model's drafts are a start: read them and correct them."
    for number, prompt in enumerate(asked[:wanted], 1):
        if should_stop():
            break
        chosen, rejected = generate(
            source,
            prompt,
            [{}, {}],
            histories=histories,
            max_new_tokens=max_new_tokens,
            temperature=0.7,
            seed=seed + number,
            should_stop=should_stop,
            weights="float16",
        )
        tokens += chosen.tokens + rejected.tokens
        if not should_stop() and chosen.text.strip() and chosen.text.strip() != rejected.text.strip():
            made.append(PreferencePair(prompt, chosen.text.strip(), rejected.text.strip(), line=number))
        seconds = time.monotonic() - start
        yield DraftProgress(tuple(made), wanted, tokens, seconds, seconds / number * (wanted - number), "", False)
    yield DraftProgress(tuple(made), wanted, tokens, time.monotonic() - start, None, note, True)


def _example_prompts() -> list[str]:
    prompts: dict[str, None] = {}
    for path in sorted((paths.shipped("assets") / "examples").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            prompts |= dict.fromkeys(row[0] for row in list(csv.reader(file))[1:])
    return list(prompts)
