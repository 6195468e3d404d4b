"""Keys and values of rows that were prefilled or decoded, held for requests that begin with the same tokens.

A conversation that goes on begins with all that was said before, another try of a prompt with the whole prompt, and
requests under one setting at least with the system prompt. These beginnings need no second prefill.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor

BUDGET = 256 * 1024**2
"""Bytes of keys and values held: some 5,800 tokens of the bundled model, whose rows take 46 KB a token."""

Key = tuple[bytes, tuple[int, ...]]


class PrefixCache:
    """Rows by how they were steered and by their tokens; the least recently used make room. For one thread at a time.

    Args:
        budget: bytes to hold.

    Attributes:
        nbytes: bytes held now.
    """

    def __init__(self, budget: int = BUDGET) -> None:
        self.budget, self.nbytes = budget, 0
        self._rows: OrderedDict[Key, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def entries(self) -> list[Key]:
        """Return (steering, token ids) of every row, the least recently used first."""
        return list(self._rows)

    def store(self, steering: bytes, ids: Sequence[int], keys_values: Tensor) -> None:
        """Store a copy of a row's keys and values, unless a longer row includes them; drop rows that it includes.

        Args:
            steering: names what was added to the row's hidden states; equal for rows steered alike.
            ids: the row's tokens.
            keys_values: [layers, 2, kv_heads, len(ids), head_dim].
        """
        if keys_values.nbytes > self.budget:
            return
        row = tuple(ids)
        same = [key for key in self._rows if key[0] == steering]
        for key in same:
            if key[1][: len(row)] == row:
                self._rows.move_to_end(key)
                return
        for key in same:
            if row[: len(key[1])] == key[1]:
                self._drop(key)
        while self.nbytes + keys_values.nbytes > self.budget:
            self._drop(next(iter(self._rows)))
        self._rows[steering, row] = keys_values.clone()
        self.nbytes += keys_values.nbytes

    def longest_prefix(self, steering: bytes, ids: Sequence[int]) -> Tensor | None:
        """Return the keys and values of as many of the first `ids` as a row steered alike has; None for none."""
        lengths = {key: _common_length(key[1], ids) for key in self._rows if key[0] == steering}
        best = max(lengths, key=lengths.__getitem__, default=None)
        if best is None or not lengths[best]:
            return None
        self._rows.move_to_end(best)
        return self._rows[best][:, :, :, : lengths[best]]

    def _drop(self, key: Key) -> None:
        self.nbytes -= self._rows.pop(key).nbytes


def _common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Count the first items that are the same."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((number for number, (a, b) in pairs if a != b), min(len(one), len(other)))
