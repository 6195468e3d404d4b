"""Tensors that one part of a batch works out and the parts beside it only look at, one thread each.

Pairs share a prefix, so parts that run at the same time would all run it, forward and backward. Instead one lends:
layer by layer the others wait for its keys and values, should they be ahead of it, and on the way back it waits for
their gradients. These are summed in the order of the parts, so the result is always the same, bit for bit.
"""

import threading

from torch import Tensor


class Loan:
    """One part's side of the lending; a context, at whose end nobody waits for the part any more.

    Every part calls its own with its tensors in the same order. Those of parts that run together come from `loans`.
    """

    def __init__(self, desk: "_Desk", place: int) -> None:
        self._desk, self._place = desk, place
        self._number = 0

    @property
    def lends(self) -> bool:
        return self._place == 0

    def __call__(self, tensor: Tensor) -> Tensor:
        """What the lender calls its own with: there the tensor itself, which then gets the gradients of all parts."""
        number, self._number = self._number, self._number + 1
        if self.lends:
            self._desk.put(0, number, (tensor.detach(), tensor.requires_grad))
            if tensor.requires_grad:
                tensor.register_hook(lambda gradient: self._desk.settled(number, gradient))
            return tensor
        lent, wants_gradient = self._desk.get(0, number)
        borrowed = lent.detach().requires_grad_(wants_gradient)
        if wants_gradient:
            borrowed.register_hook(lambda gradient: self._desk.put(self._place, number, gradient))
        return borrowed

    def __enter__(self) -> "Loan":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._desk.leave(self._place, error)


def loans(parts: int) -> list[Loan]:
    """One for each of the parts, which have to run at the same time; the first lends."""
    desk = _Desk(parts)
    return [Loan(desk, place) for place in range(parts)]


class _Desk:
    """Where the parts put what the others get: (part's place, number of the tensor) -> what is lent, or a gradient."""

    def __init__(self, parts: int) -> None:
        self._borrowers = range(1, parts)
        self._there: dict[tuple[int, int], object] = {}
        self._left: dict[int, BaseException | None] = {}
        self._changed = threading.Condition()

    def put(self, place: int, number: int, what: object) -> None:
        with self._changed:
            self._there[place, number] = what
            self._changed.notify_all()

    def get(self, place: int, number: int) -> object:
        """Waits for it; raises what the part that was to put it there ended with."""
        with self._changed:
            self._changed.wait_for(lambda: (place, number) in self._there or place in self._left)
            if (place, number) not in self._there:
                raise self._left[place] or RuntimeError("A part of the batch ended without the gradient it owes.")
            return self._there[place, number]

    def settled(self, number: int, gradient: Tensor) -> Tensor:
        """The lender's gradient of a tensor with those of all borrowers added."""
        for place in self._borrowers:
            gradient = gradient + self.get(place, number)
            del self._there[place, number]
        del self._there[0, number]
        return gradient

    def leave(self, place: int, error: BaseException | None) -> None:
        with self._changed:
            self._left[place] = error
            self._changed.notify_all()
