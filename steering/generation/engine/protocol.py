"""What the decoder and the batches ask of an engine; `TransformersEngine` and `LlamaEngine` fulfil it."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from steering.generation.prompt_batch import PromptBatch
from steering.intervention.additions import Additions


class KVCache(Protocol):
    """Keys and values of rows that are decoded in one pass."""

    def join(self, batch: PromptBatch) -> None:
        """Take over the cache of a prefilled batch, whose last token is not in it yet."""

    def keep_rows(self, rows: list[int]) -> None:
        """Drop all other rows; `rows` are in ascending order."""

    def keys_values(self, row: int) -> Tensor | None:
        """Return a row for the prefix cache, [layers, 2, kv_heads, positions, head_dim]; None if not supported."""

    def step(self, members: Sequence[PromptBatch], additions: Additions) -> Tensor:
        """Run every row's last token: float32 [rows, vocabulary] for the next."""


class DecodingEngine(Protocol):
    """One way of running a model.

    Attributes:
        name: of this way, for log lines and the page.
        supports_ragged_batch: whether rows of different prompts can be decoded as one batch; None until checked.
    """

    name: str
    supports_ragged_batch: bool | None

    def prefill(self, batch: PromptBatch) -> Tensor:
        """Read the prompt; float32 [rows, vocabulary] after it. Sets the batch's cache."""

    def restore(self, batch: PromptBatch) -> bool:
        """Restore the prompt's KV cache from the prefix cache; return False on a miss or if not supported."""

    def new_cache(self) -> KVCache:
        """Return an empty KV cache that rows can join."""

    def next_token_logits(self, tokens: Tensor, layer: int) -> tuple[Tensor, Any]:
        """Run tokens [1, positions] unsteered; float32 [vocabulary] after them, and what `resume_from` needs."""

    def resume_from(self, layer: int, output: Any, tokens: Tensor, additions: Additions) -> Tensor:
        """Steer the same tokens from block `layer` on; float32 [vocabulary] after them."""
