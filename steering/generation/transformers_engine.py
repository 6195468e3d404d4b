"""Prefill and decoding by transformers' own forward, with its own KV cache and steering by hooks: for any model.

With the model's own weights this is the plain way: what every faster way is compared with before it is used, and what
decoding goes back to when a faster way fails.
"""

import inspect
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from steering.generation.prompt_batch import PromptBatch
from steering.intervention.additions import Additions
from steering.intervention.hooks import steered
from steering.models.precision import input_device


class TransformersEngine:
    """Runs a model by transformers' forward.

    Args:
        network, blocks_path: the model, and the dotted path of its decoder blocks.
        name: of this way of decoding, for log lines and the page.

    Attributes:
        blocks: the decoder blocks; `device`: where token ids go in.
        shares_prompt: whether a prompt is prefilled as one row up to its first steered layer, whatever the number of
            rows that answer it. Off until `checks` has found that it gives the same logits.
        supports_ragged_batch: whether rows of different prompts can be decoded in one padded batch; None until checked.
    """

    def __init__(self, network: PreTrainedModel, blocks_path: str, name: str) -> None:
        self.network, self.name, self._blocks_path = network, name, blocks_path
        self.device = input_device(network)
        blocks = network.get_submodule(blocks_path)
        assert isinstance(blocks, nn.ModuleList)  # `find_blocks` looks at nothing else
        self.blocks = blocks
        self.shares_prompt = False
        self.supports_ragged_batch: bool | None = None
        parameters = inspect.signature(network.forward).parameters
        self._last_logits = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        # transformers 5.24 renamed `past_key_values`, of arguments and of outputs.
        self._cache_name = "cache" if "cache" in parameters else "past_key_values"

    @torch.inference_mode()
    def prefill(self, batch: PromptBatch) -> Tensor:
        """Read the prompt; float32 [rows, vocabulary] after it. Sets the batch's cache."""
        return self._prefill_shared(batch) if self.shares_prompt else self._prefill_rows(batch, None)

    @torch.inference_mode()
    def prefill_again(self, batch: PromptBatch) -> None:
        """Fill the cache of a batch that another engine has begun: all of its tokens but the last."""
        self._prefill_rows(batch, -1)

    def restore(self, batch: PromptBatch) -> bool:
        """Return False: no prefix cache is used, all is computed anew, as the model does it."""
        return False

    def new_cache(self) -> "TransformersCache":
        """Return an empty KV cache that rows can join."""
        return TransformersCache(self)

    def run(
        self, tokens: Tensor, additions: Additions, cache: Cache | None = None, **inputs: Tensor
    ) -> tuple[Tensor, Cache | None]:
        """Run tokens [rows, positions] steered; float32 [rows, vocabulary] after the last, and the cache.

        The cache is None for a model that keeps none (some recurrent ones).
        """
        with steered(self.blocks, additions):
            output = self.network(
                input_ids=tokens, use_cache=True, **{self._cache_name: cache}, **inputs, **self._last_logits
            )
        return output.logits[:, -1].float(), getattr(output, self._cache_name, None)

    @torch.inference_mode()
    def next_token_logits(self, tokens: Tensor, layer: int) -> tuple[Tensor, None]:
        """Run tokens [1, positions] unsteered; float32 [vocabulary] after them, and None for a block's output."""
        return self._next_logits(tokens, {}), None

    @torch.inference_mode()
    def resume_from(self, layer: int, output: None, tokens: Tensor, additions: Additions) -> Tensor:
        """Run the tokens steered, through all blocks; float32 [vocabulary] after them."""
        return self._next_logits(tokens, additions)

    def _next_logits(self, tokens: Tensor, additions: Additions) -> Tensor:
        with steered(self.blocks, additions):
            return self.network(input_ids=tokens, use_cache=False, **self._last_logits).logits[0, -1].float()

    def _prefill_rows(self, batch: PromptBatch, stop: int | None) -> Tensor:
        """Read the tokens up to `stop`, every row for itself."""
        tokens = batch.tokens[:, :stop]
        additions = batch.pass_additions(0, tokens.shape[1])
        logits, batch.cache = self.run(tokens, additions, attention_mask=torch.ones_like(tokens))
        batch.engine = self
        return logits

    def _prefill_shared(self, batch: PromptBatch) -> Tensor:
        """Read the prompt as one row; adding the first vectors makes of it a row for each distinct setting."""
        distinct, index = batch.distinct_rows()
        additions = batch.pass_additions(0, batch.tokens.shape[1], distinct)
        shared_layers = min(additions, default=len(self.blocks) - 1) + 1
        tokens = batch.tokens[:1]
        logits, cache = self.run(tokens, additions, attention_mask=torch.ones_like(tokens))
        for number, layer in enumerate(cache.layers if cache is not None else ()):
            if number < shared_layers and len(index) > 1:
                layer.reorder_cache(_row_index(torch.zeros_like(index)))
            elif len(distinct) < len(index):
                layer.reorder_cache(_row_index(index))
        batch.cache, batch.engine = cache, self
        return logits.expand(len(distinct), -1)[index]


