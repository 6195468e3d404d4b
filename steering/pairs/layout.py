"""Which column holds what: the layout of a file, found by the names of its columns and its first rows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from steering.errors import SteeringError, UnknownColumns
from steering.pairs.cells import holds_conversation, holds_text, value_at
from steering.pairs.label_rows import paired
from steering.pairs.layouts import (
    ANSWERS,
    COMPLETIONS,
    HISTORIES,
    INPUTS,
    KTO_LABELS,
    LABELLED,
    LABELS,
    MAPPING_FIELDS,
    PROMPTS,
    REJECTED_ONLY,
    SCORED,
    SHIFTED,
    SYSTEMS,
)
from steering.pairs.rows import RawFields, RawRow
from steering.pairs.schema import Record, quoted_list
from steering.pairs.winners import Winner


@dataclass(frozen=True, slots=True)
class Layout:
    """Which column, or dotted path into one, holds which field of a pair.

    Attributes:
        name: of the layout, for people; empty where the columns were named by hand.
        paths: field -> column or path; fields as in `RawFields`.
        winner: reads which of two answers is the chosen one; None where the columns say so.
        label: with no rejected answer: column that calls the one answer of a row good or bad (KTO).
        left_out: columns that hold text and are not read.
    """

    name: str = ""
    paths: Mapping[str, str] = field(default_factory=dict)
    winner: Winner | None = None
    label: str = ""
    left_out: tuple[str, ...] = ()

    def fields(self, cells: Mapping[str, Any] | str) -> RawFields | str:
        """Pick the fields out of a row's cells; return the reason where there are none."""
        if isinstance(cells, str):
            return cells
        values = {name: value_at(cells, path) for name, path in self.paths.items()}
        if self.winner is not None:
            first = self.winner.first_wins(cells)
            if isinstance(first, str):
                return first
            if not first:
                values["chosen"], values["rejected"] = values["rejected"], values["chosen"]
        return RawFields(**values)

    def rows(self, records: Iterable[Record]) -> Iterator[RawRow]:
        """Pick the fields of every record; of label rows, pair those of one prompt."""
        if not self.label:
            return ((number, self.fields(cells)) for number, cells in records)
        labels: dict[int, Any] = {}

        def noted() -> Iterator[Record]:
            for number, cells in records:
                if not isinstance(cells, str):
                    labels[number] = value_at(cells, self.label)
                yield number, cells

        return paired(((number, self.fields(cells)) for number, cells in noted()), labels)

    def used(self) -> list[str]:
        """List the columns or paths to be read."""
        labels = list(self.winner.columns) if self.winner else [self.label] if self.label else []
        return [*self.paths.values(), *labels]

    def columns(self) -> dict[str, str]:
        """Map the fields of a pair to their columns, for people to read."""
        shown = dict(self.paths)
        if self.winner:
            either = f"{shown['chosen']} or {shown['rejected']}, as {' and '.join(self.winner.columns)} says"
            shown |= {"chosen": either, "rejected": either}
        if self.label:
            shown |= {"chosen": f"{shown['chosen']} where {self.label} is true", "rejected": "the others"}
        return shown


