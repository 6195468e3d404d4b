"""One token more for rows of a Llama-like model with float16 weights, in as few operations as it takes.

With half the bytes to read, a third of a step was spent between the products: on modules, hooks, masks and on copying
the whole key-value cache. Here the step of one block is written out, TorchScript runs it without Python (and so
without its lock: two lanes of rows really step at the same time on two cores), and keys and values are written into
room kept for them. The products are those of the float16 twin, so nothing is held twice.

Its logits differ from the model's own forward by rounding, so the full weights, promised bit for bit, do not use it.
`Decoder` tries it out against the plain way before it is used; only models known to be built like this are tried.
"""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from steering.intervention.additions import Additions, added

MODEL_TYPES = {"llama", "mistral", "qwen2", "qwen3"}
ROOM = 128
"""Positions that a lane makes room for at a time."""
SPARE_ROWS = 4
"""Rows that it makes or leaves room for, so that not every one that joins or leaves moves all others."""

Packed = torch.classes.quantized.LinearPackedParamsBase
Rows = Sequence[int]


class LeanStep(nn.Module):
    """The blocks and the head of a float16 twin, for one new token a row. Several threads may run it at once.

    Its pieces but for attention serve any number of tokens (see `lean_read`).

    Raises AttributeError for a model that is not built like Llama.
    """

    query: list[Packed]
    key: list[Packed]
    value: list[Packed]
    output: list[Packed]
    gate: list[Packed]
    up: list[Packed]
    down: list[Packed]
    before_attention: list[Tensor]
    before_mlp: list[Tensor]
    query_norm: list[Tensor]
    key_norm: list[Tensor]

    def __init__(self, twin: PreTrainedModel, blocks: nn.ModuleList) -> None:
        super().__init__()
        attentions, mlps = [block.self_attn for block in blocks], [block.mlp for block in blocks]
        self.query, self.key, self.value, self.output = (
            [getattr(attention, f"{name}_proj").packed for attention in attentions] for name in "qkvo"
        )
        self.gate, self.up, self.down = (
            [getattr(mlp, f"{name}_proj").packed for mlp in mlps] for name in ("gate", "up", "down")
        )
        self.head = twin.get_output_embeddings().packed
        self.before_attention = [block.input_layernorm.weight.detach() for block in blocks]
        self.before_mlp = [block.post_attention_layernorm.weight.detach() for block in blocks]
        self.query_norm, self.key_norm = (  # qwen3's
            [getattr(a, name).weight.detach() for a in attentions if hasattr(a, name)] for name in ("q_norm", "k_norm")
        )
        self.last_norm = twin.base_model.norm.weight.detach()
        self.epsilon = float(twin.base_model.norm.variance_epsilon)
        self.head_size = int(attentions[0].head_dim)
        self.scale = float(attentions[0].scaling)

    def forward(
        self,
        hidden: Tensor,
        cached: Tensor,
        first: int,
        end: int,
        mask: Tensor,
        cos: Tensor,
        sin: Tensor,
        additions: dict[int, Tensor],
    ) -> Tensor:
        """float32 [rows, vocabulary]: logits after the tokens embedded as `hidden` [rows, hidden_size].

        Args:
            cached: [2, layers, rows, kv_heads, room, head_dim], keys and values; those of the new token are written
                at position `end`, those from `first` to `end` are attended to.
            mask: [rows * kv_heads or 1, 1, attended positions or 1], added to the scores.
            cos, sin: [rows, 1, head_dim], the rotation; the first half of `sin` is negative.
            additions: layer -> [rows, hidden_size].
        """
        for layer in range(len(self.query)):
            query, key, value = self.project(layer, hidden, cos, sin)
            cached[0, layer, :, :, end] = key
            cached[1, layer, :, :, end] = value
            keys = cached[0, layer].flatten(0, 1)[:, first : end + 1]
            values = cached[1, layer].flatten(0, 1)[:, first : end + 1]
            grouped = query.view(keys.size(0), -1, self.head_size)  # heads that share keys stand as one head's queries
            scores = torch.baddbmm(mask, grouped, keys.transpose(1, 2), alpha=self.scale)
            hidden = self.go_on(layer, hidden, torch.bmm(scores.softmax(-1), values).view(hidden.size(0), -1))
            if layer in additions:
                hidden = added(hidden, additions[layer])
        return self.logits(hidden)

    @torch.jit.export
    def project(self, layer: int, hidden: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A block's queries [rows, heads, head_dim], keys and values [rows, kv_heads, head_dim], rotated."""
        rows, size, epsilon = hidden.size(0), self.head_size, self.epsilon
        states = torch.rms_norm(hidden, [hidden.size(1)], self.before_attention[layer], epsilon)
        query = torch.ops.quantized.linear_dynamic_fp16(states, self.query[layer]).view(rows, -1, size)
        key = torch.ops.quantized.linear_dynamic_fp16(states, self.key[layer]).view(rows, -1, size)
        value = torch.ops.quantized.linear_dynamic_fp16(states, self.value[layer]).view(rows, -1, size)
        if len(self.query_norm) > 0:
            query = torch.rms_norm(query, [size], self.query_norm[layer], epsilon)
            key = torch.rms_norm(key, [size], self.key_norm[layer], epsilon)
        query = torch.addcmul(query * cos, query.roll(size // 2, -1), sin)
        key = torch.addcmul(key * cos, key.roll(size // 2, -1), sin)
        return query, key, value

    @torch.jit.export
    def go_on(self, layer: int, hidden: Tensor, attended: Tensor) -> Tensor:
        """A block's output, from its input and what its heads have gathered [rows, heads * head_dim]."""
        hidden = hidden + torch.ops.quantized.linear_dynamic_fp16(attended, self.output[layer])
        states = torch.rms_norm(hidden, [hidden.size(1)], self.before_mlp[layer], self.epsilon)
        gate = silu(torch.ops.quantized.linear_dynamic_fp16(states, self.gate[layer]))
        states = gate * torch.ops.quantized.linear_dynamic_fp16(states, self.up[layer])
        return hidden + torch.ops.quantized.linear_dynamic_fp16(states, self.down[layer])

    @torch.jit.export
    def logits(self, hidden: Tensor) -> Tensor:
        """float32 [rows, vocabulary], from the last block's output."""
        states = torch.rms_norm(hidden, [hidden.size(1)], self.last_norm, self.epsilon)
        return torch.ops.quantized.linear_dynamic_fp16(states, self.head)


class Lean:
    """A Llama-like model's lean step with what goes before it: embedding and rotation."""

    def __init__(self, twin: PreTrainedModel, blocks: nn.ModuleList) -> None:
        self.embed, self._rotation = twin.get_input_embeddings(), twin.base_model.rotary_emb
        self.layers = len(blocks)
        self.step: nn.Module = LeanStep(twin, blocks)
        try:
            with warnings.catch_warnings(action="ignore"):  # deprecated, and nothing else lets go of Python's lock
                self.step = torch.jit.script(self.step)
        except Exception:  # a Python that TorchScript does not know: the same step, run by Python
            pass

    def turned(self, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the rotation at these positions [rows], as `LeanStep` takes them; of `hidden`'s type."""
        cos, sin = self._rotation(hidden, positions[:, None])
        return cos, torch.cat([-sin[..., : sin.shape[-1] // 2], sin[..., sin.shape[-1] // 2 :]], dim=-1)

    @classmethod
    def of(cls, twin: PreTrainedModel, blocks: nn.ModuleList) -> "Lean | None":
        """The lean step of a float16 twin, or None for a model that is not built like Llama."""
        if twin.config.model_type not in MODEL_TYPES or twin.config.hidden_act != "silu":
            return None
        try:
            return cls(twin, blocks)
        except AttributeError:  # a matrix that does not fit into float16
            return None


class Lane:
    """Rows that step together: their keys and values, each row's ending at the same place, and their additions.

    Attributes:
        starts: where each row's cached positions begin.
        end: where they all end.
    """

    def __init__(self, lean: Lean) -> None:
        self.lean = lean
        self.starts: list[int] = []
        self.end = 0
        self._additions: dict[int, Tensor] = {}  # layer -> [rows, hidden_size]
        self._cached = torch.empty(0)  # [2, layers, rows, kv_heads, room, head_dim]

    def __len__(self) -> int:
        return len(self.starts)

    @torch.inference_mode()
    def join(self, cache: Cache, additions: Additions, rows: Rows) -> None:
        """Take in these rows of a cache; `additions` are [cached rows, hidden_size].

        Raises TypeError for a cache that does not keep every position.
        """
        if not all(type(layer) is DynamicLayer for layer in cache.layers):
            raise TypeError("only plain key-value caches can be laid together")
        old, picked = len(self), torch.tensor(list(rows))
        joining = [torch.stack([getattr(layer, name)[picked] for layer in cache.layers]) for name in ("keys", "values")]
        length = joining[0].shape[-2]
        if not old:
            self._cached, self.end = joining[0].new_empty(2, len(cache.layers), 0, *joining[0].shape[2:]), 0
        if old + len(picked) > self._cached.shape[2] or length > self.end:
            self._lay(range(old), old + len(picked) + (SPARE_ROWS if old else 0), length)
        fresh = self._cached[:, :, old : old + len(picked)]
        fresh[..., : self.end - length, :] = 0  # what a mask hides must be finite, too
        for kept, states in zip(fresh, joining, strict=True):
            kept[..., self.end - length : self.end, :] = states
        self.starts += [self.end - length] * len(picked)
        for layer in {*self._additions, *additions}:
            width = next(known[layer].shape[1] for known in (self._additions, additions) if layer in known)
            before = self._additions.get(layer, torch.zeros(old, width))
            after = additions[layer][picked] if layer in additions else torch.zeros(len(picked), width)
            self._additions[layer] = torch.cat([before, after])

    @torch.inference_mode()
    def keep(self, rows: Rows) -> list[int]:
        """Free all other rows; which row each one is now, since the last ones move to where others have left."""
        kept, order = set(rows), sorted(rows)
        moving = [row for row in order if row >= len(kept)]
        order = [row if row in kept else moving.pop() for row in range(len(kept))]
        for place, row in enumerate(order):
            if place != row:
                self._cached[:, :, place, :, : self.end] = self._cached[:, :, row, :, : self.end]
        self.starts = [self.starts[row] for row in order]
        additions = {layer: additions[order] for layer, additions in self._additions.items()}
        self._additions = {layer: additions for layer, additions in additions.items() if additions.any()}
        if len(order) + SPARE_ROWS < self._cached.shape[2] or not order:
            self._lay(range(len(order)), len(order))
        return order

    def states(self, row: int) -> Tensor:
        """[2, layers, kv_heads, positions, head_dim]: a row's keys and values."""
        return self._cached[:, :, row, :, self.starts[row] : self.end]

    @torch.inference_mode()
    def step(self, tokens: Rows) -> Tensor:
        """float32 [rows, vocabulary] for the token after these, one for each row."""
        if self.end == self._cached.shape[-2]:
            self._lay(range(len(self)), len(self))
        cached = self._cached[:, :, : len(self)]
        starts, first = torch.tensor(self.starts), min(self.starts)
        hidden = self.lean.embed(torch.tensor(list(tokens)))
        cos, sin = self.lean.turned(hidden, self.end - starts)
        mask = torch.zeros(1, 1, 1)
        if max(self.starts) > first:
            hides = torch.arange(first, self.end + 1) < starts.repeat_interleave(cached.shape[3])[:, None]
            mask = torch.zeros(hides.shape).masked_fill(hides, -torch.inf)[:, None]
        logits = self.lean.step(hidden, cached, first, self.end, mask, cos, sin, self._additions)
        self.end += 1
        return logits

    def _lay(self, rows: Rows, capacity: int, length: int = 0) -> None:
        """Lay these rows out anew, with room for so many, for rows `length` positions long, and for what follows."""
        first = min((self.starts[row] for row in rows), default=self.end)
        own = self.end - first
        end = max(own, length)
        both, layers, _, heads, _, size = self._cached.shape
        cached = self._cached.new_empty(both, layers, capacity, heads, end + ROOM, size)
        cached[:, :, : len(rows), :, : end - own] = 0  # what a mask hides must be finite, too
        for place, row in enumerate(rows):
            cached[:, :, place, :, end - own : end] = self._cached[:, :, row, :, first : self.end]
        self.starts = [self.starts[row] - self.end + end for row in rows]
        self._cached, self.end = cached, end
