"""RePS: reference-free preference steering.

Wu et al., arXiv 2505.20809. Adding a times the vector, a drawn anew for each step, is to favor the chosen answer;
taking its direction out of the hidden state is to favor the rejected one:

    D+ = b+ log p(chosen) / n_c - log p(rejected) / n_r    under h + a v,           b+ = max(lp0_r - lp0_c, 1)
    D- = b- log p(rejected) / n_r - log p(chosen) / n_c    under h - max(h.u, 0) u, b- = max(lp0_c - lp0_r, 1)
    loss = -log sigmoid(D+) - log sigmoid(D-)

with lp0_c and lp0_r the untouched model's log-probabilities of chosen and rejected answer, and u = v / |v|. What
differs: a is drawn from 0.5 to 2 (the paper's factors suit vectors of another norm), the vector starts at the mean
difference (a direction is needed to take one out), n counts the answer's tokens (the authors' code counts the prompt's,
too), and the projection has no offset. Subtracting the vector is never trained.
"""

from steering.training.preference_method import preference_method

METHOD = preference_method(
    "reps",
    label="RePS: several strengths",
    description="Trains at strengths drawn anew for each step, and asks that taking the direction out favors the "
    "rejected answer. The left side of the slider is not trained.",
    compare="free",
    length_weight=1.0,
    beta=1.0,
    lift=True,
    opposite="project",
    least_multiplier=0.5,
    most_multiplier=2.0,
    signs="both",
    start="mean_difference",
)
