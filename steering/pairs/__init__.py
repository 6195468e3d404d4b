"""Preference pairs: reading them from files of many layouts, and turning them into token ids."""

from steering.pairs.dataset import Pairs, PairsReport, parse_pairs, read_pairs
from steering.pairs.schema import PreferencePair

__all__ = ["Pairs", "PairsReport", "PreferencePair", "parse_pairs", "read_pairs"]
