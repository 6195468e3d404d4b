"""A model's weight matrices held as float16 on a CPU: half the bytes to read for every token decoded.

FBGEMM, which every x86 build of PyTorch carries, multiplies float32 activations with float16 weights and sums in
float32, row by row, so a row does not depend on its neighbours. Rounding the weights is all that is lost. (Measured
with the bundled model: mean KL 2e-6 nats; bfloat16 7e-4; int8 with activations in int8 per row 5e-2, and no faster.)
"""

from typing import TypeGuard

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from steering.runtime.module_proxy import ModuleProxy, copy_sharing_weights

LARGEST = torch.finfo(torch.float16).max
"""65,504: a larger weight would become infinite."""

Packed = torch.ScriptObject
"""A float16 matrix with its bias, laid out for FBGEMM."""


def float16_problem(network: PreTrainedModel) -> str:
    """Return why float16 copies of this model's matrices are of no use; empty if they are."""
    if network.device.type != "cpu" or network.dtype != torch.float32:
        return "float16 copies pay off only for float32 weights on a CPU"
    return ""


def fits_float16(module: nn.Module) -> TypeGuard[nn.Linear | Conv1D]:
    """Tell whether a module is an ordinary linear map whose weights all are finite in float16.

    Subclasses of `nn.Linear` (quantised ones, adapters) compute other things, so they do not count.
    """
    return type(module) in (nn.Linear, Conv1D) and bool(module.get_parameter("weight").abs().max() < LARGEST)


def pack(weight: Tensor, bias: Tensor | None) -> Packed:
    """Pack a float32 matrix [out, in] and its bias [out] as float16 for `linear`.

    Raises RuntimeError where this build of PyTorch has no float16 matrix products.
    """
    return torch.ops.quantized.linear_prepack_fp16(weight.detach().contiguous(), bias)


def linear(inputs: Tensor, packed: Packed) -> Tensor:
    """Multiply float32 [..., in] with a packed matrix: float32 [..., out]."""
    return torch.ops.quantized.linear_dynamic_fp16(inputs, packed)


class Float16Linear(ModuleProxy):
    """Stands in for a linear map, with a float16 copy of its matrix."""

    def __init__(self, original: nn.Linear | Conv1D) -> None:
        super().__init__(original)
        self.packed = pack(original.weight.t() if isinstance(original, Conv1D) else original.weight, original.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map float32 [..., in] to [..., out]."""
        return linear(inputs, self.packed)


def copy_with_float16_weights(network: PreTrainedModel) -> PreTrainedModel:
    """Copy the network with its matrices as float16; all else is shared with the original.

    Raises RuntimeError where this build of PyTorch has no float16 matrix products.
    """
    maps = [module for module in network.modules() if fits_float16(module)]
    return copy_sharing_weights(network, {module: Float16Linear(module) for module in maps})
