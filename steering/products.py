"""Products of activations with frozen weights, by the faster of the two libraries that PyTorch carries.

PyTorch gives float32 products on x86 to MKL. oneDNN is as exact (both sum in float32) and was 6 to 10 % faster where we
measured (AMD EPYC, AVX-512), for slices of a vocabulary up to 40 %. It makes a kernel for every shape that it meets,
which takes about a millisecond and a megabyte, so only products that earn this back go to it.
"""

import os
from contextlib import suppress

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steering.twins import StandIn

LARGE = 2**18
"""Numbers in a matrix that earn back the making of a kernel."""
MANY = 32
"""Rows that do."""
KERNELS = "64"
"""Kept at a time, more than one training step meets. By default 1,024 are, which can be a gigabyte."""

for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):  # read by oneDNN, and PyTorch's door to it, once
    os.environ.setdefault(name, KERNELS)

_by_onednn = None
with suppress(AttributeError, RuntimeError):
    if torch.backends.mkldnn.is_available():
        _by_onednn = torch.ops.mkldnn._linear_pointwise.default


def product(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`states` [..., in] times the transpose of `weight` [out, in], plus `bias` [out]; for no gradient."""
    if not (_is_large(weight) and states.dtype == torch.float32 and states.numel() >= MANY * states.shape[-1]):
        return F.linear(states, weight, bias)
    return _by_onednn(states, weight, bias, "none", [], "")


class FrozenLinear(StandIn):
    """Stands in for a linear map whose weights have no gradient."""

    def forward(self, states: Tensor) -> Tensor:
        return _Product.apply(states, self._original.weight, self._original.bias)


def frozen_linears(network: nn.Module) -> dict[nn.Module, FrozenLinear]:
    """Stand-ins for those linear maps of a network that gain by it; for `twins.twin`."""
    maps = (module for module in network.modules() if type(module) is nn.Linear and not hasattr(module, "_hf_hook"))
    return {module: FrozenLinear(module) for module in maps if _is_large(module.weight)}


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return product(states, weight, bias)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return product(gradient, ctx.saved_tensors[0].t()), None, None


def _is_large(weight: Tensor) -> bool:
    """Whether products with it are oneDNN's, if they have many rows."""
    return _by_onednn is not None and weight.numel() >= LARGE and weight.dtype == torch.float32 and weight.is_cpu
