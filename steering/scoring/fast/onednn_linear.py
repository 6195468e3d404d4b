"""Products of activations with frozen weights by oneDNN, where that is the faster of PyTorch's two libraries.

PyTorch gives float32 products on x86 to MKL. oneDNN is as exact (both sum in float32); a whole training step was 1.10
to 1.16 times as fast with it (AMD EPYC). The operator is a private one of PyTorch's, so it is tried out before its
first use, and what uses it is compared with the model's own forward pass (see `scoring.check`).
"""

import logging
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steering.runtime.module_proxy import ModuleProxy

logger = logging.getLogger(__name__)

# oneDNN generates a kernel for each shape it meets, which takes about 1 ms and 1 MB (measured). A product of the sizes
# below is 4 million operations, some 50 microseconds on a core; smaller ones never earn the kernel back. The limits
# follow from that estimate; they are not tuned.
MIN_WEIGHT_NUMBERS = 2**16
MIN_ROWS = 32


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `inputs @ weight.T + bias` by oneDNN where it is the faster, else by `F.linear`; for no gradient.

    Args:
        inputs: [..., in].
        weight: [out, in]; a transposed view is as good.
        bias: [out].
    """
    large = inputs.dtype == torch.float32 and inputs.numel() >= MIN_ROWS * inputs.shape[-1] and is_large(weight)
    operator = onednn_operator() if large else None
    return F.linear(inputs, weight, bias) if operator is None else operator(inputs, weight, bias)


def is_large(weight: Tensor) -> bool:
    """Tell whether oneDNN would multiply by this weight: float32, on a CPU, of `MIN_WEIGHT_NUMBERS` and more."""
    return weight.numel() >= MIN_WEIGHT_NUMBERS and weight.dtype == torch.float32 and weight.is_cpu


@cache
def onednn_operator() -> Callable[[Tensor, Tensor, Tensor | None], Tensor] | None:
    """Return oneDNN's linear map (inputs, weight, bias), tried out once; None where there is none or it differs."""
    if not torch.backends.mkldnn.is_available():
        logger.info("This PyTorch has no oneDNN: linear maps go to its usual library.")
        return None

    def operator(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        linear_pointwise = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001 - torch has no public name for it
        return linear_pointwise.default(inputs, weight, bias, "none", [], "")

    inputs, weight = (torch.linspace(-100, 100, 64 * rows).sin().view(rows, 64) for rows in (40, 48))
    bias = torch.linspace(-1, 1, 48)
    try:
        same = torch.allclose(operator(inputs, weight, bias), F.linear(inputs, weight, bias), rtol=1e-5, atol=1e-5)
    except Exception as error:  # noqa: BLE001 - a private operator may change or go in any way
        logger.warning("oneDNN's linear map fails (%s: %s); F.linear takes its place.", type(error).__name__, error)
        return None
    if not same:
        logger.warning("oneDNN's linear map gives other results than F.linear, which takes its place.")
        return None
    return operator


class FrozenLinear(ModuleProxy):
    """Stands in for a linear map whose weights have no gradient; its input gets one."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs [..., in] to [..., out]."""
        return _FrozenLinearFunction.apply(inputs, self._original.weight, self._original.bias)


def frozen_linears(network: nn.Module) -> dict[nn.Module, FrozenLinear]:
    """Return proxies for those linear maps of a network that gain by oneDNN, for `copy_sharing_weights`.

    Left alone are subclasses of nn.Linear (quantised maps) and maps that accelerate moves between devices.
    """
    if onednn_operator() is None:
        return {}
    maps = (module for module in network.modules() if type(module) is nn.Linear and not hasattr(module, "_hf_hook"))
    return {module: FrozenLinear(module) for module in maps if is_large(module.weight)}


class _FrozenLinearFunction(torch.autograd.Function):
    """`linear`, with a gradient for the inputs only."""

    @staticmethod
    def forward(ctx, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return linear(inputs, weight, bias)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return linear(gradient, weight.t()), None, None
