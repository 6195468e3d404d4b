"""What step 1 of the Train tab does: pairs are read from an example set, a file, a pasted text or the Hub, and edited.

The handlers are plain functions. Each returns the parts of the page that change, by name: `pairs` (the pairs to train
on), `report` (HTML), `table` (rows), `name` and `behavior` (texts proposed for the vector), `source` (what was brought,
to be read again) and `mapping` (its columns, see `MappingView`; None to fold the dialog as it is). Whatever goes wrong,
the pairs read before stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from steering import paths
from steering.errors import SteeringError, UnknownColumns
from steering.interface import html
from steering.interface.train.pairs_source import Columns, PairsSource, ReadLimit
from steering.interface.train.parts import Update
from steering.limits import NO_LIMITS, LimitExceeded, Limits
from steering.pairs.dataset import Pairs, PreferencePair
from steering.pairs.preview import PairsPreview
from steering.pairs.readers import SUFFIXES

TABLE_ROWS = 100
"""Rows the table shows. gradio sends the whole table back at each edit, so it holds what a person looks through."""
ROLES = ("prompt", "chosen", "rejected")
MAPPING_TITLE = "My columns have other names"
"""Of the dialog in which a person says which column is which."""


@dataclass(frozen=True)
class MappingView:
    """The columns of a source, for the mapping dialog; `open` where a person has to say which is which."""

    preview: PairsPreview
    open: bool


NO_COLUMNS = MappingView(PairsPreview(paths={}, mapping={}, layout="", pair=None, problem=""), open=False)
"""Of pairs that come from no file."""


def example_sets() -> list[tuple[str, str]]:
    """(label, file name) of the example sets that ship with the project."""
    return [(_words(path.stem), path.name) for path in sorted(examples_folder().glob("*.csv"))]


def read_example(name: str | None, pairs: Pairs | None) -> Update:
    """Read an example set by its file name; it also proposes the behavior."""
    if name not in {file for _, file in example_sets()}:
        return failure("Choose an example set.", pairs)
    update = _read(PairsSource("file", str(examples_folder() / name)), None, ReadLimit(), pairs)
    return update | {"behavior": _words(Path(name).stem)} if "pairs" in update else update


def read_file(file: str | None, most: str, which: str, pairs: Pairs | None, limits: Limits = NO_LIMITS) -> Update:
    """Read an uploaded file; `most` and `which` are the fields of `ReadLimit.of`."""
    if not file:
        return {} if pairs else failure("Drop a file first.", pairs)
    return _read_limited(PairsSource("file", file, limits), None, most, which, pairs)


def read_text(text: str, most: str, which: str, pairs: Pairs | None, limits: Limits = NO_LIMITS) -> Update:
    """Read pasted rows: CSV, TSV, JSON or JSONL."""
    if not (text or "").strip():
        return failure("Paste rows into the box first, with a first line that names the columns.", pairs)
    return _read_limited(PairsSource("text", text, limits), None, most, which, pairs)


def read_hub(text: str, most: str, which: str, pairs: Pairs | None, limits: Limits = NO_LIMITS) -> Update:
    """Read a data set of the Hugging Face Hub by its id or address."""
    if not (text or "").strip():
        return failure("Write the data set's id first, such as owner/name.", pairs)
    try:
        source = PairsSource.of_hub(text, limits)
    except SteeringError as error:
        return failure(str(error), pairs)
    return _read_limited(source, None, most, which, pairs)


def read_mapped(source: PairsSource | None, most: str, which: str, pairs: Pairs | None, columns: Columns) -> Update:
    """Read what was brought last again, with these columns."""
    if source is None:
        return failure("Drop a file or paste rows first.", pairs)
    return _read_limited(source, _unless_found(source, columns), most, which, pairs)


def preview_mapped(source: PairsSource | None, columns: Columns) -> PairsPreview:
    """Preview the source with these columns."""
    if source is None:
        return replace(NO_COLUMNS.preview, problem="Drop a file or paste rows first.")
    return source.preview(_unless_found(source, columns))


def apply_edits(rows: Sequence[Sequence[Any]], pairs: Pairs | None) -> Update:
    """Put the table's rows in place of the pairs it shows; the pairs past the table stay as they are."""
    shown = list(pairs[:TABLE_ROWS]) if pairs else []
    edited = []
    for number, row in enumerate(rows, start=1):
        prompt, chosen, rejected = (str(cell or "") for cell in [*row, "", "", ""][: len(ROLES)])
        earlier_turns = shown[number - 1].before if number <= len(shown) else ()
        if any(text.strip() for text in (prompt, chosen, rejected)):
            edited.append(PreferencePair(prompt, chosen, rejected, before=earlier_turns, line=number))
    past_the_table = pairs[TABLE_ROWS:] if pairs else ()
    edited += [replace(pair, line=len(rows) + i) for i, pair in enumerate(past_the_table, start=1)]
    try:
        result = Pairs.of(edited, source=pairs.report.source if pairs else "the table")
    except SteeringError as error:
        return {"report": html.problem(str(error))}
    if not result:
        return {"report": html.problem("The table is empty; write at least one pair.")}
    return {"pairs": result, "report": report(result)}


