"""Probe: the weights of a logistic regression that tells chosen from rejected answers by their activations.

Li et al., "Inference-Time Intervention", arXiv 2306.03341, steer along such weights (in attention heads). Here, as in
steering-vectors' `logistic_aggregator`, both activations of a pair are centred on their middle m_i = (c_i + r_i) / 2,
so that what the prompt brings drops out, and no intercept is fitted:

    w = argmin sum_i [log(1 + exp(-w.(c_i - m_i))) + log(1 + exp(w.(r_i - m_i)))] + |w|^2 / (2 C)

w is scaled to the norm of the mean difference. A probe that tells answers apart well may steer badly: it is free to
rely on whatever differs, also on what the model does not act upon.
"""

from typing import TYPE_CHECKING

from steering.training.config import setting
from steering.training.extraction_config import (
    ACTIVATIONS_GROUP,
    ExtractionConfig,
    with_norm_of_mean_difference,
)
from steering.training.extraction_method import extraction_method

if TYPE_CHECKING:
    from torch import Tensor

MOST_ITERATIONS = 1000
"""Of the solver; scikit-learn's own 100 do not suffice for the bundled model's activations (576 dimensions)."""


class ProbeConfig(ExtractionConfig):
    """Settings of a run."""

    regularization: float = setting(
        1.0,
        label="C of the probe",
        help="the smaller, the more the probe is held to simple answers (scikit-learn's C)",
        group=ACTIVATIONS_GROUP,
        gt=0,
        le=1e6,
    )


def probe_weights(chosen: "Tensor", rejected: "Tensor", config: ProbeConfig) -> "Tensor":
    """Fit the probe: activations [pairs, hidden_size] -> [hidden_size]."""
    import numpy as np
    import torch
    from sklearn.linear_model import LogisticRegression

    half = ((chosen - rejected) / 2).double().numpy()
    regression = LogisticRegression(C=config.regularization, fit_intercept=False, max_iter=MOST_ITERATIONS)
    regression.fit(np.concatenate([half, -half]), np.repeat([1, 0], len(half)))
    return with_norm_of_mean_difference(torch.from_numpy(regression.coef_[0]).float(), chosen, rejected)


METHOD = extraction_method(
    "probe",
    label="Probe: logistic regression",
    description="Learns to tell chosen from rejected answers and steers along what tells them apart. Takes seconds.",
    fit=probe_weights,
    config_class=ProbeConfig,
)
