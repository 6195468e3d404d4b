"""The decoder blocks of a model: found by watching a forward pass, and what they return."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from steering.errors import SteeringError
from steering.models.precision import input_device

PROBE_TOKENS = 5


def find_blocks(network: PreTrainedModel, name: str = "This model") -> tuple[str, int]:
    """Dotted path of the list of decoder blocks, and the hidden size, found by watching a short forward pass.

    The blocks are the longest list of modules that run once each, in order, each taking the hidden states
    [1, tokens, hidden_size] that the one before it gave. The pass also shows that no token sees a later one.

    Raises SteeringError, saying what does not fit, for anything but a decoder-only model.
    """
    if getattr(network.config, "is_encoder_decoder", False):
        raise SteeringError(f"{name} is an encoder-decoder model; steering needs a decoder-only causal language model.")
    lists = {path: m for path, m in network.named_modules() if isinstance(m, nn.ModuleList) and len(m) > 0}
    calls: dict[nn.Module, list[tuple[Tensor | None, Tensor | None]]] = {}
    order: list[nn.Module] = []

    def watch(block: nn.Module, args: tuple, kwargs: dict, output: object) -> None:
        given = args[0] if args else kwargs.get("hidden_states")
        calls.setdefault(block, []).append((given, hidden_of(output)))
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
    noise = 5e-2 if rounded else 1e-3  # a causal model differs by nothing else
    if not (first - second)[:, :-1].abs().max() <= noise * first.float().std():
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
                given is not None and given.shape == out.shape and torch.equal(given, out)
                for (_, out), (given, _) in zip(states, states[1:], strict=False)
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
    """The hidden states in what a decoder block returns (a tensor, or a tuple that begins with it)."""
    if isinstance(output, tuple | list) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


def with_hidden(output: object, hidden: Tensor) -> object:
    """What a decoder block returned, with other hidden states in it."""
    if isinstance(output, Tensor):
        return hidden
    return type(output)((hidden, *output[1:]))
