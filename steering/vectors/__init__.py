"""Steering vectors: what they are, their file, the shelf, and the formats of other projects."""

from steering.vectors.action import MAX_MULTIPLIER, TOKEN_SCOPES, check_multiplier
from steering.vectors.entry import Entry
from steering.vectors.library import Library
from steering.vectors.text import slug_of
from steering.vectors.vector import SteeringVector, setting_title

__all__ = [
    "MAX_MULTIPLIER",
    "TOKEN_SCOPES",
    "Entry",
    "Library",
    "SteeringVector",
    "check_multiplier",
    "setting_title",
    "slug_of",
]
