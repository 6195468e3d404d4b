"""A pass of transformers' forward that begins at the output of a block, for the next-token preview of any model."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from steering.generation.engine.probe import is_near, probe_ids, random_directions
from steering.intervention.hooks import observed
from steering.models.blocks import hidden_of, with_hidden
from steering.models.precision import input_device
from steering.runtime.module_proxy import ModuleProxy, copy_sharing_weights

logger = logging.getLogger(__name__)


class ResumableCopy:
    """A copy of a model, sharing its weights, whose first blocks can be skipped.

    The model's own forward runs on the copy, so masks and position embeddings are its own. Whether that gives the
    logits of the whole model is found out here, once.

    Args:
        network, blocks_path: the model, and the dotted path of its decoder blocks.
        next_logits: runs (network, blocks, tokens [1, positions], additions); float32 [vocabulary].

    Attributes:
        network, blocks: the copy.
        is_exact: whether it can be used.
    """

    def __init__(self, network: PreTrainedModel, blocks_path: str, next_logits: Callable[..., Tensor]) -> None:
        self._start = _Start()
        blocks = network.get_submodule(blocks_path)
        try:
            proxies = {block: _SkippableBlock(block, layer, self._start) for layer, block in enumerate(blocks)}
            self.network = copy_sharing_weights(network, proxies)
            self.blocks: nn.ModuleList = self.network.get_submodule(blocks_path)
            self.is_exact = self._check(network, blocks, next_logits)
            problem: object = "the logits differ"
        except Exception as error:  # an architecture may refuse in any way
            self.is_exact, problem = False, repr(error)
        if not self.is_exact:
            logger.warning(
                "%s cannot be resumed at a block, so a preview runs all: %s", type(network).__name__, problem
            )

    @contextlib.contextmanager
    def beginning_at(self, layer: int, output: Any) -> Iterator[None]:
        """Within this context, on this thread, skip the blocks up to `layer`, which then returns `output`."""
        self._start.layer, self._start.output = layer, output
        try:
            yield
        finally:
            self._start.layer, self._start.output = -1, None

    @torch.inference_mode()
    def _check(self, network: nn.Module, blocks: nn.ModuleList, next_logits: Callable[..., Tensor]) -> bool:
        layer = len(blocks) // 2
        tokens = torch.tensor([probe_ids(network)], device=input_device(network))
        with observed(blocks[layer]) as outputs:
            next_logits(network, blocks, tokens, {})
        addition = random_directions(1, hidden_of(outputs[0]).shape[-1], seed=0).to(tokens.device)
        want = next_logits(network, blocks, tokens, {layer: addition})
        with self.beginning_at(layer, outputs[0]):
            got = next_logits(self.network, self.blocks, tokens, {layer: addition})
        return is_near(got, want, network.dtype)


class _Start(threading.local):
    """Where a pass begins on this thread: the layer, and what its block returned; -1 for the beginning."""

    layer, output = -1, None


class _SkippableBlock(ModuleProxy):
    """Runs a block or, up to the layer where the pass begins, hands on what is there."""

    def __init__(self, block: nn.Module, layer: int, start: _Start) -> None:
        super().__init__(block)
        self._layer, self._start = layer, start

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> object:
        if self._layer > self._start.layer:
            return self._original(hidden_states, *args, **kwargs)
        output = self._start.output
        return output if self._layer == self._start.layer else with_hidden(output, hidden_states)
