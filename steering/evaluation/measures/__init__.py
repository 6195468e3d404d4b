"""Measures: numbers for what a vector does at each multiplier. One file a kind, behind one registry."""

from steering.evaluation.measures.registry import (
    DEFAULT_MEASURES,
    Measure,
    MeasureContext,
    measure,
    measure_named,
    measures,
)

__all__ = ["DEFAULT_MEASURES", "Measure", "MeasureContext", "measure", "measure_named", "measures"]
