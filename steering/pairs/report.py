"""How a source of pairs was read, told to people."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from steering.errors import SteeringError, UnknownColumns
from steering.pairs.schema import quoted_list

REMEDIES = {
    "is empty": "fill in prompt, chosen and rejected",
    "not text": "write text in prompt, chosen and rejected, or name the columns that hold it",
    "label row": "a pair needs a good and a bad answer to one prompt; bring rows of both labels, or pairs",
    "tie": "bring pairs of which one answer is better",
    "does not say which answer": "write a or b in it, or the name of the better answer's column",
    "equals": "give each row two different answers",
    "number of fields": "put texts that hold the separator in quotes",
    "JSON": "write one JSON object in each line",
    "too long": "shorten the texts",
    "longer than": "shorten the texts, or choose a model that reads more",
    "prompt also in": "bring pairs with other prompts",
}
"""Words of a reason for dropping rows -> what to do about it when no row is left."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row left out: its number, and the reason, with what differs from row to row in brackets at its end."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class PairsReport:
    """How a source was read.

    Attributes:
        source: name of the file, or what else the pairs came from.
        read: rows in all.
        kept: rows that became pairs.
        dropped: the others, in order.
        columns: field of a pair -> column it was read from; empty for pairs made in memory.
        unit: what `Dropped.line` counts, "line" or "row".
        notes: whole sentences about how it was read: the encoding, rows past the limit, a text taken apart.
        left_out: columns that hold text and were not read.
    """

    source: str
    read: int
    kept: int
    dropped: tuple[Dropped, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)
    unit: str = "row"
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def summary(self) -> str:
        """Describe it in a sentence or two, as in "Read 9 rows of a.csv: 7 pairs kept, 2 dropped (duplicate: 2)."."""
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in _reasons(self.dropped).most_common())
        dropped = f"{len(self.dropped):,} dropped ({reasons})" if self.dropped else "none dropped"
        left_out = f" Columns left out: {quoted_list(list(self.left_out))}." if self.left_out else ""
        read, kept = counted(self.read, "row"), counted(self.kept, "pair")
        return f"Read {read} of {self.source}: {kept} kept, {dropped}.{left_out}"

    def sentences(self) -> list[str]:
        """Return the summary and the notes."""
        return [self.summary(), *self.notes]


def nothing_left(source: str, dropped: Sequence[Dropped], unit: str) -> SteeringError:
    """Make the error for a source of which no row became a pair."""
    if not dropped:
        return SteeringError(f"{source}: there are no rows; give at least one prompt with two answers.")
    reason, count = _reasons(dropped).most_common(1)[0]
    line = next(one.line for one in dropped if one.reason.startswith(reason))
    remedy = next((remedy for words, remedy in REMEDIES.items() if words in reason), "correct the rows")
    whole = f"all {len(dropped):,} rows were dropped, {count:,}" if len(dropped) > 1 else "the only row was dropped"
    kind = UnknownColumns if "not text" in reason else SteeringError
    return kind(f"{source}: {whole} because {reason} (first: {unit} {line:,}); {remedy}.")


def _reasons(dropped: Iterable[Dropped]) -> Counter[str]:
    return Counter(one.reason.partition(" (")[0] for one in dropped)


def counted(number: int, noun: str) -> str:
    """Write a number with its noun, as in "1 pair" and "2 pairs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
