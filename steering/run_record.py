"""A run to take along: as Python, as a command, as Markdown to read, as JSON to read back.

Every text in a record may be hostile: what people type and what models write is quoted wherever it is set down.
"""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from steering import __version__
from steering.errors import SteeringError
from steering.evaluation.fluency import Fluency
from steering.generation.precision import WEIGHTS
from steering.generation.results import Column
from steering.generation.sampling import Sampling
from steering.generation.stream import MAX_COLUMNS
from steering.models import bundled
from steering.models.chat_template import DEFAULT_SYSTEM_PROMPT, Conversation
from steering.vectors.action import check_multiplier
from steering.vectors.vector import SteeringVector

FORMAT, VERSION = "steering-run", 1
TURN_ROLES = ("system", "user", "assistant")
KINDS = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


@dataclass(frozen=True)
class RecordedColumn:
    """One column of a run; its vectors are given by name.

    Attributes:
        setting: vector -> multiplier, the vector by its slug on the shelf or by its file; empty for the baseline.
        title: for people.
        history: (role, content) of the turns before the prompt.
        text: the answer; `tokens`: how many it has; `finished`: False if it was stopped before its end.
        fluency: how it reads, or None if that was not judged.
    """

    setting: Mapping[str, float]
    title: str
    history: tuple[tuple[str, str], ...] = ()
    text: str = ""
    tokens: int = 0
    finished: bool = True
    fluency: Fluency | None = None

    @classmethod
    def of(
        cls,
        column: Column,
        names: Mapping[SteeringVector, str],
        history: Conversation = (),
        fluency: Fluency | None = None,
    ) -> Self:
        """Record a generated column; `names` maps each of its vectors to its slug or file."""
        setting = {names[vector]: float(multiplier) for vector, multiplier in column.setting.items()}
        turns = tuple((role, content) for role, content in history)
        return cls(setting, column.title, turns, column.text, column.tokens, column.finished, fluency)


@dataclass(frozen=True)
class Record:
    """One side-by-side run: all that decided it, and what came of it.

    Attributes:
        prompt, system: what was asked, and under which system prompt (none if empty).
        columns: 1 to 16 of them.
        sampling: how tokens were chosen.
        model: what `load_model` takes; empty for the bundled one. A folder's path is written out where this is.
        weights: `full` or `float16`, as `generate` takes them.
    """

    prompt: str
    columns: tuple[RecordedColumn, ...]
    system: str = DEFAULT_SYSTEM_PROMPT
    sampling: Sampling = field(default_factory=Sampling)
    model: str = ""
    weights: str = "full"

    @property
    def other_model(self) -> str:
        """The model, unless it is the bundled one, which needs no name."""
        return "" if self.model == bundled.NAME else self.model

    @property
    def chosen_sampling(self) -> dict[str, float]:
        """The fields of the sampling that are not at their default: name -> value."""
        return {f.name: v for f in fields(Sampling) if (v := getattr(self.sampling, f.name)) != f.default}

    @property
    def has_histories(self) -> bool:
        """Whether a column has turns before the prompt."""
        return any(column.history for column in self.columns)


def as_python(run: Record) -> str:
    """Write a Python program that runs it again."""
    settings = [
        "{" + ", ".join(f"vector({_literal(name)}): {m!r}" for name, m in column.setting.items()) + "}"
        for column in run.columns
    ]
    arguments = ["model", _literal(run.prompt), f"columns=[{', '.join(settings)}]"]
    if run.system != DEFAULT_SYSTEM_PROMPT:
        arguments.append(f"system={_literal(run.system)}")
    if run.has_histories:
        histories = [
            "[" + ", ".join(f"({_literal(role)}, {_literal(content)})" for role, content in column.history) + "]"
            for column in run.columns
        ]
        arguments.append(f"histories=[{', '.join(histories)}]")
    arguments += [f"{name}={value!r}" for name, value in run.chosen_sampling.items()]
    if run.weights != "full":
        arguments.append(f"weights={_literal(run.weights)}")
    return "\n".join(
        [
            "import steering",
            "",
            f"model = steering.load_model({_literal(run.other_model) if run.other_model else ''})",
            *(["vector = steering.Library().get"] if any(column.setting for column in run.columns) else []),
            "columns = steering.generate(",
            *(f"    {argument}," for argument in arguments),
            ")",
            "for column in columns:",
            '    print(f"[{column.title}]\\n{column.text}\\n")',
            "",
        ]
    )


def as_command(run: Record) -> str:
    """Write a command for a POSIX shell that runs it again, after comments on what the command line cannot say."""
    words = {"--prompt": [run.prompt]}
    if run.system != DEFAULT_SYSTEM_PROMPT:
        words["--system"] = [run.system]
    words["--column"] = [",".join(f"{name}={m!r}" for name, m in column.setting.items()) for column in run.columns]
    words |= {f"--{name.replace('_', '-')}": [repr(value)] for name, value in run.chosen_sampling.items()}
    if run.weights != "full":
        words["--weights"] = [run.weights]
    if run.other_model:
        words["--model"] = [run.other_model]
    notes = []
    if run.has_histories:
        notes.append("# Left out: the turns before the prompt. The command line takes none; Python does.")
    if any("," in name for column in run.columns for name in column.setting):
        notes.append("# This will be refused: the command line takes no vector whose name has a comma; Python does.")
    command = " ".join(f"{option}{_argument(value)}" for option, values in words.items() for value in values)
    if "\0" in command:
        notes.append("# Left out: the character NUL, which no command line can hold; Python can.")
    return "\n".join([*notes, f"steering generate {command}".replace("\0", ""), ""])


