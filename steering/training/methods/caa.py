"""CAA: contrastive activation addition, the mean difference of activations.

Rimsky et al., "Steering Llama 2 via Contrastive Activation Addition", arXiv 2312.06681:

    v_k = mean over pairs of [h_k(prompt, chosen) - h_k(prompt, rejected)]

with h_k the output of decoder block k. Nothing is optimised: each answer is run once, up
to the last of the layers.

What differs from the paper: there the answers are the letters of multiple-choice questions, "(A)" or "(B)", and h_k is
taken at the letter. Here they are free text, so h_k is the mean over the answer's tokens, or that of its last one
(`position`), end of turn left out. The vector is not normalised: multiplier 1 adds the raw mean difference, where the
paper's later code scales all behaviors to one norm. As in the paper it is added at the positions after the prompt.
"""

from collections.abc import Generator
from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from steering.training.config import SWEEP, WHERE_GROUP, MethodConfig, setting
from steering.training.registry import Method, RunContext

if TYPE_CHECKING:
    from torch import Tensor

    from steering.models.loading import LanguageModel
    from steering.pairs.dataset import Pairs
    from steering.training.progress import Progress

GROUP = "Which activations it compares"


class CAAConfig(MethodConfig):
    """Settings of a run. Several layers get their mean differences all at once."""

    position: Literal["mean", "last"] = setting(
        "mean",
        label="Activations of",
        help="what stands for an answer: the mean over its tokens, or its last token",
        group=GROUP,
        choice_labels={"mean": "all of the answer, averaged", "last": "the answer's last token"},
    )
    token_scope: Literal["all", "answer"] = setting(
        "answer",
        label="Steered text",
        help="positions that are steered where the vector is used: all, or those of the answer",
        group=WHERE_GROUP,
        choice_labels={"all": "everywhere", "answer": "only in the answer, as in the paper"},
    )

    @model_validator(mode="after")
    def _layer_is_given(self) -> Self:
        if self.layer == SWEEP:
            raise ValueError("caa cannot look for the best layer; give its number, or leave it out for the middle one.")
        return self


def mean_difference(chosen: "Tensor", rejected: "Tensor") -> "Tensor":
    """Mean over pairs of chosen minus rejected: both [pairs, hidden_size], the result [hidden_size]."""
    return (chosen - rejected).mean(dim=0)


def run(
    model: "LanguageModel", pairs: "Pairs", held_out: "Pairs", config: CAAConfig, context: RunContext
) -> "Generator[Progress, None, None]":
    """Take the mean difference at each layer of the config."""
    from steering.training.extraction import extract  # loads torch, which listing the methods does without

    options = {"position": config.position, "token_scope": config.token_scope}
    return extract("caa", mean_difference, model, pairs, held_out, config, context, **options)


def estimate(model: "LanguageModel", pairs: "Pairs", held_out: "Pairs", config: CAAConfig) -> float:
    """Predict the seconds of a run on this machine: see `extraction.estimate`."""
    from steering.training.extraction import estimate

    return estimate(model, pairs, config)


METHOD = Method(
    name="caa",
    label="CAA: mean difference",
    description="Takes the difference between what the model computes for chosen and for rejected answers, on average. "
    "Nothing is optimised, so it takes seconds.",
    config_class=CAAConfig,
    run=run,
    estimate=estimate,
)
