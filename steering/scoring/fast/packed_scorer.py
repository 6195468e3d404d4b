"""The fast way of scoring: packed batches, cached hidden states, a sliced LM head."""

from collections.abc import Sequence

import torch
from torch import Tensor

from steering.intervention.additions import Additions
from steering.intervention.hooks import steered
from steering.models.loading import LanguageModel
from steering.pairs.tokenization import EncodedPair, shared_prefix
from steering.scoring.fast.activation_cache import ActivationCache
from steering.scoring.fast.lm_head import LMHead
from steering.scoring.fast.packed_forward import PackedModel
from steering.scoring.fast.packing import PackedBatch, pack

WINDOWS = ("sliding_window", "sliding_window_size", "local_attention", "attention_chunk_size")
"""What configurations of transformers call the reach of attention that looks back only so far."""


class PackedScorer:
    """Scores preference pairs by index, each call as one packed batch. Several threads may use it at once.

    Args:
        model: the model; it is not changed.
        pairs: what will be scored.
        layer: the first layer that additions touch.
        scope: the steered positions, `all` or `answer`.

    Making one may raise any exception, where an architecture cannot be run so. Whether the results are the model's own
    is for the caller to check.
    """

    def __init__(self, model: LanguageModel, pairs: Sequence[EncodedPair], layer: int, scope: str) -> None:
        self._model, self._scope = model, scope
        self._packed, self._head = PackedModel(model, layer), LMHead(model)
        self._take(pairs)

    def for_pairs(self, pairs: Sequence[EncodedPair]) -> "PackedScorer":
        """Return a scorer of other pairs that runs the same modules."""
        other = object.__new__(PackedScorer)
        other._model, other._scope, other._packed, other._head = self._model, self._scope, self._packed, self._head
        other._take(pairs)
        return other

    def _take(self, pairs: Sequence[EncodedPair]) -> None:
        self._pairs = pairs
        self._prefix = shared_prefix(pair.prompt[:-1] for pair in pairs)
        self._prefix_hidden_states: Tensor | None = None
        self._cache = ActivationCache()

    @property
    def problem(self) -> str:
        """The activation cache's `problem`: one sentence for the user, empty where all is well."""
        return self._cache.problem

    def cost(self, index: int) -> int:
        """Return how many tokens a pair adds to a batch."""
        pair = self._pairs[index]
        return len(pair.prompt) - len(self._prefix) + len(pair.chosen) + len(pair.rejected)

    def chunks(self, indices: Sequence[int]) -> list[list[int]]:
        """Split indices into batches that fit into memory: here they all do."""
        return [list(indices)]

    @torch.no_grad()
    def untouched_logps(self, indices: Sequence[int]) -> Tensor:
        """Run the whole model, and cache the hidden states at the layer on the way. Returns float32 [n, 2]."""
        batch = self._pack(indices)
        hidden_states, last = self._packed.from_tokens(batch)
        prefix, *own = hidden_states[0].split(batch.sizes)
        if self._prefix_hidden_states is None:
            self._prefix_hidden_states = prefix.clone()
        for index, part in zip(indices, own, strict=True):
            self._cache.add(index, part)
        return self._logps(last, batch)

    def steered_logps(self, indices: Sequence[int], additions: Additions) -> Tensor:
        """Run the blocks after the layer with `additions`, layer -> [hidden_size]. Returns float32 [n, 2].

        Differentiable in the additions.
        """
        batch = self._pack(indices)
        hidden_states = self._hidden_states(indices, batch)
        if self._scope == "answer":  # only at positions that predict an answer token
            where = torch.zeros(*batch.tokens.shape, 1, device=batch.tokens.device)
            where[0, batch.predicting] = 1
            additions = {layer: where * v for layer, v in additions.items()}
        with steered(self._packed.blocks, additions):
            return self._logps(self._packed.from_hidden_states(hidden_states, batch), batch)

    @torch.no_grad()
    def residual_norm(self, indices: Sequence[int]) -> float:
        """Return the median L2 norm of the hidden states at the layer, over the tokens of these pairs."""
        return float(self._hidden_states(indices, self._pack(indices)).float().norm(dim=-1).median())

    def _pack(self, indices: Sequence[int]) -> PackedBatch:
        pairs = [self._pairs[i] for i in indices]
        return pack(pairs, self._prefix, self._model.device, self._model.network.dtype)

    def _logps(self, last: Tensor, batch: PackedBatch) -> Tensor:
        return batch.summed(self._head(last, batch.rows, batch.targets))

    def _hidden_states(self, indices: Sequence[int], batch: PackedBatch) -> Tensor:
        """Return the batch's hidden states [1, T, hidden_size] at the layer, computed unless all are cached."""
        if self._prefix_hidden_states is not None and all(i in self._cache for i in indices):
            return torch.cat([self._prefix_hidden_states, *(self._cache[i] for i in indices)])[None]
        with torch.no_grad():
            return self._packed.from_tokens(batch)[0]


def why_not_packed(model: LanguageModel, pairs: Sequence[EncodedPair]) -> str:
    """Return why these pairs cannot be packed, as far as the model's configuration tells; empty if it tells nothing."""
    network = model.network
    config = network.config.get_text_config(decoder=True)
    for key in WINDOWS:
        window = getattr(config, key, None)
        if isinstance(window, int) and pairs and max(map(len, pairs)) >= window:
            return f"pairs are longer than the model's {key.replace('_', ' ')} of {window} tokens"
    if getattr(config, "window_size", None):  # GPT-Neo's window counts places in the sequence, whatever the mask
        return f"{type(network).__name__} cannot be packed (its attention window)"
    return ""
