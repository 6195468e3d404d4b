"""DPO: direct preference optimization of a vector, in one direction only.

Rafailov et al., arXiv 2305.18290, with a steering vector as the only parameter: BiPO's loss with d = +1 in every step.
What the vector does when it is subtracted is left to chance.
"""

from steering.training.preference_method import preference_method

METHOD = preference_method(
    "dpo",
    label="DPO: trained one way",
    description="As BiPO, but only adding the vector is trained: its opposite may do nothing. Half of BiPO's time a "
    "step where that trains both ways.",
    signs="plus",
)
