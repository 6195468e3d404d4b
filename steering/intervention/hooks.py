"""How steering vectors enter the residual stream. The one place that adds a vector to a hidden state."""

import contextlib
import threading
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from steering.intervention.additions import Additions, added
from steering.models.blocks import hidden_of, with_hidden


@contextlib.contextmanager
def steered(blocks: Sequence[nn.Module], additions: Additions) -> Iterator[None]:
    """Within this context, and on this thread only, add to the output of `blocks[k]`.

    Other threads that run the same model at the same time are untouched, whatever they do; when the context ends, by
    success, failure or cancel, the model carries no hook. Gradients flow into the additions.
    """
    owner = threading.get_ident()

    def hook_for(addition: Tensor):
        addition = addition[:, None, :] if addition.dim() == 2 else addition  # one row of the batch, every position

        def hook(block: nn.Module, args: tuple, output: object) -> object:
            if threading.get_ident() != owner:
                return None
            hidden = hidden_of(output)
            return with_hidden(output, added(hidden, addition.to(device=hidden.device, dtype=hidden.dtype)))

        return hook

    with contextlib.ExitStack() as handles:
        for layer, addition in additions.items():
            handle = blocks[layer].register_forward_hook(hook_for(addition))
            handles.callback(handle.remove)
        yield


@contextlib.contextmanager
def observed(block: nn.Module) -> Iterator[list[object]]:
    """Collect what `block` returns within this context, on this thread only."""
    owner = threading.get_ident()
    outputs: list[object] = []

    def hook(block: nn.Module, args: tuple, output: object) -> None:
        if threading.get_ident() == owner:
            outputs.append(output)

    handle = block.register_forward_hook(hook)
    try:
        yield outputs
    finally:
        handle.remove()
