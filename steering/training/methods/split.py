"""SPLIT: cross-entropy on both answers, and a hinge that keeps them apart.

arXiv 2602.02343, with the weights of its code for power-seeking, in both directions (favored f, other o):

    loss = CE_f + 0.6 CE_o + 5 max(0, 0.5 - (CE_o - CE_f))

CE is the cross-entropy per token. Both answers stay likely, so that the text stays sound; the hinge
makes the difference.
"""

from steering.training.preference_method import preference_method

METHOD = preference_method(
    "split",
    label="SPLIT: keeps both answers likely",
    description="Keeps both answers likely and asks for a fixed distance between them, so that text stays sound.",
    compare="none",
    anchor=1.0,
    anchor_other=0.6,
    hinge=5.0,
    hinge_margin=0.5,
    signs="both",
    start="mean_difference",
)
