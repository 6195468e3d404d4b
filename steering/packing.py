"""A batch of preference pairs as one sequence without padding, and the later blocks of a model run on their own.

Chosen and rejected share a prompt, all prompts share the system prompt. Packed as a tree

    prefix | prompt 1 | chosen 1 | rejected 1 | prompt 2 | chosen 2 | ...

every shared token is computed once. The attention mask lets a token see its ancestors and nothing else, and position
ids count the depth in the tree, so each branch gives what it gives alone. The last token of an answer is left out: its
log-probability is read one token earlier and nothing follows it.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from steering.encoding import EncodedPair
from steering.models import LanguageModel


@dataclass(frozen=True)
class PackedBatch:
    """A batch of n pairs as one sequence of T tokens, A of which are answer tokens.

    Attributes:
        tokens: int64 [1, T]; `positions`: int64 [1, T], depth in the tree.
        mask: [1, 1, T, T], 0 where a token may look and the type's lowest number elsewhere.
        spans: for each pair the slice of its own tokens (prompt after the prefix, chosen, rejected).
        places: int64 [P], the positions whose logits predict answer tokens; the last of a prompt serves both answers.
        readout: int64 [A], which of the places predicts each answer token; `targets`: int64 [A], that token.
        owners: int64 [A], 2 * pair + (0 for chosen, 1 for rejected).
    """

    tokens: Tensor
    positions: Tensor
    mask: Tensor
    spans: tuple[slice, ...]
    places: Tensor
    readout: Tensor
    targets: Tensor
    owners: Tensor


def pack(pairs: Sequence[EncodedPair], prefix: Sequence[int], device: torch.device, dtype: torch.dtype) -> PackedBatch:
    """Pack pairs whose prompts all begin with `prefix` and go on after it."""
    tokens, positions = list(prefix), list(range(len(prefix)))
    branches: list[tuple[slice, slice]] = []  # (where the branch's prompt is, where its answer is)
    spans, readout, targets, owners = [], [], [], []
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
        spans.append(slice(start, len(tokens)))
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
        spans=tuple(spans),
        places=places.to(device),
        readout=rows.to(device),
        targets=torch.tensor(targets, device=device),
        owners=torch.tensor(owners, device=device),
    )


class Replay(nn.Module):
    """Stands in for a block that need not run: passes its input on, or hands over stored hidden states."""

    def __init__(self, block: nn.Module, gives_tuple: bool) -> None:
        super().__init__()
        object.__setattr__(self, "_block", block)  # not registered as a submodule: the real block is not ours
        self.gives_tuple = gives_tuple
        self.states: Tensor | None = None

    def __getattr__(self, name: str) -> object:
        try:
            return super().__getattr__(name)
        except AttributeError:  # models ask their blocks for things such as `attention_type`
            return getattr(object.__getattribute__(self, "_block"), name)

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> object:
        hidden = hidden_states if self.states is None else self.states
        return (hidden,) if self.gives_tuple else hidden


class LaterBlocks:
    """The blocks after layer k of a model, run from stored hidden states of layer k.

    A shallow copy of the model shares every weight; in it, blocks 0..k are stand-ins. The model's own forward still
    makes masks, rotary tables, final norm and logits, so nothing here knows about architectures, and the model itself
    is not touched: other threads may run it meanwhile.
    """

    def __init__(self, model: LanguageModel, layer: int, gives_tuple: bool) -> None:
        self.replay = Replay(model.blocks[layer], gives_tuple)
        skipped = [Replay(block, gives_tuple) for block in model.blocks[:layer]]
        self.blocks = nn.ModuleList([*skipped, self.replay, *model.blocks[layer + 1 :]])
        self.network = _with_submodule(model.network, model.blocks_path.split("."), self.blocks)

    def __call__(self, states: Tensor, batch: PackedBatch) -> Tensor:
        """Logits [P, vocabulary] of a packed batch from its hidden states [1, T, hidden_size] at layer k."""
        self.replay.states = states
        try:
            return packed_logits(self.network, batch)
        finally:
            self.replay.states = None


def packed_logits(network: PreTrainedModel, batch: PackedBatch) -> Tensor:
    """Logits [P, vocabulary] at the places that predict answer tokens; the head runs nowhere else."""
    output = network(
        input_ids=batch.tokens,
        attention_mask=batch.mask,
        position_ids=batch.positions,
        logits_to_keep=batch.places,
        use_cache=False,
    )
    return output.logits[0]


def _with_submodule(module: nn.Module, path: list[str], replacement: nn.Module) -> nn.Module:
    """A shallow copy of `module` with another submodule at `path`; everything else is shared."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    head, *rest = path
    twin._modules[head] = _with_submodule(module._modules[head], rest, replacement) if rest else replacement
    return twin
