"""Measure how a steered text reads: how unlikely it became, how much it repeats, and whether it has broken down.

A traced column is all that is needed, so there is no further pass of the model. Texts are counted by the tokens that
the model wrote, not by words, so that scripts without spaces are measured alike.

- Perplexity of the text under the untouched model: exp of the mean of -log p (nats) over its tokens.
- Repetition: share of n-grams that stood before in the same text (seq-rep-n in Welleck et al. 2019, arXiv:1908.04319).
- Distinct share: different tokens over all tokens (distinct-1 in Li et al. 2016, arXiv:1510.03055).

The thresholds were set by hand on 485 answers of the bundled model, reading parts of those near a border: the shipped
vectors at multipliers -6 to 6 on four prompts (72 tokens, greedy with repetition penalty 1.1; three of the prompts also
drawn at temperature 0.8), and lists, poems, code, French and Japanese (96 tokens, greedy, most also with no penalty).
What people can read should not be called broken, so doubtful texts pass. No other model was tried.
"""

import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from steering.errors import SteeringError
from steering.generation.results import Column, TokenChance

NGRAM = 4
"""Tokens; seq-rep-4 is what Welleck et al. 2019 report."""

# Loops fill 0.66 and more of some 32 n-grams in a row; readable text stayed below 0.57 (boilerplate of code, a list
# of days), but for a verse that came twice word for word. A shorter text is held against SHORT n-grams, so that
# "no, no, no!" is no loop.
LOOP, LOOP_WINDOW, SHORT = 0.65, 32, 16

# A model that circles a few words without repeating itself to the letter ("it was it was it been a it was") has 0.33 to
# 0.38 of 64 tokens distinct, at a perplexity of 11 and more; a list of days has as few, but is no surprise (1 to 2).
CIRCLING, CIRCLING_WINDOW, CIRCLING_PERPLEXITY = 0.4, 64, 8.0

# The untouched model's own answers have perplexities of 3 (greedy) to 6 (temperature 0.8). Steered ones read well up to
# about 35, and from about 45 they are word salad; in between are slang, verse and the first cracks. Where the baseline
# itself is unlikely, as at high temperatures, a multiple of its perplexity is the limit, if that is more.
NONSENSE_PERPLEXITY, NONSENSE_RATIO = 32.0, 6.0

# From token to token -log p has a standard deviation of 0.7 to 2.7 nats, so the mean of a short text proves little: a
# sound answer of 12 tokens had a perplexity of 31. The limit is raised by about one standard error of the mean.
SPREAD = 2.0

# The score falls with the logarithm of the perplexity from where cheerful, poetic and pirate answers still read well to
# one and a half times the limit of nonsense, and with what is repeated beyond a tenth of the 4-grams.
SCORE_PERPLEXITY, SCORE_END, SCORE_REPEATED = 16.0, 1.5, 0.1

# One token that is all but impossible must not decide alone, and float32 rounds such a probability to 0.
LEAST_PROBABILITY = 1e-12


@dataclass(frozen=True)
class Fluency:
    """How a text reads.

    Attributes:
        perplexity: of the text under the untouched model, the end-of-turn token included; from 1 (no surprise) up.
        repeated: share of its 4-grams of tokens that stood before in it, 0 to 1.
        distinct: share of different tokens among its tokens, 0 to 1; longer texts have less.
        reason: why it counts as broken down, as in "the answer repeats itself", without its subject; else empty.
        compression: bytes of the text over those of zlib's best compression; more for texts that repeat themselves.
        score: 1 for a text as likely as the untouched model's own, falling with the logarithm of its perplexity to 0
            where nonsense begins, and with the share that it repeats; 0 if it has broken down.
    """

    perplexity: float
    repeated: float
    distinct: float
    reason: str = ""
    compression: float = 1.0
    score: float = 1.0

    @property
    def logp(self) -> float:
        """Mean log-probability of a token in the untouched model, in nats."""
        return -math.log(self.perplexity)

    @property
    def broken(self) -> bool:
        """Whether the text has broken down."""
        return bool(self.reason)


