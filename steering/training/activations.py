"""Hidden states of answers: what extraction methods (mean difference, PCA, probes) make their vectors from."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from steering.intervention.hooks import observed
from steering.models.blocks import hidden_of
from steering.models.loading import LanguageModel
from steering.pairs.tokenization import EncodedPair

PAIRS_A_BATCH = 4
"""Pairs of one forward pass, two rows each: as many as evaluation takes. Larger batches pad more and gain little."""


@dataclass(frozen=True)
class AnswerActivations:
    """What the model makes of the two answers of some pairs, at the output of each observed block.

    Attributes:
        chosen, rejected: layer k -> float32 [pairs, hidden_size], on the CPU.
    """

    chosen: dict[int, Tensor]
    rejected: dict[int, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.chosen.values())))


@torch.no_grad()
def answer_activations(
    model: LanguageModel, pairs: Sequence[EncodedPair], layers: Sequence[int], position: str = "mean"
) -> Iterator[AnswerActivations]:
    """Run each pair's two conversations once, untouched; yield the hidden states of a batch of pairs after the other.

    The end-of-turn token counts to no answer: what follows from its hidden state is the next turn. Whoever has seen
    enough simply stops iterating.

    Args:
        layers: those whose outputs are observed; the pass ends with the last block all the same.
        position: `mean` over the answer's tokens, or `last`, the one before the end of turn.

    Example:
        for batch in answer_activations(model, encode_pairs(model, pairs)[1], [14]):
            print((batch.chosen[14] - batch.rejected[14]).norm(dim=-1))
    """
    if position not in ("mean", "last"):
        raise ValueError(f"position is {position!r}, not 'mean' or 'last'")
    for start in range(0, len(pairs), PAIRS_A_BATCH):
        batch = pairs[start : start + PAIRS_A_BATCH]
        rows = [(pair.prompt, answer[:-1] or answer) for pair in batch for answer in (pair.chosen, pair.rejected)]
        by_layer = _answer_means(model, rows, layers, last=position == "last")
        yield AnswerActivations(
            {k: means[0::2] for k, means in by_layer.items()}, {k: means[1::2] for k, means in by_layer.items()}
        )


def _answer_means(
    model: LanguageModel, rows: Sequence[tuple[Sequence[int], Sequence[int]]], layers: Sequence[int], *, last: bool
) -> dict[int, Tensor]:
    """Mean hidden state, float32 [rows, hidden_size], over the answer's tokens (or its last) of (prompt, answer)."""
    longest = max(len(prompt) + len(answer) for prompt, answer in rows)
    tokens = torch.zeros(len(rows), longest, dtype=torch.long)  # padded on the right, which no earlier token sees
    attention = torch.zeros(len(rows), longest, dtype=torch.long)
    counted = torch.zeros(len(rows), longest, 1)
    for row, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        tokens[row, :end] = torch.tensor([*prompt, *answer])
        attention[row, :end] = 1
        counted[row, end - 1 if last else len(prompt) : end] = 1
    device = model.device
    with ExitStack() as stack:
        outputs = {k: stack.enter_context(observed(model.blocks[k])) for k in layers}
        model.network.base_model(input_ids=tokens.to(device), attention_mask=attention.to(device), use_cache=False)
    means = {}
    for k, (output,) in outputs.items():
        hidden = hidden_of(output)
        assert hidden is not None  # blocks are found by the hidden states that they return
        hidden = hidden.float()  # [rows, positions, hidden_size]
        weights = counted.to(hidden.device)
        means[k] = ((hidden * weights).sum(dim=1) / weights.sum(dim=1)).cpu()
    return means
