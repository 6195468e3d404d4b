"""Copies of a model that share its weights, with some modules replaced.

A twin is a deep copy of the modules in which every weight is the original's: it costs no memory, and what is changed in
it (stand-ins for blocks or for the head, another attention) does not touch the model, which other threads may run
meanwhile. The model's own forward still makes masks, rotary tables and the final norm, so nothing here knows about
architectures.
"""

import copy
import itertools
import threading
from collections.abc import Mapping

from torch import Tensor, nn
from transformers import PreTrainedModel

RETRIES = 5


def copy_sharing_weights(network: PreTrainedModel, replacing: Mapping[nn.Module, nn.Module]) -> PreTrainedModel:
    """A copy of the network that shares its weights, and what stands in it already, with some modules replaced."""
    standing = {id(module): module for module in network.modules() if isinstance(module, ModuleProxy)}
    shared = {id(tensor): tensor for tensor in itertools.chain(network.parameters(), network.buffers())}
    stand_ins = {id(old): new for old, new in replacing.items()}
    for attempt in itertools.count():
        try:
            return copy.deepcopy(network, {**shared, **standing, **stand_ins})
        except RuntimeError:  # another thread put a hook on a block while its dictionary was copied
            if attempt == RETRIES:
                raise


class ModuleProxy(nn.Module):
    """Takes a module's place; has `states` of its own for every thread that runs it."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "_original", original)  # not registered as a submodule: it is not ours
        self._here = threading.local()

    def __getattr__(self, name: str) -> object:
        try:
            return super().__getattr__(name)
        except AttributeError:  # models ask their parts for things such as `attention_type` or `weight`
            return getattr(object.__getattribute__(self, "_original"), name)

    @property
    def states(self) -> Tensor | None:
        return getattr(self._here, "states", None)

    @states.setter
    def states(self, states: Tensor | None) -> None:
        self._here.states = states


class InputRecorder(ModuleProxy):
    """Stands in for the head: keeps the hidden states it would have turned into logits."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        self.states = hidden_states
        return hidden_states[..., :1]

    def release(self) -> Tensor:
        states, self.states = self.states, None
        return states


class OutputReplay(ModuleProxy):
    """Stands in for a block that need not run: passes its input on, or hands over stored hidden states."""

    gives_tuple = False

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> object:
        hidden = hidden_states if self.states is None else self.states
        return (hidden,) if self.gives_tuple else hidden
