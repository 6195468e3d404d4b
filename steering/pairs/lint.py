"""What may be wrong with pairs that can be read: faults of the data that training would learn instead of the behavior.

Findings are advice. Each says what was seen, what it would do, and what to do about it. The limits are chosen by hand,
so that the example sets, which were written with care, raise only what is true of them.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs
from steering.pairs.schema import shortened

FEW_PROMPTS = 30
"""Below it, a held-out fifth has fewer than six prompts to measure on."""
LENGTH_SKEW = 1.5
"""Times that one side's answers are as long as the other's, in all, before it is mentioned."""
OFTEN, LEAST_TIMES = 0.1, 3
"""Share of the pairs, and number of them, from which something that repeats is mentioned."""
MOSTLY = 0.5
"""Share of one side's answers that begin alike before it is mentioned."""
LEAK = 40
"""Characters of the prompt that stand in an answer before it counts as repeated there."""
ALIKE = 0.85
"""Jaccard similarity of two prompts' words from which they are nearly the same."""
HASHES, BAND = 12, 3
"""Min-hashes of a prompt and how many of them two prompts must share: finds 98 % of those that are `ALIKE`."""


@dataclass(frozen=True)
class Finding:
    """One thing that may be wrong.

    Attributes:
        kind: of finding, a short name; `text`: one or two sentences with the remedy.
        severity: `warning` for what spoils a training, `note` for what to know.
        lines: `PreferencePair.line` of the pairs it is about; empty for all of them.
        settings: of a method, that correct it.
    """

    kind: str
    severity: Literal["warning", "note"]
    text: str
    lines: tuple[int, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)


def lint(pairs: Pairs, model: LanguageModel | None = None) -> list[Finding]:
    """List what may be wrong with the pairs, warnings first.

    Args:
        model: where it is known, answers are measured in its tokens instead of characters.

    Example:
        for finding in lint(read_pairs("pairs.csv")):
            print(finding.severity, finding.text)
    """
    if not pairs:
        return []
    found = [finding for check in CHECKS for finding in check(pairs)]
    found += _length_skew(pairs, model)
    return sorted(found, key=lambda finding: finding.severity != "warning")


def _few(pairs: Pairs) -> Iterator[Finding]:
    prompts = len({pair.conversation for pair in pairs})
    if prompts < FEW_PROMPTS:
        what = f"There are only {prompts} prompts" + (f" in {len(pairs)} pairs" if prompts < len(pairs) else "")
        yield Finding(
            "few", "warning", f"{what}; 60 different ones are a good start, or the vector learns these by heart."
        )


def _near_duplicates(pairs: Pairs) -> Iterator[Finding]:
    """Find prompts that are nearly the same: held-out pairs are then not new to the vector."""
    first_of: dict[frozenset[str], int] = {}
    for index, pair in enumerate(pairs):
        first_of.setdefault(frozenset(_words(pair.prompt)), index)
    different = list(first_of)
    alike = {j for i, j in _candidates(different) if _jaccard(different[i], different[j]) >= ALIKE}
    lines = tuple(pairs[first_of[different[j]]].line for j in sorted(alike))
    if len(lines) >= max(LEAST_TIMES, OFTEN / 2 * len(pairs)):
        text = f"{len(lines)} prompts are nearly the same as others, so held-out pairs are not quite new;"
        yield Finding("near-duplicates", "warning", f"{text} keep one of each.", lines)


def _candidates(sets: Sequence[frozenset[str]]) -> set[tuple[int, int]]:
    """Pair up sets that share a band of min-hashes (Broder 1997), each with the first of its band."""
    draw = np.random.default_rng(0)
    prime = (1 << 31) - 1
    factors, offsets = draw.integers(1, prime, HASHES), draw.integers(0, prime, HASHES)
    signatures = np.zeros((len(sets), HASHES), dtype=np.int64)
    number: dict[str, int] = {}
    for row, words in enumerate(sets):
        values = np.array([number.setdefault(word, len(number)) for word in words] or [0], dtype=np.int64)
        signatures[row] = ((values[:, None] * factors + offsets) % prime).min(axis=0)
    found = set()
    for start in range(0, HASHES, BAND):
        first: dict[bytes, int] = {}
        for row in range(len(sets)):
            seen = first.setdefault(signatures[row, start : start + BAND].tobytes(), row)
            if seen != row:
                found.add((seen, row))
    return found


def _leaks(pairs: Pairs) -> Iterator[Finding]:
    for side, other in (("chosen", "rejected"), ("rejected", "chosen")):
        lines = tuple(
            pair.line
            for pair in pairs
            if len(pair.prompt) >= LEAK
            and pair.prompt[:LEAK] in getattr(pair, side)
            and pair.prompt[:LEAK] not in getattr(pair, other)
        )
        if len(lines) >= max(LEAST_TIMES, OFTEN * len(pairs)):
            text = f"{len(lines)} {side} answers repeat the prompt and the others do not;"
            text = f"{text} the vector would learn to repeat. Take the prompt out of them."
            yield Finding("leak", "warning", text, lines)


