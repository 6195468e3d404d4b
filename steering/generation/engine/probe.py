"""Inputs that every model takes, for the checks at start."""

import torch
from torch import Tensor, nn

IDS = 6
"""Tokens of a probe prompt: enough for two prompts of different lengths (6 and 3)."""


def probe_ids(network: nn.Module) -> list[int]:
    """Return a few token ids that every vocabulary has."""
    vocabulary = network.get_input_embeddings().weight.shape[0]
    return [(7 * i + 3) % max(2, vocabulary - 1) for i in range(IDS)]


def random_directions(count: int, hidden_size: int, seed: int) -> Tensor:
    """Return float32 [count, hidden_size], the same ones for the same seed."""
    return torch.randn(count, hidden_size, generator=torch.Generator().manual_seed(seed))