def failure(reason: str, pairs: Pairs | None) -> Update:
    """Say what is wrong, and that the pairs read before are still in use."""
    count = f"The {len(pairs):,} pairs read before are" if pairs and len(pairs) > 1 else "The pair read before is"
    return {"report": html.problem(reason) + (html.note(f"{count} still here.") if pairs else "")}


def report(pairs: Pairs) -> str:
    """Say what was read, how, and what of it the table cannot show."""
    roles = [{turn.role for turn in pair.before} for pair in pairs]
    turns, systems = sum(bool(each - {"system"}) for each in roles), sum(each == {"system"} for each in roles)
    unseen = [
        f"{'1 pair has' if count == 1 else f'{count:,} pairs have'} {what}. "
        f"{'They are' if what.startswith('earlier') else 'It is'} used; the table leaves {pronoun} out."
        for count, what, pronoun in (
            (turns, "earlier turns of a conversation before the prompt", "them"),
            (systems, "a system message", "it"),
        )
        if count
    ]
    notes = "".join(html.note(sentence) for sentence in (*pairs.report.notes, *unseen))
    return html.report(pairs.report) + notes


def _read_limited(source: PairsSource, columns: Columns | None, most: str, which: str, pairs: Pairs | None) -> Update:
    try:
        limit = ReadLimit.of(most, which)
    except SteeringError as error:
        return failure(str(error), pairs) | {"source": source}
    return _read(source, columns, limit, pairs)


def _read(source: PairsSource, columns: Columns | None, limit: ReadLimit, pairs: Pairs | None) -> Update:
    """Read the source; where its columns are not known, open the mapping dialog with those it has."""
    try:
        result = source.read(columns, limit)
    except LimitExceeded as error:
        return failure(str(error), pairs)
    except SteeringError as error:
        preview = source.preview(columns)
        ask = bool(preview.paths) and not preview.layout
        reason = (
            f"{str(error).rstrip('.')} under {MAPPING_TITLE!r}." if isinstance(error, UnknownColumns) else str(error)
        )
        return failure(reason, pairs) | {"source": source, "mapping": MappingView(preview, open=ask)}
    update = {"pairs": result, "report": report(result), "table": result[:TABLE_ROWS].to_rows(), "source": source}
    # Where a person chose the columns, the dialog shows them already, and only folds.
    update["mapping"] = None if columns else MappingView(source.preview(), open=False)
    return update if source.kind == "text" else update | {"name": _words(_stem(result.report.source))}


def _unless_found(source: PairsSource, columns: Columns) -> Columns | None:
    """Return the columns; None where they are those that were found anyway, of a layout that may be more than them."""
    if not columns:
        return None
    found = source.preview()
    return None if found.layout and columns == found.mapping else columns


def examples_folder() -> Path:
    """Return the folder of the example sets."""
    return paths.shipped("assets") / "examples"


def _stem(source: str) -> str:
    """Return a file's name without its suffixes, of which `pairs.csv.gz` has two."""
    name = Path(source).name
    while Path(name).suffix.lower() in SUFFIXES:
        name = Path(name).stem
    return name


def _words(stem: str) -> str:
    """`my_cheerful-pairs` as words."""
    return stem.replace("_", " ").replace("-", " ")
