"""What a steering vector does, measured."""

from steering.evaluation.preference import PreferenceResult, evaluate

__all__ = ["PreferenceResult", "evaluate"]