def find_layout(
    names: Iterable[str], columns: Mapping[str, str], source: str, sample: Sequence[Mapping[str, Any]] = ()
) -> Layout:
    """Find out which columns hold which field; upper and lower case do not matter.

    Args:
        names: all columns of the file.
        columns: field (see `MAPPING_FIELDS`) -> column or dotted path, where the caller says so.
        source: the file's name, for error messages.
        sample: the first rows, which tell a label's meaning, conversations without a prompt, and columns left out.

    Raises:
        UnknownColumns: the names fit no layout.
        SteeringError: `columns` names a field or a column that does not exist, or answers are missing altogether.
    """
    known = _Columns(list(names), source)
    given = _given(columns, known)
    layout = (
        _by_hand(given, known, sample) if {"chosen", "rejected"} & given.keys() else _in_table(given, known, sample)
    )
    if layout is None:
        raise _unknown(known, sample)
    paths = dict(layout.paths)
    taken = {path.partition(".")[0] for path in layout.used()}
    for name, candidates in (("system", SYSTEMS), ("history", HISTORIES), ("input", INPUTS)):
        column = known.first(candidates)
        if name in given:
            paths[name] = given[name]
        elif (
            column
            and column not in taken
            and name not in columns
            and (name != "input" or known.normalized(paths.get("prompt")) == "instruction")
        ):
            paths[name] = column
    layout = replace(layout, paths=paths)
    if "prompt" not in paths and not _prompts_in_answers(layout, sample):
        raise _unknown(known, sample)
    taken = {path if path in known.names else path.partition(".")[0] for path in layout.used()}
    left_out = tuple(
        name for name in known.names if name not in taken and any(holds_text(row.get(name)) for row in sample)
    )
    return replace(layout, left_out=left_out)


class _Columns:
    """The names of a file's columns, found whatever their case."""

    def __init__(self, names: list[str], source: str) -> None:
        self.names, self.source = names, source
        self._written: dict[str, list[str]] = {}
        for name in names:
            self._written.setdefault(_normalized(name), []).append(name)

    def __contains__(self, name: str) -> bool:
        return _normalized(name) in self._written

    def written(self, name: str) -> str:
        """Return a column as the file writes it; SteeringError if several differ in case only."""
        written = self._written[_normalized(name)]
        if len(written) > 1:
            raise SteeringError(f"{self.source}: more than one column is named {name!r}; rename the others.")
        return written[0]

    def first(self, candidates: Iterable[str]) -> str | None:
        """Return the first of the names that is a column, as the file writes it."""
        return next((self.written(name) for name in candidates if name in self), None)

    def normalized(self, name: str | None) -> str:
        return _normalized(name or "")


def _given(columns: Mapping[str, str], known: _Columns) -> dict[str, str]:
    """Check the columns named by the caller, and spell them as the file does."""
    fields = [each.name for each in MAPPING_FIELDS]
    if unknown := [name for name in columns if name not in fields]:
        raise SteeringError(f"columns: {unknown[0]!r} is none of the things to look for; use {', '.join(fields)}.")
    given = {}
    for name, path in columns.items():
        head, dot, rest = path.partition(".")
        if path in known:
            given[name] = known.written(path)
        elif head in known and dot:
            given[name] = f"{known.written(head)}.{rest}"
        else:
            raise SteeringError(
                f"{known.source}: there is no column {path!r}; choose among {quoted_list(known.names)}."
            )
    return given


def _by_hand(given: dict[str, str], known: _Columns, sample: Sequence[Mapping[str, Any]]) -> Layout | None:
    """Make the layout of answers that the caller named; what was not named is looked for."""
    answers: dict[str, str] = {name: path for name, path in given.items() if name in ("chosen", "rejected")}
    if len(answers) == 1 and "label" in given and "chosen" in answers:  # KTO rows
        return Layout("", _with_prompt(given, answers, known), label=given["label"])
    for chosen, rejected in ANSWERS.values():
        pair: dict[str, str] = {"chosen": chosen, "rejected": rejected, **answers}
        if len(answers) == 2 or all(pair[name] in known for name in pair if name not in answers):
            paths = {n: path if n in answers else known.written(path) for n, path in pair.items()}
            winner = None
            if "label" in given:
                winner = Winner.of_label(given["label"], paths["chosen"], paths["rejected"], sample, {})
            return Layout("", _with_prompt(given, paths, known), winner)
    return None


