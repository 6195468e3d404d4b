"""What may be wrong with pairs that can be read. Interim: only their number and the lengths of the answers."""

from dataclasses import dataclass, field
from typing import Any, Literal

from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs

FEW_PAIRS = 30
"""Below it, the held-out fifth is too small to measure with."""
LENGTH_SKEW = 1.5
"""Times that one side's answers are as long as the other's before it is mentioned."""


@dataclass(frozen=True)
class Finding:
    """One thing that may be wrong.

    Attributes:
        kind: of finding; `text`: one or two sentences with the remedy.
        lines: `PreferencePair.line` of the pairs it is about.
        settings: of a method, that correct it.
    """

    kind: str
    severity: Literal["warning", "note"]
    text: str
    lines: tuple[int, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)


def lint(pairs: Pairs, model: LanguageModel | None = None) -> list[Finding]:
    """List what may be wrong with the pairs."""
    found = []
    if len(pairs) < FEW_PAIRS:
        found.append(Finding("few", "warning", f"There are only {len(pairs)} pairs; 60 are a good start."))
    chosen, rejected = sum(len(pair.chosen) for pair in pairs), sum(len(pair.rejected) for pair in pairs)
    ratio = max(chosen, rejected) / max(1, min(chosen, rejected))
    if ratio >= LENGTH_SKEW:
        longer = "chosen" if chosen > rejected else "rejected"
        text = f"The {longer} answers are {ratio:.1f} times as long, so the vector may learn length; even it out."
        found.append(Finding("length", "note", text, settings={"length_weight": 1.0}))
    return found