def _repeated_answers(pairs: Pairs) -> Iterator[Finding]:
    for side in ("chosen", "rejected"):
        lines_of: dict[str, list[int]] = defaultdict(list)
        for pair in pairs:
            lines_of[" ".join(_words(getattr(pair, side)))].append(pair.line)
        answer, lines = max(lines_of.items(), key=lambda one: len(one[1]))
        if len(lines) >= max(LEAST_TIMES, OFTEN * len(pairs)) and len(answer.split()) > 2:  # not (A), Yes, No
            text = f"The {side} answer {shortened(answer)!r} is used {len(lines)} times"
            yield Finding(
                "repeated", "warning", f"{text}; the vector would learn that sentence. Vary it.", tuple(lines)
            )


def _beginnings(pairs: Pairs) -> Iterator[Finding]:
    openings = {side: [_opening(getattr(pair, side)) for pair in pairs] for side in ("chosen", "rejected")}
    for side, other in (("chosen", "rejected"), ("rejected", "chosen")):
        opening, count = Counter(openings[side]).most_common(1)[0]
        if opening and count >= max(LEAST_TIMES, MOSTLY * len(pairs)) and openings[other].count(opening) < count / 4:
            text = f"{count} of {len(pairs)} {side} answers begin with {opening!r}; the vector would learn those words."
            lines = tuple(pair.line for pair, each in zip(pairs, openings[side], strict=True) if each == opening)
            yield Finding("opening", "warning", f"{text} Vary how they begin.", lines)
    same = tuple(
        pair.line
        for pair, *both in zip(pairs, openings["chosen"], openings["rejected"], strict=True)
        if both[0] and both[0] == both[1]
    )
    if len(same) >= max(LEAST_TIMES, MOSTLY * len(pairs)):
        text = (
            f"In {len(same)} pairs both answers begin alike, so their first words, which steer the rest, say nothing."
        )
        yield Finding("begin-alike", "note", f"{text} Let them differ from the start.", same)


def _scripts(pairs: Pairs) -> Iterator[Finding]:
    scripts = {side: [_script(getattr(pair, side)) for pair in pairs] for side in ("prompt", "chosen", "rejected")}
    differ = tuple(
        pair.line
        for pair, *both in zip(pairs, scripts["chosen"], scripts["rejected"], strict=True)
        if both[0] and both[1] and both[0] != both[1]
    )
    if differ:
        text = f"In {len(differ)} pairs the two answers are in different scripts; the vector would learn the language."
        yield Finding("language", "warning", f"{text} Give both answers in one language.", differ)
    usual = Counter(filter(None, scripts["prompt"])).most_common()
    if len(usual) > 1 and not differ:
        lines = tuple(p.line for p, each in zip(pairs, scripts["prompt"], strict=True) if each and each != usual[0][0])
        named = ", ".join(f"{name.capitalize()} {count}" for name, count in usual[:4])
        text = f"Prompts are in several scripts ({named}); a vector carries over between languages only in part."
        yield Finding("language", "note", text, lines)


def _length_skew(pairs: Pairs, model: LanguageModel | None) -> Iterator[Finding]:
    """Compare the lengths of the two sides: a sum over more tokens moves further for the same change of each."""
    sample = pairs[:200]
    count: Callable[[str], int] = len
    if model is not None:
        tokenizer = model.tokenizer
        count = lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])  # noqa: E731
    chosen, rejected = (sum(count(getattr(p, side)) for p in sample) for side in ("chosen", "rejected"))
    ratio = max(chosen, rejected, 1) / max(1, min(chosen, rejected))
    if ratio >= LENGTH_SKEW:
        longer = "chosen" if chosen > rejected else "rejected"
        text = (
            f"The {longer} answers are {ratio:.1f} times as long as the others. Log-probabilities are summed over "
            "tokens, so the long side counts for more and the vector may learn length; a weight on length of 1"
            " evens that out."
        )
        yield Finding(
            "length", "warning" if ratio >= 2 * LENGTH_SKEW else "note", text, settings={"length_weight": 1.0}
        )


CHECKS: tuple[Callable[[Pairs], Iterator[Finding]], ...] = (
    _few,
    _near_duplicates,
    _leaks,
    _repeated_answers,
    _beginnings,
    _scripts,
)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _opening(text: str) -> str:
    """Return the first three words of an answer; nothing for a shorter one."""
    words = re.findall(r"\S+", text)[:3]
    return " ".join(words) if len(words) == 3 else ""


def _jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    return len(first & second) / max(len(first | second), 1)


def _script(text: str) -> str:
    """Name the script of most letters of a text, after the first word of their Unicode names; empty without letters."""
    counts = Counter(_script_of(character) for character in text[:400] if character.isalpha())
    return counts.most_common(1)[0][0] if counts else ""


@lru_cache(10_000)
def _script_of(character: str) -> str:
    name = unicodedata.name(character, "").split(" ")[0]
    return "CJK" if name in ("CJK", "HIRAGANA", "KATAKANA", "HANGUL") else name
