"""What happened to the rows of a file on the way to pairs, collected into a few sentences for the report."""

from dataclasses import dataclass, field

from steering.pairs.schema import shortened

LONGEST_EXAMPLE = 60
"""Characters of the example that a note shows."""


@dataclass
class RowNotes:
    """Counts, for each kind of event, the rows it happened in, and keeps the first as an example."""

    unit: str = "row"
    _seen: dict[str, tuple[set[int], str]] = field(default_factory=dict)

    def add(self, what: str, example: str, line: int) -> None:
        """Note that something happened in the row with this number; `what` is a sentence without its full stop."""
        lines, _ = self._seen.setdefault(what, (set(), example))
        lines.add(line)

    def sentences(self) -> tuple[str, ...]:
        """Write a sentence for each kind, in the order in which they were first seen."""
        return tuple(
            f"{what} ({len(lines):,} {self.unit if len(lines) == 1 else self.unit + 's'}, such as {_quoted(example)})."
            for what, (lines, example) in self._seen.items()
        )


def _quoted(text: str) -> str:
    return repr(shortened(text.strip(), LONGEST_EXAMPLE).encode("utf-8", "replace").decode())
