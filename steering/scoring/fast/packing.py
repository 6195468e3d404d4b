"""A batch of preference pairs as one sequence without padding.

Chosen and rejected share a prompt, all prompts share the system prompt. Packed as a tree

    prefix | prompt 1 | chosen 1 | rejected 1 | prompt 2 | chosen 2 | ...

every shared token is computed once. The attention mask lets a token see its ancestors and nothing else, and position
ids count the depth in the tree, so each branch gives what it gives alone. The last token of an answer is left out: its
log-probability is read one token earlier and nothing follows it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steering.pairs.tokenization import EncodedPair


@dataclass(frozen=True)
class PackedBatch:
    """A batch of n pairs as one sequence of T tokens, A of which are answer tokens.

    Attributes:
        tokens: int64 [1, T]; `positions`: int64 [1, T], depth in the tree.
        mask: [1, 1, T, T], 0 where a token may look and the type's lowest number elsewhere; [1, 1, T, prefix + T]
            where the prefix is left out.
        sizes: how many tokens the prefix has, and each pair of its own (prompt after the prefix, chosen, rejected).
        places: int64 [P], the positions that predict answer tokens; the last of a prompt serves both answers.
        readout: int64 [A], which of the places predicts each answer token; `targets`: int64 [A], that token.
        owners: int64 [A], 2 * pair + (0 for chosen, 1 for rejected).
    """

    tokens: Tensor
    positions: Tensor
    mask: Tensor
    sizes: tuple[int, ...]
    places: Tensor
    readout: Tensor
    targets: Tensor
    owners: Tensor

    def without_prefix(self) -> "PackedBatch":
        """The pairs' own tokens alone, which look at a prefix that is run elsewhere."""
        first = self.sizes[0]
        return replace(
            self,
            tokens=self.tokens[:, first:],
            positions=self.positions[:, first:],
            mask=self.mask[:, :, first:],
            sizes=(0, *self.sizes[1:]),
            places=self.places - first,
        )

    def totals(self, log_probabilities: Tensor) -> Tensor:
        """[n, 2]: the log-probabilities [A] of answer tokens summed over chosen and rejected of each pair."""
        totals = torch.zeros(2 * (len(self.sizes) - 1), device=log_probabilities.device)
        return totals.index_add(0, self.owners, log_probabilities).view(-1, 2)


def pack(pairs: Sequence[EncodedPair], prefix: Sequence[int], device: torch.device, dtype: torch.dtype) -> PackedBatch:
    """Pack pairs whose prompts all begin with `prefix` and go on after it."""
    tokens, positions = list(prefix), list(range(len(prefix)))
    branches: list[tuple[slice, slice]] = []  # (where the branch's prompt is, where its answer is)
    sizes, readout, targets, owners = [len(prefix)], [], [], []
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
            readout += [prompt.stop - 1, *range(begin, len(tokens))]
            targets += answer
            owners += [len(branches) - 1] * len(answer)
        sizes.append(len(tokens) - start)
    allowed = torch.zeros(len(tokens), len(tokens), dtype=torch.bool)
    allowed[:, : len(prefix)] = True
    for prompt, answer in branches:
        allowed[prompt, prompt] = True
        allowed[answer, prompt] = True
        allowed[answer, answer] = True
    allowed &= torch.ones_like(allowed).tril()
    mask = torch.zeros(allowed.shape, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)
    places, rows = torch.unique(torch.tensor(readout), return_inverse=True)
    return PackedBatch(
        tokens=torch.tensor([tokens], device=device),
        positions=torch.tensor([positions], device=device),
        mask=mask[None, None].to(device),
        sizes=tuple(sizes),
        places=places.to(device),
        readout=rows.to(device),
        targets=torch.tensor(targets, device=device),
        owners=torch.tensor(owners, device=device),
    )
