"""Write both answers to varied prompts, one under a system prompt for the behavior and one against it.

The pairs keep the plain prompt without those system prompts: what they made the model do is what the vector shall do.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from steering.errors import SteeringError
from steering.generation.stream import generate
from steering.limits import NO_LIMITS, Limits
from steering.models.loading import LanguageModel
from steering.pairs.schema import BadRow, Message, PreferencePair, check
from steering.prompting.endpoint import Endpoint
from steering.prompting.instructions import contrasting_system_prompts
from steering.prompting.prompts import varied

TEMPERATURE = 0.3
"""At 0.7 the bundled model lost the thread in every second answer (24 drafts of "cheerful", read by hand). The prompts
bring the variety."""
REPETITION_PENALTY = 1.1
"""Keeps small models from saying the same sentence until the end; that of the Playground."""
MOST_PAIRS = 200
"""As many as there are shipped prompts."""
SMALL_MODEL = 1_000_000_000
"""Parameters below which a model's drafts are known to be weak: it forgets the instruction or the facts."""
AT_ONCE = 4
"""Prompts that an endpoint is asked at a time, two answers each."""
LEAST_WORDS = 3
"""Of an answer."""

REFUSALS = re.compile(
    r"(?i)\bas an? (\w+ )?(ai|chatbot|assistant|customizable)\b|\bi('m| am) (just |only )?an? (ai|language model)"
    r"|\bi can(no|')t (help|assist) with"
)
"""An assistant's stock phrases, which say nothing of either side."""
LEAKS = re.compile(
    r"(?i)\b(my|these|the|your) instructions?\b|\bsystem prompt\b|\bin (two or )?three (short )?sentences\b"
)
"""An answer that talks about what it was told."""
SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’)*_]*(?=\s|$)")


