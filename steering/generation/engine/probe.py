"""Inputs that every model takes, and how near two results must be, for the checks at start."""

import torch
from torch import Tensor, nn

IDS = 6
"""Tokens of a probe prompt: enough for two prompts of different lengths (6 and 3)."""
SAME_WEIGHTS = 1e-3
"""Largest difference of logits, in their standard deviations, between two ways that differ by float32 rounding only:
on the tiny and the bundled models it is under 1e-4, and a wrong mask, position or addition is above 1e-1."""
SAME_WEIGHTS_16_BIT = 5e-2
"""The same for models in float16 or bfloat16, whose own rounding is up to 2e-2."""


def probe_ids(network: nn.Module) -> list[int]:
    """Return a few token ids that every vocabulary has."""
    vocabulary = network.get_input_embeddings().weight.shape[0]
    return [(7 * i + 3) % max(2, vocabulary - 1) for i in range(IDS)]


def random_directions(count: int, hidden_size: int, seed: int) -> Tensor:
    """Return float32 [count, hidden_size], the same ones for the same seed."""
    return torch.randn(count, hidden_size, generator=torch.Generator().manual_seed(seed))


def is_near(got: Tensor, want: Tensor, dtype: torch.dtype) -> bool:
    """Whether logits of the same weights, of number type `dtype`, differ by rounding only."""
    tolerance = SAME_WEIGHTS if dtype == torch.float32 else SAME_WEIGHTS_16_BIT
    return got.shape == want.shape and bool((got - want).abs().max() <= tolerance * want.std())
