"""What happens in step 1 of the Train tab: pairs are read, shown and edited."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from steering import paths
from steering.errors import SteeringError
from steering.interface import html
from steering.pairs.dataset import Pairs, PreferencePair, parse_pairs, read_pairs

TABLE_ROWS = 100
COLUMN_HINTS = {"prompt": "question", "chosen": "matching", "rejected": "not_matching"}
SKIP = gr.skip()


def example_sets() -> list[tuple[str, str]]:
    """(label, file) of the example sets that ship with the project."""
    folder = paths.shipped("assets") / "examples"
    return [(path.stem.replace("-", " "), path.name) for path in sorted(folder.glob("*.csv"))]


class PairsDesk:
    """Handlers of step 1. Whatever goes wrong, the pairs read before stay."""

    def read_example(self, name: str | None, before: Pairs | None) -> tuple[Any, ...]:
        if name not in {file for _, file in example_sets()}:
            return (*self._unread("Choose an example set.", before), SKIP)
        stem = Path(name).stem
        return (
            *self._read(lambda: read_pairs(paths.shipped("assets") / "examples" / name), before),
            stem.replace("-", " "),
        )

    def read_file(
        self, file: str | None, prompt: str, chosen: str, rejected: str, before: Pairs | None
    ) -> tuple[Any, ...]:
        if not file:
            return self._unread("Drop a file first.", before) if before is None else (SKIP,) * 4
        return self._read(lambda: read_pairs(file, columns=_columns(prompt, chosen, rejected)), before)

    def read_text(self, text: str, prompt: str, chosen: str, rejected: str, before: Pairs | None) -> tuple[Any, ...]:
        if not (text or "").strip():
            return self._unread("Paste rows into the box first, with a first line that names the columns.", before)
        return self._read(lambda: parse_pairs(text, columns=_columns(prompt, chosen, rejected)), before)

    def _read(self, reader: Any, before: Pairs | None) -> tuple[Any, ...]:
        try:
            pairs = reader()
        except SteeringError as error:
            return self._unread(str(error), before)
        stem = Path(pairs.report.source).stem
        name = SKIP if stem in ("pasted text", "table") else stem.replace("_", " ").replace("-", " ")
        return pairs, _told(pairs), pairs[:TABLE_ROWS].to_rows(), name

    @staticmethod
    def _unread(why: str, before: Pairs | None) -> tuple[Any, ...]:
        kept = html.note(f"The {len(before)} pairs read before are still here.") if before else ""
        return SKIP, html.problem(why) + kept, SKIP, SKIP

    def edited(self, rows: Sequence[Sequence[Any]], before: Pairs | None) -> tuple[Any, Any]:
        """The table's rows in place of the pairs it shows; the pairs past the table stay as they are."""
        shown = list(before[:TABLE_ROWS]) if before else []
        merged = []
        for number, row in enumerate(rows, start=1):
            texts = [str(cell or "") for cell in row]
            old = shown[number - 1] if number <= len(shown) else None
            new = PreferencePair(*texts, before=old.before if old else (), line=number)
            if any(text.strip() for text in texts):
                merged.append(new)
        rest = before[TABLE_ROWS:] if before else ()
        merged += [replace(pair, line=len(rows) + i) for i, pair in enumerate(rest, start=1)]
        try:
            pairs = Pairs.of(merged, source=before.report.source if before else "the table")
        except SteeringError as error:
            return SKIP, html.problem(str(error))
        if not pairs:
            return SKIP, html.problem("The table is empty; write at least one pair.")
        return pairs, _told(pairs)


def _told(pairs: Pairs) -> str:
    """What was read, and what of it the table cannot show."""
    longer = sum(bool(pair.before) for pair in pairs)
    if not longer:
        return html.report(pairs.report)
    which = "1 pair has" if longer == 1 else f"{longer:,} pairs have"
    turns = f"{which} earlier turns of a conversation before the prompt. They are used; the table leaves them out."
    return html.report(pairs.report) + html.note(turns)


def _columns(prompt: str, chosen: str, rejected: str) -> dict[str, str] | None:
    named = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    given = {role: column.strip() for role, column in named.items() if (column or "").strip()}
    return given or None
