"""ReFT-r1-like: the vector makes the chosen answers likely, by cross-entropy alone.

After ReFT-r1 of Wu et al., "AxBench", arXiv 2501.17148, without its sparse detector: loss = CE(chosen) with the vector
added. Rejected answers are not looked at, so no opposite is trained.
"""

from steering.training.preference_method import preference_method

METHOD = preference_method(
    "reft",
    label="ReFT: learns the chosen answers",
    description="Makes the chosen answers likely and does not look at the rejected ones. Its opposite is not trained.",
    compare="none",
    anchor=1.0,
    signs="plus",
    start="mean_difference",
)
