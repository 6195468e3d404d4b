"""A model's matrices held as float16 on a CPU: half the bytes to read for every token written.

FBGEMM, which every x86 build of PyTorch carries, multiplies float32 activations with float16 weights and sums in
float32, row by row, so a row does not depend on its neighbours. Rounding the weights is all that is lost. (Measured
with the bundled model: mean KL 2e-6 nats; bfloat16 7e-4; int8 with activations in int8 per row 5e-2, and no faster.)
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from steering.runtime.module_proxy import ModuleProxy, copy_sharing_weights

LARGEST = torch.finfo(torch.float16).max


class Float16Linear(ModuleProxy):
    """Stands in for a linear map.

    Attributes:
        packed: a float16 copy of its matrix, laid out for FBGEMM, with its bias.
    """

    def __init__(self, original: nn.Module) -> None:
        super().__init__(original)
        weight = original.weight.t() if isinstance(original, Conv1D) else original.weight
        self.packed = torch.ops.quantized.linear_prepack_fp16(weight.contiguous(), original.bias)

    def forward(self, states: Tensor) -> Tensor:
        return torch.ops.quantized.linear_dynamic_fp16(states, self.packed)


def with_float16_weights(network: PreTrainedModel) -> tuple[PreTrainedModel | None, str]:
    """(a twin of the network with float16 matrices, ""), or (None, why it cannot be had)."""
    if network.device.type != "cpu" or network.dtype != torch.float32:
        return None, "float16 copies pay off only for float32 weights on a CPU"
    maps = [module for module in network.modules() if type(module) in (nn.Linear, Conv1D)]  # subclasses do other things
    maps = [module for module in maps if module.weight.abs().max() < LARGEST]
    try:
        return copy_sharing_weights(network, {module: Float16Linear(module) for module in maps}), ""
    except RuntimeError:
        return None, "this build of PyTorch has no float16 products"
