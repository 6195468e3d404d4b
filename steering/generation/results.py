"""What a side-by-side run gives: one column for each setting."""

from dataclasses import dataclass

from steering.intervention.additions import Setting
from steering.vectors.vector import setting_title


@dataclass(frozen=True)
class TokenChance:
    """One token where it stands in the answer.

    Attributes:
        text: the characters that it adds.
        untouched, steered: its probability in the untouched and in the steered model.
        kl: Kullback-Leibler divergence of all next tokens there, steered from untouched, in nats.
    """

    text: str
    untouched: float
    steered: float
    kl: float = 0.0


@dataclass(frozen=True)
class Column:
    """One setting's answer so far.

    Attributes:
        setting: vector -> multiplier; empty for the baseline.
        text: the answer; `tokens`: how many tokens it has, the end-of-turn token counted.
        finished: whether the answer has ended (by itself, or at max_new_tokens).
        seconds: from the start of the run to this column's latest token.
        trace: each token of the answer with its probability after those before it, untouched and steered, both
            before sampling; empty unless the run is traced. The tokens' texts together are `text`.
    """

    setting: Setting
    text: str = ""
    tokens: int = 0
    finished: bool = False
    seconds: float = 0.0
    trace: tuple[TokenChance, ...] = ()

    @property
    def tokens_per_second(self) -> float:
        """Return the tokens of the answer over its seconds; 0 before the first."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def title(self) -> str:
        """Name the setting, as in `cheerful +1.5, formal -1`; `baseline` for the empty one."""
        return setting_title((vector.name, multiplier) for vector, multiplier in self.setting.items())
