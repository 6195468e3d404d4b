"""A batch of preference pairs as one sequence without padding.

Chosen and rejected share a prompt, all prompts share the system prompt. Packed as a tree

    prefix | prompt 1 | chosen 1 | rejected 1 | prompt 2 | chosen 2 | ...

every shared token is computed once. The attention mask lets a token see its ancestors and nothing else, and position
ids count the depth in the tree, so each branch gives what it gives alone. The last token of an answer is left out: its
log-probability is predicted one token earlier and nothing follows it. A step on packed batches was 2.35 times as fast
as on padded ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steering.pairs.tokenization import EncodedPair


@dataclass(frozen=True)
class PackedBatch:
    """A batch of n pairs as one sequence of T tokens, of which P positions predict A answer tokens.

    Attributes:
        tokens: int64 [1, T].
        positions: int64 [1, T], position ids: depth in the tree.
        mask: [1, 1, T, T], added to attention scores: 0 where row may attend to column, the dtype's lowest number
            elsewhere.
        sizes: tokens of the prefix, then of each pair without it (prompt after the prefix, chosen, rejected).
        predicting: int64 [P], the positions that predict answer tokens; the last of a prompt serves both answers.
        rows: int64 [A], for each answer token the index into `predicting` of the position that predicts it.
        targets: int64 [A], the answer tokens.
        owners: int64 [A], 2 * pair + (0 for chosen, 1 for rejected).
    """

    tokens: Tensor
    positions: Tensor
    mask: Tensor
    sizes: tuple[int, ...]
    predicting: Tensor
    rows: Tensor
    targets: Tensor
    owners: Tensor

    def summed(self, token_logps: Tensor) -> Tensor:
        """Sum float32 [A] log-probabilities of answer tokens to [n, 2]: chosen_logps and rejected_logps."""
        sums = torch.zeros(2 * (len(self.sizes) - 1), device=token_logps.device)
        return sums.index_add(0, self.owners.to(token_logps.device), token_logps).view(-1, 2)


def pack(pairs: Sequence[EncodedPair], prefix: Sequence[int], device: torch.device, dtype: torch.dtype) -> PackedBatch:
    """Pack pairs whose prompts all begin with `prefix` and go on after it.

    Args:
        device: of the batch's tensors.
        dtype: of its mask, the model's.
    """
    tokens, positions = list(prefix), list(range(len(prefix)))
    branches: list[tuple[slice, slice]] = []  # (where the branch's prompt is, where its answer is)
    sizes, predicted_at, targets, owners = [len(prefix)], list[int](), list[int](), list[int]()
    for pair in pairs:
        start = len(tokens)
        rest = pair.prompt[len(prefix) :]
        tokens += rest
        positions += range(len(prefix), len(pair.prompt))
        prompt = slice(start, len(tokens))
        for answer in (pair.chosen, pair.rejected):
            begin = len(tokens)
            tokens += answer[:-1]
            positions += range(len(pair.prompt), len(pair.prompt) + len(answer) - 1)
            branches.append((prompt, slice(begin, len(tokens))))
            predicted_at += [prompt.stop - 1, *range(begin, len(tokens))]
            targets += answer
            owners += [len(branches) - 1] * len(answer)
        sizes.append(len(tokens) - start)
    allowed = torch.zeros(len(tokens), len(tokens), dtype=torch.bool)
    allowed[:, : len(prefix)] = True
    for before, own in branches:
        allowed[before, before] = True
        allowed[own, before] = True
        allowed[own, own] = True
    allowed &= torch.ones_like(allowed).tril()
    mask = torch.zeros(allowed.shape, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)
    predicting, rows = torch.unique(torch.tensor(predicted_at), return_inverse=True)
    return PackedBatch(
        tokens=torch.tensor([tokens], device=device),
        positions=torch.tensor([positions], device=device),
        mask=mask[None, None].to(device),
        sizes=tuple(sizes),
        predicting=predicting.to(device),
        rows=rows.to(device),
        targets=torch.tensor(targets, device=device),
        owners=torch.tensor(owners, device=device),
    )
