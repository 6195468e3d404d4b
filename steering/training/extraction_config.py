"""Settings that all extraction methods share, and the types of what each brings."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import model_validator

from steering.training.config import SWEEP, WHERE_GROUP, MethodConfig, setting

if TYPE_CHECKING:  # listing the methods must not wait for torch
    from torch import Tensor

    from steering.pairs.dataset import Pairs, PreferencePair

ACTIVATIONS_GROUP = "Which activations it compares"
"""Heading on the page."""


class ExtractionConfig(MethodConfig):
    """Settings of a run. Several layers get a direction each."""

    position: Literal["mean", "last"] = setting(
        "mean",
        label="Activations of",
        help="what stands for an answer: the mean over its tokens, or its last token",
        group=ACTIVATIONS_GROUP,
        choice_labels={"mean": "all of the answer, averaged", "last": "the answer's last token"},
    )
    token_scope: Literal["all", "answer"] = setting(
        "answer",
        label="Steered text",
        help="positions that are steered where the vector is used: all, or those of the answer",
        group=WHERE_GROUP,
        choice_labels={"all": "everywhere", "answer": "only in the answer"},
    )

    @model_validator(mode="after")
    def _layer_is_given(self) -> Self:
        if self.layer == SWEEP:
            raise ValueError(
                "This method cannot look for the best layer; give its number, or leave it out for the middle one."
            )
        return self


Fit = Callable[["Tensor", "Tensor", Any], "Tensor"]
"""(chosen, rejected, config) -> direction [hidden_size]: the activations of one layer, float32 [pairs, hidden_size]."""
Prepare = Callable[["Pairs", Any], "Sequence[PreferencePair]"]
"""(pairs, config) -> what the model reads in place of each pair."""


def with_norm_of_mean_difference(direction: "Tensor", chosen: "Tensor", rejected: "Tensor") -> "Tensor":
    """Scale a direction to the norm of the mean difference, and turn it to the chosen side.

    A component or a weight vector has neither: at this norm multiplier 1 is as large a step as that of `caa`, so that
    methods compare at the same multiplier.

    Args:
        direction: [hidden_size], of any norm but 0.
        chosen, rejected: activations [pairs, hidden_size].
    """
    mean = (chosen - rejected).mean(dim=0)
    turned = -direction if float(direction @ mean) < 0 else direction
    return turned * (mean.norm() / turned.norm().clamp(min=1e-12))