def as_markdown(run: Record) -> str:
    """Write a record for people: the settings, the prompt, each column's answer, and the Python that runs it again."""
    sampling = ", ".join(f"{f.name.replace('_', ' ')} {getattr(run.sampling, f.name)}" for f in fields(Sampling))
    facts = [
        f"- model: {_inline(run.model or bundled.NAME)}, {run.weights} weights",
        f"- sampling: {sampling}",
        f"- Steering Playground {__version__}",
    ]
    parts = ["# Steering run", "\n".join(facts)]
    if run.system:
        parts += ["System prompt:", _fenced(run.system)]
    parts += ["Prompt:", _fenced(run.prompt)]
    for column in run.columns:
        parts.append(f"## {_inline(column.title)}")
        for role, content in column.history:
            parts += [f"Before, {role}:", _fenced(content)]
        parts += [_summary(column), _fenced(column.text)]
    return "\n\n".join([*parts, "## Run it again", _fenced(as_python(run), "python"), ""])


def as_json(run: Record) -> str:
    """Write everything as one JSON object in ASCII, for `from_json`."""
    return json.dumps({"format": FORMAT, "version": VERSION, "program": __version__, **asdict(run)}, indent=2)


def from_json(text: str | bytes) -> Record:
    """Read a record that `as_json` wrote; unknown keys are ignored.

    Raises SteeringError for anything else.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SteeringError("This is no record of a run: it is not JSON.") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise SteeringError("This is no record of a run, but some other JSON.")
    if (version := _member(data, "version", int)) != VERSION:
        raise SteeringError(f"The record has version {str(version)[:20]}; this program reads version {VERSION}.")
    columns = _member(data, "columns", list)
    if not 1 <= len(columns) <= MAX_COLUMNS:
        raise SteeringError(f"The record has {len(columns)} columns; a run has 1 to {MAX_COLUMNS}.")
    given = _member(data, "sampling", dict)
    sampling = Sampling(**{f.name: _member(given, f.name, f.type) for f in fields(Sampling)})
    sampling.check()
    if (weights := _member(data, "weights", str)) not in WEIGHTS:
        raise SteeringError(f"The record's 'weights' are not known; they are one of {', '.join(WEIGHTS)}.")
    texts = {key: _member(data, key, str) for key in ("prompt", "system", "model")}
    return Record(columns=tuple(map(_column, columns)), sampling=sampling, weights=weights, **texts)


def _column(data: object) -> RecordedColumn:
    setting = _member(data, "setting", dict)
    judged = data.get("fluency") if isinstance(data, dict) else None
    return RecordedColumn(
        setting={name: check_multiplier(_member(setting, name, float)) for name in setting},
        title=_member(data, "title", str),
        history=tuple(map(_turn, _member(data, "history", list))),
        text=_member(data, "text", str),
        tokens=_member(data, "tokens", int),
        finished=_member(data, "finished", bool),
        fluency=None
        if judged is None
        else Fluency(**{f.name: _member(judged, f.name, f.type) for f in fields(Fluency)}),
    )


def _turn(turn: object) -> tuple[str, str]:
    if not isinstance(turn, list) or len(turn) != 2 or turn[0] not in TURN_ROLES or not isinstance(turn[1], str):
        roles = ", ".join(TURN_ROLES)
        raise SteeringError(f"A turn of the record's 'history' is not [role, text] with one of {roles}.")
    return turn[0], turn[1]


def _member(data: object, key: str, kind: Any) -> Any:
    """Return `data[key]`; raise SteeringError if it is not of that type, one of `KINDS`.

    For `float` a whole number does too, unless it is too large for one.
    """
    value: Any = data.get(key) if isinstance(data, dict) else None
    if kind is float and type(value) in (int, float) and abs(value) < 1e300:
        return float(value)
    if kind is float or type(value) is not kind:
        raise SteeringError(f"The record's {key[:40]!r} is missing or not {KINDS[kind]}.")
    return value


def _literal(text: str) -> str:
    """Quote a text as a Python literal on one line, in double quotes where that takes no escape."""
    literal = repr(text)
    return literal if '"' in literal else f'"{literal[1:-1]}"'


def _argument(value: str) -> str:
    """Quote an option's value for the shell; one that begins like an option is tied to its own by `=`."""
    return ("=" if value.startswith("-") else " ") + shlex.quote(value)


def _summary(column: RecordedColumn) -> str:
    """Summarise an answer by its length, perplexity and, if it is broken, why: `12 tokens, perplexity 9.9`."""
    parts = [f"{column.tokens} tokens{'' if column.finished else ' when it was stopped'}"]
    if fluency := column.fluency:
        parts.append(f"perplexity {fluency.perplexity:.1f}")
        parts += [f"broken down: {_inline(fluency.reason)}"] if fluency.broken else []
    return ", ".join(parts)


def _inline(text: str) -> str:
    """Escape a text for a line of Markdown, so that its marks are taken literally."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&$])", r"\\\1", " ".join(text.split()))


def _fenced(text: str, language: str = "") -> str:
    """Put a text into a fenced block that nothing in it can close."""
    fence = "`" * (1 + max([2, *map(len, re.findall("`+", text))]))
    return f"{fence}{language}\n{text}\n{fence}"
