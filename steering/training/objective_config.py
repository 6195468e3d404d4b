"""The terms of a preference objective as settings, so that they mix; `objectives.py` has the formulas."""

from typing import Literal, Self

from pydantic import model_validator

from steering.training.config import MethodConfig, setting

PAIR = "What it learns from a pair"
"""Heading on the page."""
LARGEST = 1e6
"""Bound of numbers that have no natural one: far above any use, far below what overflows float32."""


class ObjectiveConfig(MethodConfig):
    """Terms of the loss in one direction d of a step; the defaults are BiPO's.

    The favored answer is the chosen one where the vector is added (d = +1), the rejected one on the other side.
    """

    compare: Literal["reference", "free", "none"] = setting(
        "reference",
        label="Compared with",
        help="the untouched model's preference, as DPO does, or nothing but the other answer, as SimPO does",
        choice_labels={"reference": "the untouched model", "free": "only the other answer", "none": "not compared"},
    )
    length_weight: float = setting(
        0.0,
        label="Weight on length",
        help="0 lets long answers count more, as in the paper; 1 evens out the length",
        group=PAIR,
        ge=0,
        le=2,
    )
    beta: float = setting(
        0.1,
        label="Beta",
        help="the larger, the sooner a pair counts as learned (DPO's beta)",
        unit="per nat",
        group=PAIR,
        gt=0,
        le=LARGEST,
    )
    target_margin: float = setting(
        0.0,
        label="Target margin",
        help="how far the favored answer is to lie ahead, in units of the sigmoid (SimPO's gamma)",
        ge=0,
        le=LARGEST,
    )
    lift: bool = setting(
        False,
        label="Lift unlikely answers",
        help="weigh the favored answer by how many nats less likely it is untouched, at least 1 (RePS)",
    )
    anchor: float = setting(
        0.0,
        label="Anchor",
        help="weight of the favored answer's own cross-entropy: keeps it likely, not only likelier than the other",
        group=PAIR,
        ge=0,
        le=LARGEST,
    )
    anchor_other: float = setting(
        0.0, label="Anchor of the other", help="weight of the other answer's cross-entropy (SPLIT)", ge=0, le=LARGEST
    )
    hinge: float = setting(
        0.0,
        label="Hinge",
        help="weight of max(0, hinge_margin - (CE of the other - CE of the favored))",
        ge=0,
        le=LARGEST,
    )
    hinge_margin: float = setting(
        0.5, label="Margin of the hinge", help="nats a token that it asks for", unit="nats", ge=0, le=LARGEST
    )
    opposite: Literal["subtract", "project"] = setting(
        "subtract",
        label="Other side",
        help="where the rejected answer is favored, the vector is subtracted, or its direction taken out (RePS)",
        choice_labels={"subtract": "the vector subtracted", "project": "its direction taken out"},
    )
    least_multiplier: float = setting(
        1.0, label="Least multiplier", help="smallest multiplier that a step may be taken at", gt=0, le=100
    )
    most_multiplier: float = setting(
        1.0,
        label="Most multiplier",
        help="largest; where it is above the least one, each step draws one between them",
        gt=0,
        le=100,
    )

    @model_validator(mode="after")
    def _something_is_learned(self) -> Self:
        if self.least_multiplier > self.most_multiplier:
            raise ValueError(
                f"least_multiplier is {self.least_multiplier:g}, above most_multiplier; "
                f"give at most {self.most_multiplier:g}."
            )
        if self.compare == "none" and not (self.anchor or self.anchor_other or self.hinge):
            raise ValueError("compare is 'none' and no anchor or hinge has a weight; give one of them.")
        return self
