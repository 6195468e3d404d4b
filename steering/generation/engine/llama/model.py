"""The parts of a Llama-like decoder block between attention, with float16 weights on a CPU.

With half the bytes to read, a third of a decode step of transformers' forward is spent between the matrix products: on
modules, hooks, masks and on copying the whole KV cache. Here a block is written out in as few operations as it takes,
with one matrix for queries, keys and values and one for gate and up. `decode_step` and `prefill` put attention between.

The logits differ from the model's own by the rounding of the weights. `checks` compares them with the model's own
forward before they are used; only model types known to be built like this are tried.
"""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer

from steering.generation.engine.fp16_weights import Packed, fits_float16, linear, pack

logger = logging.getLogger(__name__)

MODEL_TYPES = {"llama", "mistral", "qwen2", "qwen3"}


class UnsuitableModel(Exception):
    """A model that cannot be written out as a Llama; says why."""


class LlamaBlock(NamedTuple):
    """One decoder block: norm weights and packed matrices.

    Attributes:
        head_norm: qwen3's norm of queries and keys, float32 [heads + kv_heads, head_dim]; None for the others.
    """

    attention_norm: Tensor
    query_key_value: Packed
    head_norm: Tensor | None
    output: Packed
    mlp_norm: Tensor
    gate_up: Packed
    down: Packed


class LlamaModel:
    """A Llama-like model's blocks, norms and head. Several threads may run it at once.

    Attributes:
        embed: the model's own embedding.
        heads, kv_heads, head_dim: of attention; `scale` multiplies its scores.

    Raises UnsuitableModel, AttributeError for a model whose parts have other names, RuntimeError where this build of
    PyTorch has no float16 matrix products.
    """

    def __init__(self, network: PreTrainedModel, blocks: nn.ModuleList) -> None:
        config = network.config
        if config.model_type not in MODEL_TYPES or config.hidden_act != "silu":
            raise UnsuitableModel(f"model type {config.model_type} is not among {', '.join(sorted(MODEL_TYPES))}")
        if not all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers):
            raise UnsuitableModel("its attention looks back over a window only")
        base: Any = network.base_model  # torch types the parts of a module as Tensor or Module
        attention: Any = blocks[0].self_attn
        self.embed, self._rotary = network.get_input_embeddings(), base.rotary_emb
        self.head_dim, self.scale = int(attention.head_dim), float(attention.scaling)
        self.heads = attention.q_proj.out_features // self.head_dim
        self.kv_heads = attention.k_proj.out_features // self.head_dim
        self.blocks = [self._packed(block) for block in blocks]
        self._norm, self._epsilon = base.norm.weight.detach(), float(base.norm.variance_epsilon)
        self._head = _packed_together(network.get_output_embeddings())

    def _packed(self, block: Any) -> LlamaBlock:
        attention, mlp, head_norm = block.self_attn, block.mlp, None
        if hasattr(attention, "q_norm"):
            norms = [attention.q_norm] * self.heads + [attention.k_norm] * self.kv_heads
            head_norm = torch.stack([norm.weight.detach() for norm in norms])
        return LlamaBlock(
            block.input_layernorm.weight.detach(),
            _packed_together(attention.q_proj, attention.k_proj, attention.v_proj),
            head_norm,
            _packed_together(attention.o_proj),
            block.post_attention_layernorm.weight.detach(),
            _packed_together(mlp.gate_proj, mlp.up_proj),
            _packed_together(mlp.down_proj),
        )

    def rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rotary embedding's cosine and sine at positions int64 [tokens]: two float32 [tokens, 1, head_dim].

        The first half of the sine is negative, so that rotating x is `x * cos + x.roll(head_dim // 2) * sin`.
        """
        cos, sin = self._rotary(self._norm, positions[None])
        sin = torch.cat([-sin[..., : self.head_dim // 2], sin[..., self.head_dim // 2 :]], dim=-1)
        return cos[0, :, None], sin[0, :, None]

    def attention_input(self, block: LlamaBlock, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Project hidden states [tokens, hidden_size] to queries, keys and values; rotate queries and keys.

        Returns float32 [tokens, heads + 2 * kv_heads, head_dim].
        """
        normed = torch.rms_norm(hidden, hidden.shape[1:], block.attention_norm, self._epsilon)
        projected = linear(normed, block.query_key_value).view(hidden.shape[0], -1, self.head_dim)
        rotated = projected[:, : -self.kv_heads]
        source = rotated
        if block.head_norm is not None:
            source = torch.rms_norm(rotated, rotated.shape[2:], None, self._epsilon).mul_(block.head_norm)
        torch.addcmul(source * cos, source.roll(self.head_dim // 2, -1), sin, out=rotated)
        return projected

    def block_output(self, block: LlamaBlock, hidden: Tensor, attended: Tensor) -> Tensor:
        """Return the block's output [tokens, hidden_size], from its input and `attended` [tokens, heads * head_dim]."""
        hidden = hidden + linear(attended, block.output)
        normed = torch.rms_norm(hidden, hidden.shape[1:], block.mlp_norm, self._epsilon)
        gate, up = linear(normed, block.gate_up).chunk(2, dim=-1)
        return hidden + linear(silu(gate).mul_(up), block.down)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return float32 [tokens, vocabulary], from the last block's output [tokens, hidden_size]."""
        return linear(torch.rms_norm(hidden, hidden.shape[1:], self._norm, self._epsilon), self._head)


def _packed_together(*maps: Any) -> Packed:
    """Pack linear maps of the same input as one matrix, their outputs one after another."""
    if not all(map(fits_float16, maps)):
        raise UnsuitableModel("a matrix does not fit into float16")
    bias = None
    if any(each.bias is not None for each in maps):
        zeros: Sequence[Tensor] = [torch.zeros(each.weight.shape[0]) for each in maps]
        bias = torch.cat([z if each.bias is None else each.bias.detach() for z, each in zip(zeros, maps, strict=True)])
    return pack(torch.cat([each.weight.detach() for each in maps]), bias)
