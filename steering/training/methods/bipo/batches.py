"""What each step of a run trains on, decided by the seed alone."""

import random
from collections.abc import Iterator

import torch

from steering.training.methods.bipo.config import BiPOConfig

DIRECTIONS = {"both": (1.0, -1.0), "plus": (1.0,)}
"""The signs of every step, where they are not drawn."""


def batches(count: int, config: BiPOConfig) -> Iterator[tuple[list[int], tuple[float, ...], float]]:
    """Yield each step's pairs (indices), signs d and multiplier, all epochs long.

    The last batch of an epoch may be smaller.
    """
    order = torch.Generator().manual_seed(config.seed)
    signs, multipliers = random.Random(config.seed), random.Random(f"multipliers {config.seed}")
    for _ in range(config.epochs):
        for indices in torch.randperm(count, generator=order).split(config.batch_size):
            drawn = DIRECTIONS.get(config.signs) or (signs.choice([-1.0, 1.0]),)
            multiplier = multipliers.uniform(config.least_multiplier, config.most_multiplier)
            yield indices.tolist(), drawn, multiplier
