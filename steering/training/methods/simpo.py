"""SimPO-like: a preference objective without the untouched model.

Meng et al., "SimPO: Simple Preference Optimization with a Reference-Free Reward", arXiv 2405.14734, in both directions:

    loss = -log sigmoid(beta [log p(favored) / n_f - log p(other) / n_o] - gamma)

with log-probabilities averaged over the n tokens of an answer, beta 2 and gamma 1 (the paper's range: 2 to 2.5, 0.3 to
1.6 for beta times the length-normalised reward).
"""

from steering.training.preference_method import preference_method

METHOD = preference_method(
    "simpo",
    label="SimPO: without a reference",
    description="Asks that the favored answer is likelier per token than the other, by a margin, whatever the "
    "untouched model thinks. Long and short answers count alike.",
    compare="free",
    length_weight=1.0,
    beta=2.0,
    target_margin=1.0,
    signs="both",
    start="mean_difference",
)
