"""Add to the outputs of decoder blocks by forward hooks, and record them."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn

from steering.intervention.additions import Additions, added
from steering.models.blocks import hidden_of, with_hidden


@contextlib.contextmanager
def steered(blocks: Sequence[nn.Module] | nn.ModuleList, additions: Additions) -> Iterator[None]:
    """Within this context, and on this thread only, add `additions[k]` to the output of `blocks[k]`.

    Other threads that run the same model at the same time are untouched; when the context ends, by success, failure or
    cancel, the model carries no hook. Gradients flow into the additions.

    Args:
        blocks: the model's decoder blocks, in order.
        additions: layer k -> [width], [rows, width] (at every position of its row) or [rows, positions, width], see
            `Additions`; moved to the device of the hidden states.

    Example:
        >>> with steered(model.blocks, additions_for(model, [{vector: 1.5}])):
        ...     logits = model.network(input_ids=ids).logits
    """
    owner = threading.get_ident()

    def hook_for(addition: Tensor) -> Callable[[nn.Module, tuple, object], object]:
        addition = addition[:, None, :] if addition.dim() == 2 else addition  # one row of the batch, every position

        def hook(block: nn.Module, args: tuple, output: object) -> object:
            if threading.get_ident() != owner:
                return None
            hidden = hidden_of(output)
            return with_hidden(output, added(hidden, addition.to(hidden.device)))

        return hook

    with contextlib.ExitStack() as handles:
        for layer, addition in additions.items():
            handle = blocks[layer].register_forward_hook(hook_for(addition))
            handles.callback(handle.remove)
        yield


@contextlib.contextmanager
def observed(block: nn.Module) -> Iterator[list[object]]:
    """Record what `block` returns within this context, on this thread only: one item a call (see `hidden_of`)."""
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
