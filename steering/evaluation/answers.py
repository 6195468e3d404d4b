"""Answers written for an evaluation: who wrote them, what they say, and what can be read off their tokens."""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from steering.evaluation.fluency import fluency
from steering.generation.results import Column


@dataclass(frozen=True)
class Arm:
    """One way of answering that is measured: a vector at a multiplier, or a baseline.

    Attributes:
        name: `untouched`, a vector's name, `system prompt`, `few-shot`, `mean difference`, `random 7` ...
        multiplier: of its vector; for prompting +1 asks for the behavior and -1 for its opposite; 0 if untouched.
    """

    name: str
    multiplier: float = 0.0


UNTOUCHED = Arm("untouched")
"""The untouched model with the default system prompt."""


@dataclass(frozen=True)
class Answer:
    """One written answer.

    Attributes:
        arm: who wrote it; prompt: number of the prompt that it answers.
        text, tokens: what it says, and how many tokens that took.
        perplexity, repeated, distinct, compression, broken: how it reads, see `fluency.Fluency`; None where its
            tokens were not traced.
        gain: by how many nats a token the untouched model finds it likelier after its prompt than after a neutral one;
            None where not traced.
        kl: Kullback-Leibler divergence of the steered from the untouched model at each token, in nats.
        behavior, relevance, fluency: scores from 0 to 1; None where not judged. The composite of the three goes to 2.
        problem: why the judge gave no score; else empty.
    """

    arm: Arm
    prompt: int
    text: str
    tokens: int
    perplexity: float | None = None
    repeated: float | None = None
    distinct: float | None = None
    compression: float | None = None
    broken: str = ""
    gain: float | None = None
    kl: tuple[float, ...] = ()
    behavior: float | None = None
    relevance: float | None = None
    fluency: float | None = None
    problem: str = ""

    @property
    def mean_kl(self) -> float | None:
        """Mean KL divergence over its tokens, in nats; None for an answer that nothing steered."""
        return sum(self.kl) / len(self.kl) if self.kl else None

    @property
    def composite(self) -> float | None:
        """Harmonic mean of behavior, relevance and fluency on a scale from 0 to 2 (AxBench, arXiv:2501.17148).

        Below multiplier 0 the opposite of the behavior is wanted.
        """
        wanted = self.behavior
        if wanted is not None and self.arm.multiplier < 0:
            wanted = 1 - wanted
        return composite(wanted, self.relevance, self.fluency)

    def related(self, usual_gain: float) -> "Answer":
        """Return a copy with a relevance: its gain as a share of the untouched model's usual one, from 0 to 1.

        Checked on 120 answers of the bundled model: gains to the right prompt and to another one overlap by 2 %
        (area under the ROC curve 0.98). A judge's own relevance is kept.
        """
        if self.relevance is not None or self.gain is None or not usual_gain > 0:
            return self
        return replace(self, relevance=min(1.0, max(0.0, self.gain / usual_gain)))

    def to_line(self) -> str:
        """Write it as one line of JSON."""
        fields = asdict(self) | {"kl": [round(value, 4) for value in self.kl]}
        fields = {key: round(value, 5) if isinstance(value, float) else value for key, value in fields.items()}
        return json.dumps(fields, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_line(cls, line: str) -> "Answer":
        """Read what `to_line` wrote; ValueError, KeyError or TypeError for anything else."""
        fields: dict[str, Any] = json.loads(line)
        return cls(**fields | {"arm": Arm(**fields["arm"]), "kl": tuple(fields["kl"])})


def answer_of(arm: Arm, prompt: int, column: Column, baseline: Column | None = None) -> Answer:
    """Make an answer of a column; `baseline` is the untouched model's to the same prompt, if it was written with it."""
    if not column.trace:
        return Answer(arm, prompt, column.text, column.tokens)
    read = fluency(column, baseline if baseline and baseline.trace else None)
    return Answer(
        arm,
        prompt,
        column.text,
        column.tokens,
        perplexity=read.perplexity,
        repeated=read.repeated,
        distinct=read.distinct,
        compression=read.compression,
        broken=read.reason,
        gain=read.logp,  # less what it has after the neutral prompt, once that is known
        kl=tuple(chance.kl for chance in column.trace) if any(column.setting.values()) else (),
        fluency=read.score,
    )


def composite(*scores: float | None) -> float | None:
    """Harmonic mean of scores from 0 to 1, each doubled: from 0 to 2, and 0 if any is 0; None if any is missing."""
    known = [2 * score for score in scores if score is not None]
    if len(known) < len(scores):
        return None
    return len(known) / sum(1 / score for score in known) if min(known) > 0 else 0.0
