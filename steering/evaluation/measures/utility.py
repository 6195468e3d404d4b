"""What steering costs in knowledge: multiple-choice questions, see `evaluation.multiple_choice`."""

from steering.evaluation.measures.registry import Measure
from steering.evaluation.multiple_choice import utility

MEASURES = (
    Measure(
        name="utility",
        label="Utility",
        description="Share of 120 multiple-choice questions of ten fields that the model still answers right.",
        unit="",
        run=lambda context: utility(context.model, context.vector, context.multipliers),
    ),
)