def _in_table(given: dict[str, str], known: _Columns, sample: Sequence[Mapping[str, Any]]) -> Layout | None:
    """Find the first layout of the table whose columns are all there."""
    for name, (chosen, rejected) in ANSWERS.items():
        if chosen in known and rejected in known:
            paths = {"chosen": known.written(chosen), "rejected": known.written(rejected)}
            return Layout(name, _with_prompt(given, paths, known))
    for name, (first, second) in LABELLED.items():
        if first in known and second in known:
            paths = {"chosen": known.written(first), "rejected": known.written(second)}
            if winner := _winner(given, paths, known, sample):
                return Layout(name, _with_prompt(given, paths, known), winner)
    conversation = known.first(("messages", "conversations", "conversation"))
    rejected_only = known.first(REJECTED_ONLY)
    if conversation and rejected_only and "chosen" not in known:
        return Layout("ms-swift", {"chosen": conversation, "rejected": rejected_only})
    completion, label = known.first(COMPLETIONS), known.first(KTO_LABELS)
    if completion and label and (given.get("prompt") or known.first(PROMPTS)):
        return Layout("KTO", _with_prompt(given, {"chosen": completion}, known), label=label)
    return None


def _winner(
    given: dict[str, str], paths: dict[str, str], known: _Columns, sample: Sequence[Mapping[str, Any]]
) -> Winner | None:
    first, second = paths["chosen"], paths["rejected"]
    label = given.get("label") or known.first(
        each for each in LABELS if _normalized(each) not in map(_normalized, (first, second))
    )
    if label:
        return Winner.of_label(label, first, second, sample, SHIFTED.get(_normalized(first), {}))
    ends = [path.replace("_", " ").split()[-1] for path in (first, second)]
    for pattern in SCORED:
        for both in ([pattern.format(end) for end in ends], [pattern.format(path) for path in (first, second)]):
            if all(each in known for each in both):
                return Winner.of_scores(known.written(both[0]), known.written(both[1]))
    return None


def _with_prompt(given: dict[str, str], paths: dict[str, str], known: _Columns) -> dict[str, str]:
    prompt = given.get("prompt") or known.first(
        name for name in PROMPTS if name in known and known.written(name) not in paths.values()
    )
    return ({"prompt": prompt} if prompt else {}) | paths


def _prompts_in_answers(layout: Layout, sample: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the answers bring the conversation that they reply to, as far as the first rows tell."""
    values = [value_at(row, layout.paths["chosen"]) for row in sample]
    return not values or any(holds_conversation(value) for value in values)


def _unknown(known: _Columns, sample: Sequence[Mapping[str, Any]]) -> SteeringError:
    first = sample[0] if sample else {}
    sides = value_at(first, known.written("instruction")) if "instruction" in known else None
    sides = sides[0] if isinstance(sides, list) and sides else sides
    if isinstance(sides, Mapping) and {"pos", "neg"} <= sides.keys():
        return SteeringError(
            f"{known.source}: this holds instructions and questions of a persona vector, but no answers; have the "
            "answers drafted from a description of the behavior (steering draft, or the Train tab), then bring those."
        )
    names = quoted_list(known.names)
    completion = known.first(COMPLETIONS)
    if completion and known.first(PROMPTS) and len(known.names) <= 3:
        return UnknownColumns(
            f"{known.source}: cannot tell which columns hold prompt, chosen and rejected among {names}: there is one "
            "answer in a row, and a pair needs two; bring a second one, or name the columns."
        )
    if known.first(PROMPTS) and not any(
        holds_text(row.get(name)) for row in sample for name in known.names if name != known.first(PROMPTS)
    ):
        return UnknownColumns(
            f"{known.source}: there are prompts but no answers; bring two for each prompt, or have both drafted from a "
            "description of the behavior (steering draft, or the Train tab)."
        )
    accepted = ", or ".join(" and ".join(pair) for pair in list(ANSWERS.values())[:3])
    return UnknownColumns(
        f"{known.source}: cannot tell which columns hold prompt, chosen and rejected among {names}; name the first "
        f"{' or '.join(PROMPTS[:2])} and the others {accepted}, or say which is which."
    )


def _normalized(name: str) -> str:
    return name.strip().casefold()
