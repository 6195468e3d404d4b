"""How the next token is chosen from the logits: transformers' processors, and one draw of chance for all columns."""

from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from steering.errors import SteeringError

MAX_NEW_TOKENS = 4096
CANDIDATES = 1024


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        max_new_tokens: most tokens an answer may have.
        temperature: 0 takes the most probable token always (greedy); above it, draws.
        top_p, top_k: when drawing, keep only the most probable tokens (1.0 and 0 keep all).
        repetition_penalty: above 1 makes tokens that occurred less probable.
        seed: of the random numbers; the same ones serve every column, so that what differs is the steering.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0

    def check(self) -> None:
        """Raise SteeringError for a value out of range."""
        bounds = {
            "max_new_tokens": (1, MAX_NEW_TOKENS),
            "temperature": (0, 10),
            "top_p": (0.01, 1),
            "top_k": (0, 100_000),
            "repetition_penalty": (0.5, 5),
            "seed": (0, 2**63 - 1),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            kind: Any = Integral if isinstance(getattr(Sampling, name), int) else Real
            if not isinstance(value, kind) or not low <= value <= high:  # nan fails too
                number = "whole number" if kind is Integral else "number"
                raise SteeringError(f"{name.replace('_', ' ')} is {value}; give a {number} from {low} to {high}.")

    def processors(self) -> LogitsProcessorList:
        """Return transformers' processors, in the order its `generate` uses."""
        chain = LogitsProcessorList()
        if self.repetition_penalty != 1:
            chain.append(RepetitionPenaltyLogitsProcessor(self.repetition_penalty))
        if self.temperature > 0:
            chain.append(TemperatureLogitsWarper(float(self.temperature)))
            if self.top_k > 0:
                chain.append(TopKLogitsWarper(self.top_k))
            if self.top_p < 1:
                chain.append(NucleusWarper(self.top_p))
        return chain


class NucleusWarper(TopPLogitsWarper):
    """transformers' top-p. It sorts the whole vocabulary; the few most probable tokens nearly always suffice."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Set scores [rows, vocabulary] outside the nucleus to `filter_value`, as the parent class does."""
        if scores.shape[-1] <= CANDIDATES:
            return super().__call__(input_ids, scores)
        best, places = scores.topk(CANDIDATES, dim=-1)
        reached = scores.softmax(-1).gather(-1, places).double().cumsum(-1)
        if not bool((reached[:, -1] >= self.top_p).all()):
            return super().__call__(input_ids, scores)
        outside = reached.roll(1, dims=-1) >= self.top_p  # the better ones alone reach top_p
        outside[:, : self.min_tokens_to_keep] = False
        filtered = torch.full_like(scores, self.filter_value)
        return filtered.scatter(-1, places, best.masked_fill(outside, self.filter_value))


@dataclass
class SharedNoise:
    """Gumbel noise over the vocabulary, one draw a step for all columns.

    The token with the largest log-probability plus Gumbel noise is an exact draw from the distribution (the Gumbel-max
    trick). With one draw shared by the columns, two columns pick different tokens only where steering moved the
    distribution, and a column's draws do not depend on how many others there are.
    """

    seed: int
    _generator: torch.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)

    def next(self, vocabulary: int) -> Tensor:
        """Draw the next step's noise, float32 [vocabulary]."""
        uniform = torch.rand(vocabulary, generator=self._generator, dtype=torch.float64)
        return -torch.log(-torch.log(uniform.clamp_min(1e-300))).float()
