"""Products of activations with frozen weights, by the faster of the two libraries that PyTorch carries.

PyTorch gives float32 products on x86 to MKL. oneDNN is as exact (both sum in float32) and was 6 to 10 % faster where we
measured (AMD EPYC, AVX-512), for slices of a vocabulary up to 40 %. It makes a kernel for every shape that it meets,
which takes about a millisecond and a megabyte, so only products that earn this back go to it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

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

_read: ContextVar[Tensor | None] = ContextVar("rows that are read", default=None)
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
    """Stands in for a linear map whose weights have no gradient.

    Attributes:
        of_read: whether only the rows of its states [1, T, in] that are read in the end count; the others become 0.
    """

    of_read = False

    def forward(self, states: Tensor) -> Tensor:
        rows = _read.get() if self.of_read else None
        return _Product.apply(states, self._original.weight, self._original.bias, rows)


@contextmanager
def reading(rows: Tensor) -> Iterator[None]:
    """Within this context these rows (int64 [P]) are read in the end."""
    token = _read.set(rows)
    try:
        yield
    finally:
        _read.reset(token)


def frozen_linears(network: nn.Module) -> dict[nn.Module, FrozenLinear]:
    """Stand-ins for those linear maps of a network that gain by it; for `twins.twin`."""
    maps = (module for module in network.modules() if type(module) is nn.Linear and not hasattr(module, "_hf_hook"))
    return {module: FrozenLinear(module) for module in maps if _is_large(module.weight)}


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states: Tensor, weight: Tensor, bias: Tensor | None, rows: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight, rows)
        return _at_rows(states, weight, bias, rows)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        weight, rows = ctx.saved_tensors
        return _at_rows(gradient, weight.t(), None, rows), None, None, None


def _at_rows(states: Tensor, weight: Tensor, bias: Tensor | None, rows: Tensor | None) -> Tensor:
    if rows is None:
        return product(states, weight, bias)
    found = states.new_zeros(*states.shape[:-1], len(weight))
    few = F.linear(states.index_select(1, rows), weight, bias)  # in one block only: no kernel would be used twice
    return found.index_copy_(1, rows, few)


def _is_large(weight: Tensor) -> bool:
    """Whether products with it are oneDNN's, if they have many rows."""
    return _by_onednn is not None and weight.numel() >= LARGE and weight.dtype == torch.float32 and weight.is_cpu
