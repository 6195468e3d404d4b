"""Steered answers side by side: `stream` and `generate` write them, `next_token` previews their first token."""

from steering.generation.precision import WEIGHTS, precision_report
from steering.generation.results import Column, TokenChance
from steering.generation.sampling import Sampling
from steering.generation.stream import MAX_COLUMNS, generate, stream

__all__ = ["MAX_COLUMNS", "WEIGHTS", "Column", "Sampling", "TokenChance", "generate", "precision_report", "stream"]
