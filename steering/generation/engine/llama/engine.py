"""Prefill and decoding of Llama-like models with float16 weights, in the form in which `decoder` uses them."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from steering.generation.engine.llama.kv_cache import RowsKVCache
from steering.generation.engine.llama.model import LlamaModel
from steering.generation.engine.llama.prefill import next_token_logits, prefill
from steering.generation.prompt_batch import PromptBatch
from steering.intervention.additions import Additions


class LlamaEngine:
    """Runs a Llama-like model by the written-out prefill and decode step.

    Raises what `LlamaModel` raises for a model it cannot run.
    """

    name = "written-out Llama step, float16"
    supports_ragged_batch: bool | None = True

    def __init__(self, network: PreTrainedModel, blocks: nn.ModuleList) -> None:
        self._model = LlamaModel(network, blocks)

    def prefill(self, batch: PromptBatch) -> Tensor:
        """Read the prompt; float32 [rows, vocabulary] after it. Sets the batch's cache."""
        distinct, index = batch.distinct_rows()
        cached = batch.cached_prefixes(distinct.tolist())
        start = cached[0].shape[3] if cached else 0
        additions = batch.pass_additions(start, batch.prompt_length, distinct)
        logits, layers = prefill(self._model, batch.tokens[0, start:].tolist(), cached, additions)
        layers = [layer.expand(-1, len(distinct), -1, -1, -1) for layer in layers]
        for number, place in enumerate(distinct.tolist()) if batch.prefix_cache is not None else ():
            batch.store_prefix(place, torch.stack([layer[:, number] for layer in layers]))
        batch.cache, batch.engine = [layer[:, index] for layer in layers], self
        return logits.expand(len(distinct), -1)[index]

    def restore(self, batch: PromptBatch) -> bool:
        """Restore the prompt's KV cache from the prefix cache; return False on a miss.

        After it the prompt's last token is run by the next decode step, as if it had been decoded.
        """
        distinct, index = batch.distinct_rows()
        prefixes = batch.cached_prefixes(distinct.tolist())
        if not prefixes or prefixes[0].shape[3] < batch.prompt_length - 1:
            return False
        batch.cache, batch.engine = list(torch.stack(prefixes, dim=2)[:, :, index]), self
        return True

    def new_cache(self) -> RowsKVCache:
        """Return an empty KV cache that rows can join."""
        return RowsKVCache(self._model)

    def next_token_logits(self, tokens: Tensor, layer: int) -> tuple[Tensor, Tensor | None]:
        """Run tokens [1, positions] unsteered; float32 [vocabulary] after them, and the output of block `layer`."""
        with torch.inference_mode():
            hidden = self._model.embed(tokens)
        return next_token_logits(self._model, hidden, -1, {}, layer)

    def resume_from(self, layer: int, output: Tensor, tokens: Tensor, additions: Additions) -> Tensor:
        """Steer from block `layer` on, which returned `output` for these tokens; float32 [vocabulary] after them."""
        return next_token_logits(self._model, output, layer, additions)[0]