@dataclass(frozen=True)
class DraftProgress:
    """How far a draft is.

    Attributes:
        pairs: those finished; `wanted`: how many are to come in all.
        tokens: generated (by an endpoint: charged) so far; `seconds`: since the start.
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


@dataclass(frozen=True)
class _Written:
    """Both answers to a prompt, cut to whole sentences, and what they cost."""

    chosen: str
    rejected: str
    tokens: int


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
    limits: Limits = NO_LIMITS,
) -> Iterator[DraftProgress]:
    """Draft preference pairs; yield after every prompt, and once at the end.

    A prompt whose answers are of no use (empty, equal, a refusal, or talk of the instruction) is replaced by another.

    Args:
        source: the loaded model, in its own voice, or a server.
        behavior, opposite: see `contrasting_system_prompts`; `system_prompts` (for, against) take their place.
        count: of pairs, at most `MOST_PAIRS`.
        prompts: by default the shipped ones, in an order drawn by `seed`.
        max_new_tokens: of an answer, which is cut at its last whole sentence.
        should_stop: once True, the draft ends with the pairs so far, and so it does after `Limits.training_seconds`.
        limits: what the caller may ask for.

    Raises SteeringError for an unusable description or count, or a server that does not answer.

    Example:
        for progress in draft_pairs(load_model(), "cheerful"):
            print(len(progress.pairs), "of", progress.wanted)
    """
    if not 1 <= count <= MOST_PAIRS:
        raise SteeringError(f"The number of pairs is {count}; give one from 1 to {MOST_PAIRS}.")
    limits.check_pairs(count, max(map(len, prompts or ()), default=0))
    systems = system_prompts or contrasting_system_prompts(behavior, opposite)
    asked = list(dict.fromkeys(prompts if prompts is not None else varied(seed)))
    wanted = min(count, len(asked))
    began, unusable, tokens = time.monotonic(), 0, 0
    made: list[PreferencePair] = []

    def report(note: str, *, done: bool = False) -> DraftProgress:
        seconds = time.monotonic() - began
        left = seconds / len(made) * (wanted - len(made)) if made and not done else None
        return DraftProgress(tuple(made), wanted, tokens, seconds, left, note, done)

    def over() -> bool:
        seconds = limits.training_seconds
        return should_stop() or (seconds is not None and time.monotonic() - began >= seconds)

    for prompt, written in _answers(source, asked, systems, seed, max_new_tokens, over):
        if written is None:  # stopped in the middle of it
            break
        tokens += written.tokens
        if problem := _problem(prompt, written):
            unusable += 1
            yield report(f"One prompt was replaced: {problem}.")
            continue
        made.append(PreferencePair(prompt, written.chosen, written.rejected, line=len(made) + 1))
        yield report("")
        if len(made) == wanted or over():
            break
    yield report(_last_note(source, len(made), wanted, unusable), done=True)


def _answers(
    source: LanguageModel | Endpoint,
    prompts: Sequence[str],
    systems: tuple[str, str],
    seed: int,
    max_new_tokens: int,
    should_stop: Callable[[], bool],
) -> Iterator[tuple[str, _Written | None]]:
    """Yield each prompt with its answers, in order; an endpoint is asked some at a time."""
    if isinstance(source, Endpoint):
        server = source

        def ask(number: int) -> _Written:
            return _by_endpoint(server, prompts[number], systems, seed + number, max_new_tokens)

        with ThreadPoolExecutor(AT_ONCE) as threads:
            for start in range(0, len(prompts), AT_ONCE):
                if should_stop():
                    return
                numbers = range(start, min(start + AT_ONCE, len(prompts)))
                yield from zip([prompts[n] for n in numbers], threads.map(ask, numbers), strict=True)
        return
    for number, prompt in enumerate(prompts):
        if should_stop():
            return
        yield prompt, _by_model(source, prompt, systems, seed + number, max_new_tokens, should_stop)


def _by_model(
    model: LanguageModel,
    prompt: str,
    systems: tuple[str, str],
    seed: int,
    max_new_tokens: int,
    should_stop: Callable[[], bool],
) -> _Written | None:
    """Write both answers as two rows of one batch; None if it was stopped."""
    columns = generate(
        model,
        prompt,
        [{}, {}],
        histories=[(Message("system", system),) for system in systems],
        max_new_tokens=max_new_tokens,
        temperature=TEMPERATURE,
        repetition_penalty=REPETITION_PENALTY,
        seed=seed,
        should_stop=should_stop,
        weights="float16",
    )
    if should_stop():
        return None
    chosen, rejected = (whole_sentences(c.text, cut=c.tokens >= max_new_tokens) for c in columns)
    return _Written(chosen, rejected, sum(column.tokens for column in columns))


def _by_endpoint(server: Endpoint, prompt: str, systems: tuple[str, str], seed: int, max_new_tokens: int) -> _Written:
    answers, tokens = [], 0
    for system in systems:
        messages = [Message("system", system), Message("user", prompt)]
        text, cost, cut = server.answer(messages, max_tokens=max_new_tokens, temperature=TEMPERATURE, seed=seed)
        answers.append(whole_sentences(text, cut=cut))
        tokens += cost
    return _Written(answers[0], answers[1], tokens)


def whole_sentences(text: str, *, cut: bool) -> str:
    """Return an answer up to its last whole sentence; one that was not cut off stays as it is, without outer space."""
    text = text.strip()
    if not cut:
        return text
    ends = [end.end() for end in SENTENCE_END.finditer(text)]
    return text[: ends[-1]] if ends else ""


def _problem(prompt: str, written: _Written) -> str:
    """Say why two answers make no pair; empty if they do."""
    for side in (written.chosen, written.rejected):
        if len(side.split()) < LEAST_WORDS:
            return "an answer was too short"
        if REFUSALS.search(side):
            return "an answer was a stock phrase"
        if LEAKS.search(side):
            return "an answer spoke about its instructions"
    try:
        check(PreferencePair(prompt, written.chosen, written.rejected))
    except BadRow as problem:
        return str(problem)
    return ""


def _last_note(source: LanguageModel | Endpoint, made: int, wanted: int, unusable: int) -> str:
    notes = []
    if unusable:
        notes.append(
            f"{unusable} prompt{'s were' if unusable > 1 else ' was'} replaced, because an answer was of no use."
        )
    if made < wanted:
        notes.append(f"{made} of {wanted} pairs were drafted.")
    if isinstance(source, LanguageModel) and sum(p.numel() for p in source.network.parameters()) < SMALL_MODEL:
        notes.append(
            f"{source.name} is small, so its drafts are weak: read them, and correct or drop what does not fit."
        )
    else:
        notes.append("Drafts are a start: read them, and correct or drop what does not fit.")
    return " ".join(notes)
