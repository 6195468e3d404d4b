"""Steered answers side by side: `stream` and `generate` write them, `next_token` previews their first token."""

from steering.generation.results import Column, TokenChance
from steering.generation.sampling import Sampling
from steering.generation.stream import MAX_COLUMNS, generate, stream

__all__ = ["MAX_COLUMNS", "Column", "Sampling", "TokenChance", "generate", "stream"]
