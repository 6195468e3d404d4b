"""What the Playground's controls hold besides the vectors: their names in the address, their ranges, what they mean."""

import math
from dataclasses import dataclass, fields
from typing import Any

from steering.errors import SteeringError
from steering.generation.sampling import Sampling
from steering.models.chat_template import DEFAULT_SYSTEM_PROMPT

COMPARE, SWEEP = "compare", "sweep"
DEFAULT_TOKENS, MOST_TOKENS = 80, 512
LONGEST_PROMPT = 20_000  # characters; the model's own limit is told in tokens
LARGEST_SEED = 2**31

NAMES = {
    "prompt": "p",
    "mode": "mode",
    "system": "sys",
    "tokens": "tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "penalty": "penalty",
    "seed": "seed",
    "new_seed": "new_seed",
    "marks": "marks",
    "strip": "strip",
    "full": "full",
}
"""Control -> its name in the address."""

RANGES = {
    "tokens": (8, MOST_TOKENS),
    "temperature": (0.0, 2.0),
    "top_p": (0.05, 1.0),
    "penalty": (1.0, 1.5),
    "seed": (0, LARGEST_SEED),
}


@dataclass(frozen=True)
class Controls:
    """One reading of the controls, in the order in which they are wired.

    Attributes:
        mode: `compare` (untouched, setting, opposite) or `sweep` (one vector over its range).
        tokens, temperature, top_p, penalty, seed: sampling; new_seed: draw a new seed for each answer.
        marks: mark the words that steering changed; strip: write the active slider's whole range, too.
        full: full-precision weights.
    """

    prompt: str
    mode: str = COMPARE
    system: str = DEFAULT_SYSTEM_PROMPT
    tokens: int = DEFAULT_TOKENS
    temperature: float = 0.0
    top_p: float = 1.0
    penalty: float = 1.1
    seed: int = 0
    new_seed: bool = False
    marks: bool = True
    strip: bool = True
    full: bool = False

    @classmethod
    def read(cls, values: list[Any]) -> "Controls":
        """Controls from what a browser sent; SteeringError for what no control can hold."""
        given = dict(zip((field.name for field in fields(cls)), values, strict=True))
        for name in ("prompt", "system"):
            given[name] = str(given[name] or "")
            if len(given[name]) > LONGEST_PROMPT:
                raise SteeringError(
                    f"The {'system ' * (name == 'system')}prompt has {len(given[name]):,} characters; "
                    f"{LONGEST_PROMPT:,} are the most."
                )
        for name, (low, high) in RANGES.items():
            value = getattr(cls, name) if given[name] is None else given[name]
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise SteeringError(f"{name.replace('_', ' ')} is {value!r}; give a number from {low:g} to {high:g}.")
            given[name] = type(getattr(cls, name))(min(high, max(low, value)))
        for name in ("new_seed", "marks", "strip", "full"):
            given[name] = bool(given[name])
        return cls(**given)

    @property
    def sampling(self) -> Sampling:
        return Sampling(
            max_new_tokens=self.tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            repetition_penalty=self.penalty,
            seed=self.seed,
        )

    @property
    def weights(self) -> str:
        return "full" if self.full else "float16"
