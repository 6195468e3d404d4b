"""Copies of a model that share its weights, with some modules replaced by proxies.

A copy costs no memory for weights, and what is changed in it (proxies for blocks or for the LM head, another attention
function) does not touch the model, which other threads may run meanwhile. The model's own forward still makes masks,
rotary tables and the final norm, so nothing here knows about architectures.
"""

import copy
import itertools
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)
"""The dictionaries in which `nn.Module` holds its hooks (torch/nn/modules/module.py, `Module.__init__`)."""


def copy_sharing_weights(network: PreTrainedModel, replacing: Mapping[nn.Module, nn.Module]) -> PreTrainedModel:
    """Copy a network so that it shares all parameters and buffers, with some of its modules replaced.

    The copy's modules, configuration and accelerate wrappers are its own; proxies that the network contains already
    are shared. PyTorch's hooks are left out: those that other threads have registered for runs of their own must not
    act in the copy, and may come and go while the copy is made.

    Args:
        network: what is copied; it is not changed.
        replacing: module of the network -> module that takes its place in the copy.

    Example:
        recorder = InputRecorder(network.lm_head)
        headless = copy_sharing_weights(network, {network.lm_head: recorder})
    """
    modules = list(network.modules())
    memo: dict[int, object] = {
        id(tensor): tensor for tensor in itertools.chain(network.parameters(), network.buffers())
    }
    memo |= {id(module): module for module in modules if isinstance(module, ModuleProxy)}
    # `deepcopy` takes what is in the memo without looking into the original, so it never iterates over a dictionary of
    # hooks that another thread changes.
    memo |= {id(getattr(module, name)): OrderedDict() for module in modules for name in HOOKS if hasattr(module, name)}
    memo |= {id(original): proxy for original, proxy in replacing.items()}
    return copy.deepcopy(network, memo)


def copy_without_blocks_after(network: PreTrainedModel, blocks_path: str, layer: int) -> PreTrainedModel:
    """Copy the network, sharing its weights, without the blocks after this layer; the network itself if there are none.

    Hidden states up to the layer are those of the whole network, bit for bit. Some architectures may not run so.

    Args:
        blocks_path: dotted name of the list of decoder blocks.
    """
    if layer + 1 == len(network.get_submodule(blocks_path)):  # type: ignore[arg-type]
        return network
    shorter = copy_sharing_weights(network, {})
    blocks = shorter.get_submodule(blocks_path)
    assert isinstance(blocks, nn.ModuleList)  # as `find_blocks` says
    del blocks[layer + 1 :]
    return shorter


class ModuleProxy(nn.Module):
    """Takes the place of a module in a copy of the network; attributes it lacks are the original's.

    Subclasses define `forward`. The original is `_original`; it is no submodule, so its parameters are not counted.
    """

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "_original", original)  # past nn.Module, which would register a submodule

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:  # models ask their modules for things such as `attention_type` or `weight`
            return getattr(object.__getattribute__(self, "_original"), name)


class HiddenStatesProxy(ModuleProxy):
    """A proxy that holds hidden states, separate ones for each thread that runs it."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__(original)
        self._of_thread = threading.local()

    @property
    def hidden_states(self) -> Tensor | None:
        """What this thread has set; None before."""
        return getattr(self._of_thread, "hidden_states", None)

    @hidden_states.setter
    def hidden_states(self, hidden_states: Tensor | None) -> None:
        self._of_thread.hidden_states = hidden_states


class InputRecorder(HiddenStatesProxy):
    """Stands in for the LM head: records its input [rows, tokens, hidden_size] and makes no logits."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Record the input; return a slice of it in place of logits."""
        self.hidden_states = hidden_states
        return hidden_states[..., :1]

    def release(self) -> Tensor:
        """Return what was recorded last on this thread, and hold it no longer."""
        hidden_states, self.hidden_states = self.hidden_states, None
        assert hidden_states is not None  # the network has run
        return hidden_states


class OutputReplay(HiddenStatesProxy):
    """Stands in for a block that need not run: returns stored hidden states, or its input where none are stored.

    Attributes:
        gives_tuple: whether the block returns a tuple that begins with the hidden states.
    """

    gives_tuple = False

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> object:
        """Return the stored hidden states, or the input."""
        stored = self.hidden_states
        output = hidden_states if stored is None else stored
        return (output,) if self.gives_tuple else output
