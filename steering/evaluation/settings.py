"""What an evaluation does: prompts, multipliers, length of the answers, judge and baselines."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from steering.errors import SteeringError
from steering.evaluation.baselines import BASELINES, FEW_SHOT, MEAN_DIFFERENCE, RANDOM, SYSTEM_PROMPT
from steering.models.chat_template import DEFAULT_SYSTEM_PROMPT
from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs
from steering.vectors.action import check_multiplier
from steering.vectors.vector import SteeringVector

COARSE = (1.0, -1.0, 2.0, -2.0, 4.0, -4.0)
"""Multipliers of the curve, in the order in which they are measured; the untouched model is always there."""
FINER = (0.5, -0.5, 1.5, -1.5, 3.0, -3.0)
"""Those that are measured once the coarse curve is there."""
PROMPTS = 20
"""Of an evaluation: with 20 the 95 % interval of a mean behavior score is about 0.15 wide to either side."""
NEW_TOKENS = 40
"""Of each answer: two or three sentences, in which a behavior shows or does not."""
RANDOM_DIRECTIONS = 20
"""The fewest with which "better than all of them" is rarer than 1 in 20 by chance."""


@dataclass(frozen=True)
class EvaluationSettings:
    """All that decides an evaluation's numbers, beside model, vector and pairs.

    Attributes:
        prompts: what is answered; at least 2.
        multipliers: of the vector, in the order of measuring; 0 is always measured.
        finer: more of them, measured at last.
        max_new_tokens: of an answer; repetition_penalty, system: as everywhere. Decoding is greedy.
        judge: name of the judge; judge_options: its own.
        baselines: some of `baselines.BASELINES`; random_directions: how many of them.
        seed: of the random directions and the resampling.
        utility: whether the multiple-choice questions are asked, at 0 and at `multipliers`.
        weights: with which the model generates, see `generation.stream`.
    """

    prompts: tuple[str, ...]
    multipliers: tuple[float, ...] = COARSE
    finer: tuple[float, ...] = FINER
    max_new_tokens: int = NEW_TOKENS
    repetition_penalty: float = 1.1
    system: str = DEFAULT_SYSTEM_PROMPT
    judge: str = "offline"
    judge_options: dict[str, str] = field(default_factory=dict)
    baselines: tuple[str, ...] = tuple(BASELINES)
    random_directions: int = RANDOM_DIRECTIONS
    seed: int = 0
    utility: bool = False
    weights: str = "float16"

    def __post_init__(self) -> None:
        """Raise SteeringError for settings that cannot be measured."""
        if len(self.prompts) < 2:
            raise SteeringError(f"{len(self.prompts)} prompts are too few to measure on; give 2 or more.")
        for multiplier in (*self.multipliers, *self.finer):
            check_multiplier(multiplier)
        if unknown := [name for name in self.baselines if name not in BASELINES]:
            raise SteeringError(f"There is no baseline {unknown[0]!r}; choose some of: {', '.join(BASELINES)}.")
        if not 1 <= self.max_new_tokens <= 1024:
            raise SteeringError(f"Answers of {self.max_new_tokens} tokens cannot be asked for; give 1 to 1024.")
        if not 0 <= self.random_directions <= 1000:
            raise SteeringError(f"{self.random_directions} random directions are too many; give 0 to 1000.")

    def as_json(self) -> dict[str, Any]:
        """Return the attributes by name, in JSON's types."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "EvaluationSettings":
        """Make settings of what `as_json` returned."""
        lists = ("prompts", "multipliers", "finer", "baselines")
        return cls(**fields | {key: tuple(fields[key]) for key in lists})

    def key(self, model: LanguageModel, vector: SteeringVector, pairs: Pairs) -> str:
        """Return a hex digest of all that decides the numbers; the same evaluation goes on under the same key."""
        directions = {k: hashlib.sha256(d.numpy().tobytes()).hexdigest() for k, d in vector.directions.items()}
        facts = [
            self.as_json(),
            model.fingerprint,
            directions,
            vector.token_scope,
            vector.operator,
            vector.targets,
            pairs.sha256,
        ]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    def answers_wanted(self, comparisons: int) -> int:
        """Return how many answers an evaluation writes that compares with so many other vectors."""
        arms = 1 + len(self.multipliers) + len(self.finer)
        arms += 2 * sum(name in self.baselines for name in (SYSTEM_PROMPT, FEW_SHOT))
        arms += 2 * comparisons * (MEAN_DIFFERENCE in self.baselines)
        drawn = self.random_directions if RANDOM in self.baselines else 0
        return arms * len(self.prompts) + 2 * drawn * ((len(self.prompts) + 1) // 2)

    def only(self, multipliers: Sequence[float]) -> "EvaluationSettings":
        """Return a copy that measures the vector at these multipliers and no baselines."""
        steered = tuple(dict.fromkeys(float(m) for m in multipliers if m))
        return replace(self, multipliers=steered, finer=(), baselines=())


def curve_groups(settings: EvaluationSettings) -> list[list[float]]:
    """Group the multipliers after the first: its opposite alone, then by twos, so that each fills a decode batch."""
    return [[m] for m in settings.multipliers[1:2]] + in_twos(settings.multipliers[2:])


def in_twos(numbers: Sequence[float]) -> list[list[float]]:
    """Split numbers into groups of two."""
    return [list(numbers[start : start + 2]) for start in range(0, len(numbers), 2)]
