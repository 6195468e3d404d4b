"""Tensors that one part of a batch works out and the parts beside it only look at.

Pairs share a prefix, so parts that run at the same time would all run it, forward and backward. Instead one lends:
layer by layer the others wait for its keys and values, should they be ahead of it, and on the way back it waits for
their gradients. These are summed in the order of the parts, so the result is always the same, bit for bit.
"""

from torch import Tensor

from steering.runtime.cpu_threads import give, taken


class Loan:
    """One part's side of the lending; part 0 of `in_threads` lends.

    Every part calls its own with its tensors in the same order.
    """

    def __init__(self, part: int, parts: int) -> None:
        self._part, self._borrowers = part, range(1, parts)
        self._number = 0

    @property
    def lends(self) -> bool:
        return self._part == 0

    def __call__(self, tensor: Tensor) -> Tensor:
        """What the lender calls its own with: there the tensor itself, which then gets the gradients of all parts."""
        number, self._number = self._number, self._number + 1
        if not self.lends:
            return self._borrowed(number)
        give(number, (tensor.detach(), tensor.requires_grad))
        if tensor.requires_grad:
            tensor.register_hook(lambda gradient: sum((taken(number, part) for part in self._borrowers), gradient))
        return tensor

    def _borrowed(self, number: int) -> Tensor:
        lent, wants_gradient = taken(number, 0)
        tensor = lent.detach().requires_grad_(wants_gradient)
        if wants_gradient:
            tensor.register_hook(lambda gradient: give(number, gradient))
        return tensor