class TransformersCache:
    """transformers' KV cache for rows that are decoded in one pass.

    Rows of different lengths are padded on the left; the padding is masked out and not counted as positions, so that
    each row gives what it gives alone.
    """

    def __init__(self, engine: TransformersEngine) -> None:
        self._engine = engine
        self._cache: Cache | None = None
        self._mask = torch.empty(0, 0, dtype=torch.long)  # [rows, cached positions], 0 for padding

    def join(self, batch: PromptBatch) -> None:
        """Take over the cache of a prefilled batch, whose last token is not in it yet.

        Raises TypeError for a second batch if a cache does not hold all positions (windows, recurrent layers).
        """
        cache, batch.cache = batch.cache, None
        mask = torch.ones_like(batch.tokens[:, :-1])
        if not len(self._mask):
            self._cache, self._mask = cache, mask
            return
        longest = max(mask.shape[1], self._mask.shape[1])
        for ours, theirs in zip(_dynamic_layers(self._cache), _dynamic_layers(cache), strict=True):
            ours.keys = torch.cat([_padded(ours.keys, longest), _padded(theirs.keys, longest)])
            ours.values = torch.cat([_padded(ours.values, longest), _padded(theirs.values, longest)])
        self._mask = torch.cat([pad(part, (longest - part.shape[1], 0)) for part in (self._mask, mask)])

    def keep_rows(self, rows: list[int]) -> None:
        """Drop all other rows, and padding that none of these needs."""
        index = torch.tensor(rows, device=self._mask.device)
        self._mask = self._mask[index]
        unused = int((self._mask.cumsum(dim=1) == 0).sum(dim=1).min())
        self._mask = self._mask[:, unused:]
        if self._cache is not None:
            self._cache.reorder_cache(_row_index(index))  # unlike batch_select_indices, every kind of cache has it
            for layer in _dynamic_layers(self._cache) if unused else ():
                assert layer.keys is not None and layer.values is not None  # prefilled
                layer.keys, layer.values = layer.keys[:, :, unused:], layer.values[:, :, unused:]

    def keys_values(self, row: int) -> None:
        """Return None: no row is stored in the prefix cache."""

    def step(self, members: Sequence[PromptBatch], additions: Additions) -> Tensor:
        """Run every row's last token: float32 [rows, vocabulary] for the next.

        Args:
            members: the batches that have joined, in order.
            additions: layer -> float32 [rows, hidden_size].
        """
        positions = self._mask.sum(dim=1, keepdim=True)
        is_padded = bool((positions < self._mask.shape[1]).any())
        self._mask = pad(self._mask, (0, 1), value=1)
        tokens = torch.cat([batch.tokens[:, -1:] for batch in members])
        if self._cache is None:  # such a batch is the only member, and is run from its first token every time
            tokens, additions = members[0].tokens, members[0].pass_additions(0, members[0].tokens.shape[1])
        # A recurrent model takes no mask for a step, and without padding no model needs one.
        inputs = {"attention_mask": self._mask, "position_ids": positions} if is_padded else {}
        logits, self._cache = self._engine.run(tokens, additions, self._cache, **inputs)
        return logits


def _dynamic_layers(cache: Cache | None) -> list[DynamicLayer]:
    """Return the layers of a KV cache; raise TypeError unless all hold every position, so that they can be padded."""
    layers = [] if cache is None else [layer for layer in cache.layers if type(layer) is DynamicLayer]
    if cache is None or len(layers) < len(cache.layers):
        raise TypeError("only KV caches that hold every position can be padded")
    return layers


def _row_index(rows: Tensor) -> torch.LongTensor:
    """Give int64 [rows] the type that transformers' annotations ask for."""
    return cast(torch.LongTensor, rows)


def _padded(part: Tensor | None, length: int) -> Tensor:
    """Put zeros before keys or values [rows, heads, positions, head_dim], up to `length` positions."""
    assert part is not None  # the layer has been prefilled
    return pad(part, (0, 0, length - part.shape[2], 0))
