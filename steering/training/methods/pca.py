"""PCA: the first principal component of activations.

Zou et al., "Representation Engineering", arXiv 2310.01405 (there of differences), and the programs made after it. With
c_i and r_i the activations of chosen and rejected answer of pair i, the first component is that of

    differences   c_i - r_i, about their mean          (repeng's `pca_diff`)
    centred       all c_i and r_i, about their mean    (activation-steering's `pca_center`)
    pairwise      c_i - m_i and r_i - m_i, m_i = (c_i + r_i) / 2
                  (repeng's `pca_center`, activation-steering's `pca_pairwise`, steering-vectors' `pca_aggregator`)

A component has no sign and norm 1: it is turned to the side of the chosen answers and scaled to the norm of the mean
difference. About their mean, differences lose what they have in common, which is the behavior itself: `differences` is
here for comparison.
"""

from typing import TYPE_CHECKING, Literal

from steering.training.config import setting
from steering.training.extraction_config import (
    ACTIVATIONS_GROUP,
    ExtractionConfig,
    with_norm_of_mean_difference,
)
from steering.training.extraction_method import extraction_method

if TYPE_CHECKING:
    from torch import Tensor


class PCAConfig(ExtractionConfig):
    """Settings of a run."""

    of: Literal["pairwise", "differences", "centred"] = setting(
        "pairwise",
        label="Component of",
        help="what the first principal component is taken of",
        group=ACTIVATIONS_GROUP,
        choice_labels={
            "pairwise": "both answers, about the middle of their pair",
            "differences": "differences, about their mean",
            "centred": "all answers, about their mean",
        },
    )


def first_component(chosen: "Tensor", rejected: "Tensor", config: PCAConfig) -> "Tensor":
    """Return the first principal component: activations [pairs, hidden_size] -> [hidden_size]."""
    import torch
    from sklearn.decomposition import PCA

    differences = chosen - rejected
    rows = {
        "pairwise": lambda: torch.cat([differences, -differences]) / 2,
        "differences": lambda: differences,
        "centred": lambda: torch.cat([chosen, rejected]),
    }[config.of]()
    if len(rows) < 2:
        return differences[0]
    component = PCA(n_components=1, random_state=config.seed % 2**32).fit(rows.double().numpy()).components_[0]
    return with_norm_of_mean_difference(torch.from_numpy(component).float(), chosen, rejected)


METHOD = extraction_method(
    "pca",
    label="PCA: main axis of the activations",
    description="Takes the axis along which chosen and rejected answers vary most. Takes seconds; good where one thing "
    "sets the answers apart, misled where something else varies more.",
    fit=first_component,
    config_class=PCAConfig,
)
