"""Measure what a steering vector does."""

from steering.evaluation.measures import Measure, MeasureContext, measure
from steering.evaluation.preference import PreferenceResult, evaluate

__all__ = ["Measure", "MeasureContext", "PreferenceResult", "evaluate", "measure"]
