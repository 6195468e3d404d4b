"""Keys and values of rows that were read or written, kept for requests that begin with the same tokens.

A conversation that goes on begins with all that was said before, another try of a prompt with the whole prompt, and
requests under one setting at least with the system prompt. What they begin with needs no second reading.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor

BUDGET = 256 * 1024**2
"""Bytes of keys and values kept; a row of the bundled model takes 46 KB a token."""

Key = tuple[bytes, tuple[int, ...]]


class PrefixCache:
    """Rows by what steered them and by their tokens; those not used for longest make room. For one thread at a time.

    Args:
        budget: bytes to keep.
    """

    def __init__(self, budget: int | None = None) -> None:
        self.room = BUDGET if budget is None else budget
        self._kept: OrderedDict[Key, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, steering: bytes, ids: Sequence[int], states: Tensor) -> None:
        """Keep a copy of a row's states [2, layers, kv_heads, len(ids), head_dim], unless a longer row has them."""
        row = tuple(ids)
        same = [key for key in self._kept if key[0] == steering]
        for key in same:
            if key[1][: len(row)] == row:
                self._kept.move_to_end(key)
                return
        for key in same:
            if row[: len(key[1])] == key[1]:
                self._drop(key)
        if _size(states) > self.room + sum(map(_size, self._kept.values())):
            return
        while _size(states) > self.room:
            self._drop(next(iter(self._kept)))
        self._kept[steering, row] = states.clone()
        self.room -= _size(states)

    def longest(self, steering: bytes, ids: Sequence[int]) -> Tensor | None:
        """The states of as many of the first `ids` as a row that was steered so has; None for none."""
        lengths = {key: _common(key[1], ids) for key in self._kept if key[0] == steering}
        best = max(lengths, key=lengths.__getitem__, default=None)
        if best is None or not lengths[best]:
            return None
        self._kept.move_to_end(best)
        return self._kept[best][:, :, :, : lengths[best]]

    def _drop(self, key: Key) -> None:
        self.room += _size(self._kept.pop(key))


def _size(states: Tensor) -> int:
    return states.numel() * states.element_size()


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many first items are the same."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((number for number, (a, b) in pairs if a != b), min(len(one), len(other)))
