"""Find a model's decoder blocks by watching a forward pass, and read and replace the hidden states they return."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from steering.errors import SteeringError
from steering.models.precision import input_device, tolerance

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
    calls: dict[nn.Module, list[tuple[Tensor | None, Tensor | None]]] = {}
    order: list[nn.Module] = []

    def watch(block: nn.Module, args: tuple, kwargs: dict, output: object) -> None:
        taken = args[0] if args else kwargs.get("hidden_states")
        calls.setdefault(block, []).append((taken, hidden_of(output)))
        order.append(block)

    vocabulary = network.get_input_embeddings().weight.shape[0]
    tokens = torch.arange(1, PROBE_TOKENS + 1, device=input_device(network))[None] % vocabulary
    changed = torch.cat([tokens[:, :-1], (tokens[:, -1:] + 7) % vocabulary], dim=1)
    handles = [b.register_forward_hook(watch, with_kwargs=True) for m in lists.values() for b in m]
    try:
        with torch.no_grad():
            first = network(input_ids=tokens, use_cache=False).logits
            for handle in handles:
                handle.remove()
            second = network(input_ids=changed, use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    rounded = first.dtype != torch.float32 or getattr(network, "is_loaded_in_8bit", False)
    # A causal model differs by rounding only, and two passes of one shape round alike, but for 8-bit weights, whose
    # scales depend on the whole input.
    noise = tolerance(torch.float16 if rounded else torch.float32) * first.float().std()
    if not (first - second)[:, :-1].abs().max() <= noise:
        raise SteeringError(
            f"{name} lets a token see later ones, so it is no causal language model; choose a decoder-only model."
        )

    def is_chain(blocks: nn.ModuleList) -> bool:
        if any(len(calls.get(block, ())) != 1 for block in blocks):
            return False
        ranks = [order.index(block) for block in blocks]
        states = [calls[block][0] for block in blocks]
        shape = (1, PROBE_TOKENS)
        sound = all(out is not None and out.dim() == 3 and out.shape[:2] == shape for _, out in states)
        return (
            ranks == sorted(ranks)
            and sound
            and all(
                taken is not None and taken.shape == out.shape and torch.equal(taken, out)
                for (_, out), (taken, _) in zip(states, states[1:], strict=False)
            )
        )

    chains = [path for path, blocks in lists.items() if is_chain(blocks)]
    if not chains:
        raise SteeringError(
            f"{name} ({type(network).__name__}) has no list of decoder blocks that hand one residual stream on, so "
            "there is no layer to steer; choose another model."
        )
    path = max(chains, key=lambda p: (len(lists[p]), -len(p)))
    return path, calls[lists[path][0]][0][1].shape[-1]


def hidden_of(output: object) -> Tensor | None:
    """Take the hidden states out of what a decoder block returned.

    Args:
        output: a tensor [rows, positions, hidden_size], or a tuple or list that begins with it (caches, attentions).

    Returns:
        The tensor itself, no copy; None if there is none.
    """
    if isinstance(output, tuple | list) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


def with_hidden(output: object, hidden: Tensor) -> object:
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
