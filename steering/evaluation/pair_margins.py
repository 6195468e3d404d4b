"""What a vector does to each pair: where it does little, or the opposite, the pair may be labelled the wrong way."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from steering.evaluation.preference import log_ratio
from steering.pairs.dataset import Pairs


@dataclass(frozen=True)
class PairMargin:
    """Preference margins of one pair against the untouched model, in nats.

    Attributes:
        index: of the pair in its `Pairs`; `line`: of its source.
        up, down: margin at multiplier +1, above 0 where the vector favours the chosen answer, and at -1.
    """

    index: int
    line: int
    up: float
    down: float

    @property
    def spread(self) -> float:
        """How far the vector moves the pair the way it should, both directions together."""
        return self.up - self.down


def pair_margins(logps: Tensor, multipliers: Sequence[float], pairs: Pairs) -> tuple[PairMargin, ...]:
    """Read each pair's margins off `preference_logps` at these multipliers; empty unless +1 and -1 are among them.

    Args:
        logps: [1 + multipliers, n, 2], of these pairs in their order.
    """
    if not {1.0, -1.0} <= set(multipliers):
        return ()
    reference = log_ratio(logps[0])
    up, down = (log_ratio(logps[1 + list(multipliers).index(m)]) - reference for m in (1.0, -1.0))
    margins = zip(pairs, up.tolist(), down.tolist(), strict=True)
    return tuple(PairMargin(index, pair.line, *both) for index, (pair, *both) in enumerate(margins))


def suspects(margins: Sequence[PairMargin]) -> list[PairMargin]:
    """Order pairs so that those that the vector moves least, or the wrong way round, come first."""
    return sorted(margins, key=lambda margin: margin.spread)
