"""Hidden states of answers: what extraction methods (mean difference, PCA, probes) make their vectors from."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from steering.intervention.hooks import observed
from steering.models.blocks import hidden_of
from steering.models.loading import LanguageModel
from steering.pairs.tokenization import EncodedPair
from steering.runtime.cpu_threads import in_threads
from steering.runtime.module_proxy import copy_without_blocks_after

logger = logging.getLogger(__name__)

PAIRS_A_BATCH = 2
"""Pairs of a batch. On the power-seeking example set a batch of 2 adds 6 % of padding, of 4 10 %, of 8 14 %; larger
ones are no faster per token on a CPU (32 pairs took one core 7.3 s one by one, 7.5 s by fours)."""


POSITIONS = ("mean", "last", "before_last", "letter")
"""What stands for an answer: the mean over its tokens; its last token; the one before that; or the first one at which
the two answers of a pair differ (the letter of "(A)" and "(B)"). The end-of-turn token belongs to no answer."""

Row = tuple[Sequence[int], Sequence[int], slice]
"""(prompt, answer, the tokens of the answer whose hidden states are averaged); the first two are token ids."""


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
    """Run each pair's two conversations once, untouched; yield the hidden states batch by batch.

    The end-of-turn token counts to no answer: what follows from its hidden state is the next turn. Blocks after the
    last observed one do not run.

    Args:
        layers: those whose outputs are observed, at least one.
        position: one of `POSITIONS`.

    Example:
        for batch in answer_activations(model, encode_pairs(model, pairs)[1], [14]):
            print((batch.chosen[14] - batch.rejected[14]).norm(dim=-1))
    """
    if position not in POSITIONS:
        raise ValueError(f"position is {position!r}, not one of {', '.join(POSITIONS)}")
    network = copy_without_blocks_after(model.network, model.blocks_path, max(layers))
    for start in range(0, len(pairs), PAIRS_A_BATCH):
        batch = pairs[start : start + PAIRS_A_BATCH]
        try:
            chosen, rejected = _of_both_answers(model, network, batch, layers, position)
        except Exception as error:  # noqa: BLE001 - an architecture may fail in any way without its last blocks
            if network is model.network:
                raise
            logger.warning("%s does not run without its last blocks, so all of them run: %r", model.name, error)
            network = model.network
            chosen, rejected = _of_both_answers(model, network, batch, layers, position)
        yield AnswerActivations(chosen, rejected)


def _of_both_answers(
    model: LanguageModel, network: PreTrainedModel, pairs: Sequence[EncodedPair], layers: Sequence[int], position: str
) -> list[dict[int, Tensor]]:
    """Run the chosen and the rejected answers of a batch, on the CPU at the same time on half of the cores each."""
    batches: list[list[Row]] = [[], []]
    for pair in pairs:
        chosen, rejected = (answer[:-1] or answer for answer in (pair.chosen, pair.rejected))
        for rows, answer, other in ((batches[0], chosen, rejected), (batches[1], rejected, chosen)):
            rows.append((pair.prompt, answer, _counted(answer, other, position)))

    def means(rows: Sequence[Row]) -> dict[int, Tensor]:
        return _answer_means(model, network, rows, layers)

    # Weights that accelerate fetches from disk, and quantised layers, change while they run: one thread at a time.
    stateless = not getattr(network, "is_quantized", False) and not any(p.is_meta for p in network.parameters())
    if stateless and model.device.type == "cpu":
        return in_threads(means, batches)
    return [means(rows) for rows in batches]


def _counted(answer: Sequence[int], other: Sequence[int], position: str) -> slice:
    """Return which tokens of an answer stand for it, at one of `POSITIONS`; `other` is the pair's other answer."""
    last = len(answer) - 1
    if position == "letter":
        common = next((n for n, (a, b) in enumerate(zip(answer, other, strict=False)) if a != b), last)
        return slice(common, common + 1)
    first = {"mean": 0, "last": last, "before_last": max(0, last - 1)}[position]
    return slice(first, first + 1 if position == "before_last" else last + 1)


def _answer_means(
    model: LanguageModel, network: PreTrainedModel, rows: Sequence[Row], layers: Sequence[int]
) -> dict[int, Tensor]:
    """Return by layer the mean hidden state over the tokens that stand for each answer: float32 [rows, hidden_size]."""
    longest = max(len(prompt) + len(answer) for prompt, answer, _ in rows)
    tokens = torch.zeros(len(rows), longest, dtype=torch.long)  # padded on the right, which no earlier token sees
    attention = torch.zeros(len(rows), longest, dtype=torch.long)
    counted = torch.zeros(len(rows), longest, 1)
    for row, (prompt, answer, stands_for_it) in enumerate(rows):
        end = len(prompt) + len(answer)
        tokens[row, :end] = torch.tensor([*prompt, *answer])
        attention[row, :end] = 1
        counted[row, len(prompt) + stands_for_it.start : len(prompt) + stands_for_it.stop] = 1
    device, blocks = model.device, network.get_submodule(model.blocks_path)
    assert isinstance(blocks, nn.ModuleList)
    with ExitStack() as stack:
        outputs = {k: stack.enter_context(observed(blocks[k])) for k in layers}
        network.base_model(input_ids=tokens.to(device), attention_mask=attention.to(device), use_cache=False)
    means = {}
    for k, (output,) in outputs.items():
        hidden = hidden_of(output).float()  # [rows, positions, hidden_size]
        weights = counted.to(hidden.device)
        means[k] = ((hidden * weights).sum(dim=1) / weights.sum(dim=1)).cpu()
    return means
