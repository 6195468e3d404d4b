"""Token ids for the short passes by which models and ways of running them are tried out."""

from torch import nn


def vocabulary_size(network: nn.Module) -> int:
    """Return the number of rows of a transformers model's embedding; every token id is below it."""
    return network.get_input_embeddings().get_parameter("weight").shape[0]  # type: ignore[operator]


def probe_ids(network: nn.Module, count: int) -> list[int]:
    """Return token ids that the network's vocabulary has: spread over it, the same ones each time."""
    return [(7 * i + 3) % max(2, vocabulary_size(network) - 1) for i in range(count)]
