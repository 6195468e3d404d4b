"""Mass-mean: the mean difference, corrected for how the activations vary anyway.

Marks and Tegmark, "The Geometry of Truth", arXiv 2310.06824, section 5: with mu the mean difference and Sigma the
covariance of activations about the mean of their own class,

    v = Sigma^-1 mu

which is also the direction of linear discriminant analysis. With fewer answers than dimensions Sigma cannot be
inverted, so it is shrunk towards a multiple of the identity by Ledoit and Wolf's estimate. v is scaled to the norm of
mu. The authors read along Sigma^-1 mu and steer along mu, which is `caa` here.
"""

from typing import TYPE_CHECKING

from steering.training.extraction_config import ExtractionConfig, with_norm_of_mean_difference
from steering.training.extraction_method import extraction_method

if TYPE_CHECKING:
    from torch import Tensor


def whitened_mean_difference(chosen: "Tensor", rejected: "Tensor", config: object = None) -> "Tensor":
    """Return Sigma^-1 times the mean difference: activations [pairs, hidden_size] -> [hidden_size]."""
    import torch
    from sklearn.covariance import ledoit_wolf

    mean = (chosen - rejected).mean(dim=0)
    if len(chosen) < 2:
        return mean
    within = torch.cat([chosen - chosen.mean(dim=0), rejected - rejected.mean(dim=0)]).double()
    covariance, _ = ledoit_wolf(within.numpy(), assume_centered=True)
    direction = torch.linalg.solve(torch.from_numpy(covariance), mean.double()).float()
    return with_norm_of_mean_difference(direction, chosen, rejected)


METHOD = extraction_method(
    "mass-mean",
    label="Mass-mean: corrected mean difference",
    description="The mean difference, turned away from directions in which answers vary anyway. Takes seconds.",
    fit=whitened_mean_difference,
    config_class=ExtractionConfig,
)
