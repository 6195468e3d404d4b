"""Products of activations with frozen weights, by the faster of the two libraries that PyTorch carries.

PyTorch gives float32 products on x86 to MKL. oneDNN is as exact (both sum in float32) and was 6 to 10 % faster where we
measured (AMD EPYC, AVX-512), for slices of a vocabulary up to 40 %. It makes a kernel for every shape that it meets,
which takes about a millisecond and a megabyte, so only products that earn this back go to it. And it reorders a matrix
for every product with it, unless that was done ahead (`Arranged`): a step of training is 3 to 7 % faster with it, the
more matrices fit into the budget.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steering.runtime.module_proxy import ModuleProxy

LARGE = 2**16
"""Numbers in a matrix that earn back the making of a kernel."""
MANY = 32
"""Rows that do."""
KERNELS = "64"
"""Kept at a time, more than one training step meets. By default 1,024 are, which can be a gigabyte."""
ARRANGED_BYTES = 256 * 1024**2
"""Of matrices arranged ahead: they are copies."""
TYPICAL_ROWS = 200
"""For which they are arranged; products of more or fewer rows gain as much."""

for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):  # read by oneDNN, and PyTorch's door to it, once
    os.environ.setdefault(name, KERNELS)

_read: ContextVar[Tensor | None] = ContextVar("rows that are read", default=None)
_by_onednn = _arrange = None
with suppress(AttributeError, RuntimeError):
    if torch.backends.mkldnn.is_available():
        _by_onednn = torch.ops.mkldnn._linear_pointwise.default
        _arrange = torch.ops.mkldnn._reorder_linear_weight.default


class Arranged:
    """Frozen matrices in the order in which oneDNN reads them. They live as long as this; so must the matrices."""

    def __init__(self) -> None:
        self._done: dict[tuple, Tensor] = {}
        self._bytes_left = ARRANGED_BYTES

    def add(self, weight: Tensor) -> None:
        """Arrange a matrix [out, in], if products with it are oneDNN's and there is room."""
        if _is_large(weight) and weight.nbytes <= self._bytes_left and _can_arrange():
            self._bytes_left -= weight.nbytes
            self._done[self._key(weight)] = _arrange(weight.detach(), TYPICAL_ROWS)

    def __call__(self, weight: Tensor) -> Tensor:
        """The matrix arranged, if it was added; else as it is."""
        return self._done.get(self._key(weight), weight)

    @staticmethod
    def _key(weight: Tensor) -> tuple:
        return weight.data_ptr(), weight.shape, weight.stride()


@cache
def _can_arrange() -> bool:
    """Whether this PyTorch does, and then multiplies by what it arranged as by the matrix itself; tried out once."""
    matrix = torch.linspace(-100, 100, 48 * 64).sin().view(48, 64)
    with suppress(Exception):
        return all(
            torch.allclose(_by_onednn(m, _arrange(m, TYPICAL_ROWS), None, "none", [], ""), m @ m.t(), atol=1e-5)
            for m in (matrix, matrix.t())
        )
    return False


def product(states: Tensor, weight: Tensor, bias: Tensor | None = None, arranged: Arranged | None = None) -> Tensor:
    """`states` [..., in] times the transpose of `weight` [out, in], plus `bias` [out]; for no gradient."""
    if not (_is_large(weight) and states.dtype == torch.float32 and states.numel() >= MANY * states.shape[-1]):
        return F.linear(states, weight, bias)
    return _by_onednn(states, weight if arranged is None else arranged(weight), bias, "none", [], "")


class FrozenLinear(ModuleProxy):
    """Stands in for a linear map whose weights have no gradient.

    Attributes:
        of_read: whether only the rows of its states [1, T, in] that are read in the end count; the others become 0.
    """

    of_read = False

    def __init__(self, original: nn.Linear, arranged: Arranged | None = None) -> None:
        super().__init__(original)
        self._arranged = arranged

    def forward(self, states: Tensor) -> Tensor:
        rows = _read.get() if self.of_read else None
        return _Product.apply(states, self._original.weight, self._original.bias, rows, self._arranged)


@contextmanager
def reading(rows: Tensor) -> Iterator[None]:
    """Within this context these rows (int64 [P]) are read in the end."""
    token = _read.set(rows)
    try:
        yield
    finally:
        _read.reset(token)


def frozen_linears(network: nn.Module, arranged: Arranged | None = None) -> dict[nn.Module, FrozenLinear]:
    """Stand-ins for those linear maps of a network that gain by it; for `twins.twin`."""
    maps = (module for module in network.modules() if type(module) is nn.Linear and not hasattr(module, "_hf_hook"))
    return {module: FrozenLinear(module, arranged) for module in maps if _is_large(module.weight)}


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, states: Tensor, weight: Tensor, bias: Tensor | None, rows: Tensor | None, arranged: Arranged | None
    ) -> Tensor:
        ctx.save_for_backward(weight, rows)
        ctx.arranged = arranged
        return _at_rows(states, weight, bias, rows, arranged)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, rows = ctx.saved_tensors
        return _at_rows(gradient, weight.t(), None, rows, ctx.arranged), None, None, None, None


def _at_rows(
    states: Tensor, weight: Tensor, bias: Tensor | None, rows: Tensor | None, arranged: Arranged | None
) -> Tensor:
    if rows is None:
        return product(states, weight, bias, arranged)
    found = states.new_zeros(*states.shape[:-1], len(weight))
    few = F.linear(states.index_select(1, rows), weight, bias)  # in one block only: no kernel would be used twice
    return found.index_copy_(1, rows, few)


def _is_large(weight: Tensor) -> bool:
    """Whether products with it are oneDNN's, if they have many rows."""
    return _by_onednn is not None and weight.numel() >= LARGE and weight.dtype == torch.float32 and weight.is_cpu