def fluency(column: Column, baseline: Column | None = None) -> Fluency:
    """Measure how a traced column reads, finished or not.

    Args:
        column: generated with `trace=True`.
        baseline: the traced baseline of the same run; where it is itself unlikely (high temperatures), the limit of
            the perplexity is a multiple of its own.

    Raises:
        SteeringError: a column was generated without a trace.

    Example:
        >>> baseline, steered = generate(model, prompt, [{}, {vector: 6.0}], trace=True)
        >>> fluency(steered, baseline).reason
        'repeats itself'
    """
    units = [unit for unit in map(_unit, column.trace) if unit]
    perplexity = _perplexity(column)
    again = _stood_before(units)
    usual = _perplexity(baseline) if baseline else 1.0
    limit = max(NONSENSE_PERPLEXITY, NONSENSE_RATIO * usual) * math.exp(SPREAD / math.sqrt(len(column.trace)))
    reason = ""
    if column.finished and not column.text.strip():
        reason = "says nothing"
    elif _loops(again) or (_circles(units) and perplexity >= CIRCLING_PERPLEXITY):
        reason = "repeats itself"
    elif perplexity > limit:
        reason = "reads like nonsense to the untouched model"
    repeated = _share(again)
    score = 0.0 if reason else _score(perplexity, max(NONSENSE_PERPLEXITY, NONSENSE_RATIO * usual), repeated)
    return Fluency(perplexity, repeated, _distinct(units), reason, _compression(column.text), score)


def last_sound(judgements: Mapping[float, Fluency], multiplier: float) -> float | None:
    """Find the multiplier nearest to `multiplier`, itself or on the way to 0, at which the text is sound; else None.

    Args:
        judgements: multiplier of one vector -> how the text reads there; 0 is the baseline.
        multiplier: the one wanted.
    """
    low, high = sorted((0.0, multiplier))
    sound = [m for m, judged in judgements.items() if low <= m <= high and not judged.broken]
    return max(sound, key=abs, default=None)


def _perplexity(column: Column) -> float:
    if not column.trace:
        raise SteeringError("How a column reads cannot be judged without its trace; generate it with trace=True.")
    chances = (
        chance.untouched if chance.untouched > LEAST_PROBABILITY else LEAST_PROBABILITY for chance in column.trace
    )
    return math.exp(-sum(map(math.log, chances)) / len(column.trace))


def _score(perplexity: float, nonsense: float, repeated: float) -> float:
    """Score a text that has not broken down, from 0 to 1; `nonsense` is the perplexity where nonsense begins."""
    end = SCORE_END * nonsense
    likely = math.log(end / perplexity) / math.log(end / SCORE_PERPLEXITY)
    fresh = 1 - (repeated - SCORE_REPEATED) / (LOOP - SCORE_REPEATED)
    return min(1.0, max(0.0, likely)) * min(1.0, max(0.0, fresh))


def _compression(text: str) -> float:
    data = text.encode()
    return len(data) / len(zlib.compress(data, 9)) if data else 1.0


def _unit(chance: TokenChance) -> str:
    """Normalise a token for counting; empty for the end-of-turn token and for the first part of a character."""
    return chance.text.strip().casefold() or chance.text


def _stood_before(units: Sequence[str]) -> list[bool]:
    """Tell for each n-gram of the text whether it occurred before."""
    seen: set[tuple[str, ...]] = set()
    again = []
    for ngram in zip(*(units[start:] for start in range(NGRAM)), strict=False):
        again.append(ngram in seen)
        seen.add(ngram)
    return again


def _loops(again: Sequence[bool]) -> bool:
    return any(sum(part) >= LOOP * max(SHORT, len(part)) for part in _windows(again, LOOP_WINDOW))


def _circles(units: Sequence[str]) -> bool:
    parts = _windows(units, CIRCLING_WINDOW)
    return len(units) >= CIRCLING_WINDOW and any(_distinct(part) < CIRCLING for part in parts)


def _windows(items: Sequence, size: int) -> Iterator[Sequence]:
    """Yield all runs of `size` neighbours; of fewer items, all of them as one run."""
    return (items[start : start + size] for start in range(max(1, len(items) - size + 1)))


def _share(flags: Iterable[bool]) -> float:
    flags = list(flags)
    return sum(flags) / len(flags) if flags else 0.0


def _distinct(units: Sequence[str]) -> float:
    return len(set(units)) / len(units) if units else 1.0
