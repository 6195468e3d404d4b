"""Freeform: the mean difference at the last token but one of free answers.

Wang and Shu, "Trojan Activation Attack: Red-Teaming Large Language Models using Steering Vectors", arXiv 2311.09433,
which Cao et al. (BiPO) compare with under this name:

    v_k = mean over pairs of [h_k(prompt, chosen)[-2] - h_k(prompt, rejected)[-2]]

with h_k the output of decoder block k; the end of turn is not counted. The authors choose the layer by the
Jensen-Shannon divergence of softmax(h_k) of chosen and rejected answers. That is left out: from layer 1 of the bundled
model on, one dimension outweighs all others so far that these softmaxes are 1 there for every answer, and their
divergence is 0. The layer is given, or is the middle one (Cao et al. use 15 of 32).
"""

from typing import Literal

from steering.training.config import setting
from steering.training.extraction_config import ExtractionConfig
from steering.training.extraction_method import extraction_method
from steering.training.methods.caa import mean_difference


class FreeformConfig(ExtractionConfig):
    """Settings of a run."""

    position: Literal["before_last"] = setting(  # type: ignore[assignment]
        "before_last", label="Activations of", help="what stands for an answer: its last token but one"
    )


METHOD = extraction_method(
    "freeform",
    label="Freeform: mean difference at one token",
    description="Compares chosen and rejected answers at their last token but one. Takes seconds.",
    fit=mean_difference,
    config_class=FreeformConfig,
)
