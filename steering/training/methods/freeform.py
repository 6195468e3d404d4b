"""Freeform: the mean difference at the last token but one of free answers, at a layer chosen by their divergence.

Wang and Shu, "Trojan Activation Attack: Red-Teaming Large Language Models using Steering Vectors", arXiv 2311.09433,
which Cao et al. (BiPO) compare with under this name:

    v_k = mean over pairs of [h_k(prompt, chosen)[-2] - h_k(prompt, rejected)[-2]]

with h_k the output of decoder block k. Where no layer is given it is the one of the first half of the model at which
softmax(h_k) of chosen and of rejected answers differ most, by the Jensen-Shannon divergence averaged over pairs.

What differs from the authors' code: it passes probabilities where `kl_div` expects their logarithms, so that its score
is no divergence; here it is one. It looks at the layers 0 to 16 of 32; here at the same share of any depth.
"""

from typing import TYPE_CHECKING, Literal

from steering.training.config import setting
from steering.training.extraction_config import ExtractionConfig
from steering.training.extraction_method import extraction_method
from steering.training.methods.caa import mean_difference

if TYPE_CHECKING:
    from torch import Tensor


class FreeformConfig(ExtractionConfig):
    """Settings of a run; without a layer, the one where the answers differ most is taken."""

    position: Literal["before_last"] = setting(  # type: ignore[assignment]
        "before_last", label="Activations of", help="what stands for an answer: its last token but one"
    )


def divergence(chosen: "Tensor", rejected: "Tensor") -> float:
    """Return the Jensen-Shannon divergence of softmax(chosen) and softmax(rejected), mean over pairs, in nats.

    Args:
        chosen, rejected: activations [pairs, hidden_size].
    """
    p, n = chosen.softmax(dim=-1), rejected.softmax(dim=-1)
    middle = ((p + n) / 2).clamp(min=1e-30).log()
    each = [(part * (part.clamp(min=1e-30).log() - middle)).sum(dim=-1) for part in (p, n)]
    return float(((each[0] + each[1]) / 2).mean())


def most_divergent(chosen: "dict[int, Tensor]", rejected: "dict[int, Tensor]") -> int:
    """Return the layer at which `divergence` is greatest."""
    return max(chosen, key=lambda layer: divergence(chosen[layer], rejected[layer]))


METHOD = extraction_method(
    "freeform",
    label="Freeform: mean difference at one token",
    description="Compares chosen and rejected answers at their last token but one, at the layer where they differ "
    "most. Takes seconds.",
    fit=mean_difference,
    config_class=FreeformConfig,
    choose_layer=most_divergent,
)
