"""What an experiment shows: a table, a picture, and one sentence that says whether the paper's claim holds here."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steering.errors import SteeringError
from steering.evaluation.statistics import Estimate

Cell = str | float | Estimate | None
"""Of a table: words, a number, a number with its interval, or nothing."""
NOTHING = "–"


@dataclass(frozen=True)
class Heat:
    """Numbers over two axes.

    Attributes:
        x, y: labels of columns and rows; x_title, y_title: of the axes.
        values: [y][x]; None where nothing was measured (yet).
        title: what the numbers are.
    """

    x: tuple[str, ...]
    y: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    x_title: str
    y_title: str
    title: str


@dataclass(frozen=True)
class Lines:
    """Numbers with their intervals against one axis.

    Attributes:
        lines: name -> points (x, estimate), in order.
        x_title, y_title: of the axes.
    """

    lines: Mapping[str, Sequence[tuple[float, Estimate]]]
    x_title: str
    y_title: str


@dataclass(frozen=True)
class Result:
    """What was found, so far or at last.

    Attributes:
        columns: heads of the table; rows: its lines.
        verdict: one sentence; empty before the end.
        notes: what to mind when reading it.
        picture: the same drawn; None for a table alone.
        holds: whether the claim holds here; None where there is none, or none of them could be measured.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    verdict: str = ""
    notes: tuple[str, ...] = ()
    picture: Lines | Heat | None = None
    holds: bool | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what it says, in JSON's types."""
        rows = [dict(zip(self.columns, map(_as_json, row), strict=True)) for row in self.rows]
        return {"rows": rows, "verdict": self.verdict, "notes": list(self.notes), "holds": self.holds}

    def as_text(self) -> str:
        """Return the table for a terminal, then verdict and notes."""
        lines = [list(self.columns), *([words(cell) for cell in row] for row in self.rows)]
        widths = [max(len(line[place]) for line in lines) for place in range(len(self.columns))]
        table = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines]
        return "\n".join([*(line.rstrip() for line in table), "", self.verdict, *self.notes]).rstrip()


def write_result(folder: Path, facts: Mapping[str, Any], result: Result) -> None:
    """Write what was asked for and found to `result.json` in the folder; SteeringError if there is no room."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**facts, **result.as_json()}, indent=1, ensure_ascii=False)
        (folder / "result.json").write_text(text, encoding="utf-8")
    except OSError as error:
        raise SteeringError(f"{folder} cannot be written to ({error.strerror}); free some space.") from error


def words(cell: Cell) -> str:
    """Return a cell for people."""
    if cell is None:
        return NOTHING
    if isinstance(cell, Estimate):
        return f"{cell.mean:.2f} [{cell.low:.2f}, {cell.high:.2f}]" if cell.count else NOTHING
    return cell if isinstance(cell, str) else f"{cell:.3g}"


def _as_json(cell: Cell) -> Any:
    return cell.as_json() if isinstance(cell, Estimate) else cell
