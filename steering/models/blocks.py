"""Find a model's decoder blocks by watching a forward pass, and read and replace the hidden states they return."""

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from steering.errors import SteeringError
from steering.models.precision import input_device, tolerance
from steering.models.probe import vocabulary_size

PROBE_TOKENS = 5
"""Few, since every load runs them twice; hidden states are recognised by their shape [1, 5, hidden_size]."""


def find_blocks(network: PreTrainedModel, name: str = "This model") -> tuple[str, int]:
    """Find the decoder blocks by watching a short forward pass.

    The blocks are the longest list of modules that run once each, in order, each taking the hidden states
    [1, tokens, hidden_size] that the one before it gave. The pass also shows that no token sees a later one.

    Returns:
        (dotted path of the list of blocks inside `network`, hidden size).

    Raises:
        SteeringError: anything but a decoder-only model; the message says what does not fit.
    """
    if getattr(network.config, "is_encoder_decoder", False):
        raise SteeringError(f"{name} is an encoder-decoder model; steering needs a decoder-only causal language model.")
    lists = {path: m for path, m in network.named_modules() if isinstance(m, nn.ModuleList) and len(m) > 0}
    tokens = torch.arange(1, PROBE_TOKENS + 1, device=input_device(network))[None] % vocabulary_size(network)
    calls, logits = _watched_pass(network, tokens, [block for blocks in lists.values() for block in blocks])
    _check_causal(network, tokens, logits, name)
    chains = {path: hidden_size for path, blocks in lists.items() if (hidden_size := _chain_width(blocks, calls))}
    if not chains:
        raise SteeringError(
            f"{name} ({type(network).__name__}) has no list of decoder blocks that hand one residual stream on, so "
            "there is no layer to steer; choose another model."
        )
    path = max(chains, key=lambda path: (len(lists[path]), -len(path)))
    return path, chains[path]


class _Call(NamedTuple):
    """One call of a module: its hidden states in and out, None where it takes or gives none, and its place in time."""

    taken: Tensor | None
    given: Tensor | None
    order: int


def _watched_pass(
    network: PreTrainedModel, tokens: Tensor, modules: Sequence[nn.Module]
) -> tuple[dict[nn.Module, list[_Call]], Tensor]:
    """Run one pass over `tokens` [1, positions]; return the calls of each module, and the logits."""
    calls: dict[nn.Module, list[_Call]] = {}
    counter = itertools.count()

    def watch(module: nn.Module, args: tuple, kwargs: dict, output: object) -> None:
        taken = args[0] if args else kwargs.get("hidden_states")
        calls.setdefault(module, []).append(_Call(taken, _hidden_or_none(output), next(counter)))

    with contextlib.ExitStack() as handles, torch.no_grad():
        for module in modules:
            handles.callback(module.register_forward_hook(watch, with_kwargs=True).remove)
        logits = network(input_ids=tokens, use_cache=False).logits
    return calls, logits


@torch.no_grad()
def _check_causal(network: PreTrainedModel, tokens: Tensor, logits: Tensor, name: str) -> None:
    """Raise SteeringError if changing the last token changes the logits of those before it."""
    changed = torch.cat([tokens[:, :-1], (tokens[:, -1:] + 7) % vocabulary_size(network)], dim=1)
    difference = (logits - network(input_ids=changed, use_cache=False).logits)[:, :-1].abs().max()
    # Two passes of one shape round alike, so a causal model shows no difference; but for 8-bit weights, where the last
    # token has a part in how the others are rounded.
    rounded = logits.dtype != torch.float32 or getattr(network, "is_loaded_in_8bit", False)
    if not difference <= tolerance(torch.float16 if rounded else torch.float32) * logits.float().std():
        raise SteeringError(
            f"{name} lets a token see later ones, so it is no causal language model; choose a decoder-only model."
        )


def _chain_width(blocks: nn.ModuleList, calls: Mapping[nn.Module, Sequence[_Call]]) -> int:
    """Return the hidden size of modules that ran once each, in order, handing hidden states on; 0 for others."""
    chain = [calls[block][0] for block in blocks if len(calls.get(block, ())) == 1]
    given = [call.given for call in chain if call.given is not None]
    if len(given) < len(blocks) or any(out.dim() != 3 or out.shape[:2] != (1, PROBE_TOKENS) for out in given):
        return 0
    order = [call.order for call in chain]
    handed_on = all(
        call.taken is not None and call.taken.shape == out.shape and torch.equal(call.taken, out)
        for out, call in zip(given, chain[1:], strict=False)
    )
    return given[0].shape[-1] if order == sorted(order) and handed_on else 0


def hidden_of(output: object) -> Tensor:
    """Take the hidden states out of what a decoder block returned.

    Args:
        output: a tensor [rows, positions, hidden_size], or a tuple or list that begins with it (caches, attentions).

    Returns:
        The tensor itself, no copy.

    Raises:
        TypeError: there is none; `find_blocks` accepts no such block.
    """
    hidden = _hidden_or_none(output)
    if hidden is None:
        raise TypeError(f"a decoder block returned no hidden states but {type(output).__name__}")
    return hidden


def with_hidden(output: Any, hidden: Tensor) -> Any:
    """Put other hidden states into what a decoder block returned.

    Args:
        output: what the block returned (see `hidden_of`); it is not changed.
        hidden: the new hidden states, of the same shape [rows, positions, hidden_size].

    Returns:
        `hidden`, or a tuple or list of the same kind that begins with it and goes on as `output` does.
    """
    if isinstance(output, Tensor):
        return hidden
    return type(output)((hidden, *output[1:]))


def _hidden_or_none(output: object) -> Tensor | None:
    if isinstance(output, tuple | list) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None
