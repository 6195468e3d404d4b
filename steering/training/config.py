"""Settings of training methods: one pydantic model a method, each field with its label, help, unit and range.

The command line's options, the page's controls, the API's schema and the validation are all made from these fields, so
a method that adds a setting adds one line. An unsound value is refused in one plain sentence (see `checked`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Protocol, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo

from steering.errors import SteeringError

SWEEP = "sweep"
"""As a layer: find the best one on the held-out pairs first."""
LATE: Literal["late"] = "late"
"""As a layer: the one at `LATE_DEPTH`."""
LATE_DEPTH = 0.8
"""Share of the depth at which the default effort steers. At equal fluency of the text (perplexity under the untouched
model), the written answers show the behavior at least as much as from the middle layer, of power-seeking far more, and
fewer blocks have to be run: see docs/default-effort.md."""

Layers = int | tuple[int, ...] | Literal["sweep", "late"] | None
"""Type of a field that says where to steer: one layer, several, `SWEEP`, `LATE`, or None for the middle one."""


MAX_SEED = 2**63 - 1
"""What `torch.Generator.manual_seed` takes at most (a signed 64-bit number)."""

WHERE_GROUP = "Where it steers"
"""Heading on the page for settings that say at which layers and positions the vector acts."""
RUN_GROUP = "The run as a whole"
"""Heading on the page for what every method has, such as the seed."""


def setting(
    default: Any,
    *,
    label: str,
    help: str,
    unit: str = "",
    group: str = "",
    choice_labels: Mapping[str, str] | None = None,
    **limits: Any,
) -> Any:
    """Declare one field of a `MethodConfig`.

    Args:
        label: a few words for the page.
        help: one sentence for people, without a full stop; the command line and the page show it.
        unit: of the number, such as `pairs` or `nats`.
        group: heading under which the page shows it; empty leaves it off the page.
        choice_labels: for a `Literal` field, what the page calls each value.
        limits: pydantic's `ge` or `gt`, and `le`. Every number needs a lower and an upper one.

    Example:
        epochs: int = setting(4, label="Epochs", help="passes over the pairs", ge=1, le=1000)
    """
    extra: Any = {"unit": unit, "group": group, "choice_labels": dict(choice_labels or {})}
    return Field(default, title=label, description=help, json_schema_extra=extra, **limits)


class MethodConfig(BaseModel):
    """Base of every method's settings: frozen, strict about types, and closed to keys it does not declare.

    Every method has a layer and a seed; the rest is the method's own. A rule over several fields is a
    `model_validator(mode="after")` that raises ValueError with one plain sentence.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    layer: Layers = setting(
        None, label="Layer", help="decoder block whose output is steered, from 0; by default the middle one"
    )
    seed: int = setting(0, label="Seed", help="decides all that is left to chance", group=RUN_GROUP, ge=0, le=MAX_SEED)

    @field_validator("layer", mode="before")
    @classmethod
    def _plain_layers(cls, value: Any) -> Any:
        """Take a list of layers, as JSON has it, for a tuple."""
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            return tuple(_plain_number(part) for part in value)
        return value

    @classmethod
    def checked(cls, method: str, settings: Mapping[str, Any]) -> Self:
        """Make a config of `settings`; raise SteeringError, one sentence, for an unknown or unsound one.

        A field that is left out keeps its default. None is a value: it is refused where `SettingSpec.optional` is
        False. `method` is the name that the sentence about an unknown setting gives.
        """
        specs = {spec.name: spec for spec in cls.specs()}
        if unknown := sorted(set(settings) - set(specs)):
            raise SteeringError(f"{method} has no setting {unknown[0]!r}; it has: {', '.join(sorted(specs))}.")
        plain = {name: _plain_number(value) for name, value in settings.items()}
        try:
            return cls(**plain)
        except ValidationError as error:
            problem = error.errors()[0]
            if not problem["loc"]:  # a rule over several fields
                raise SteeringError(problem["msg"].removeprefix("Value error, ")) from error
            name = str(problem["loc"][0])
            raise SteeringError(specs[name].complaint(plain.get(name))) from error

    @classmethod
    def specs(cls) -> list["SettingSpec"]:
        """Describe each field: the layer first, then the method's own in the order declared, the seed last."""
        specs = [SettingSpec.of(name, field) for name, field in cls.model_fields.items()]
        return sorted(specs, key=lambda spec: {"layer": 0, "seed": 2}.get(spec.name, 1))

    def as_json(self) -> dict[str, Any]:
        """All settings as plain JSON values (several layers as a list): what vector files and checkpoint keys hold."""
        return self.model_dump(mode="json")


class HasLayers(Protocol):
    """What `steered_layers` asks of a `LanguageModel`, which is not imported here because it loads torch."""

    @property
    def num_layers(self) -> int:
        """Number of decoder blocks."""
        ...

    def check_layer(self, layer: int) -> int:
        """Return the layer; raise SteeringError if the model does not have it."""
        ...


def steered_layers(model: HasLayers, asked: int | Sequence[int] | Literal["sweep", "late"] | None) -> list[int]:
    """List the layers that a `layer` setting names, in order, each once.

    None and `SWEEP` (for a run that cannot look for the best layer) are the middle one.

    Raises SteeringError for one that the model does not have.
    """
    if asked == LATE:
        return [min(round(LATE_DEPTH * model.num_layers), model.num_layers - 1)]
    if asked is None or isinstance(asked, str):
        return [model.num_layers // 2]
    several = [asked] if isinstance(asked, int) else asked
    if not several:
        raise SteeringError("No layer is named; give at least one.")
    return sorted({model.check_layer(k) for k in several})


def one_or_all(values: Sequence[Any]) -> Any:
    """Return the only value of one layer, or all values of several: how files and answers show them.

    >>> one_or_all((14,)), one_or_all((10, 14))
    (14, (10, 14))
    """
    return values[0] if len(values) == 1 else values


@dataclass(frozen=True)
class SettingSpec:
    """One setting as the command line, the page and the API need it.

    Attributes:
        name: of the field, as in Python and in vector files; the command line writes `_` as `-`.
        label, help, unit, group: as `setting` takes them.
        kind: `layers`, `integer`, `number`, `flag` or `choice`.
        default: what the field is when it is left out.
        low, high: range of a number, None where it is open; `above`: whether `low` itself is excluded.
        choices: values of a choice, and what the page calls them.
        optional: whether None is a value (something is filled in by what fits model and data).
    """

    name: str
    label: str
    help: str
    unit: str
    group: str
    kind: str
    default: Any
    optional: bool
    low: float | None = None
    high: float | None = None
    above: bool = False
    choices: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, name: str, field: FieldInfo) -> Self:
        """Read a pydantic field that was declared by `setting`."""
        extra: Any = field.json_schema_extra or {}
        kind, optional, values = _kind_of(field.annotation)
        limits = {
            key: getattr(rule, key) for rule in field.metadata for key in ("ge", "gt", "le") if hasattr(rule, key)
        }
        labels = extra.get("choice_labels", {})
        return cls(
            name=name,
            label=field.title or name,
            help=field.description or "",
            unit=extra.get("unit", ""),
            group=extra.get("group", ""),
            kind=kind,
            default=field.default,
            optional=optional,
            low=limits.get("ge", limits.get("gt")),
            high=limits.get("le"),
            above="gt" in limits,
            choices=tuple((value, labels.get(value, value)) for value in values),
        )

    @property
    def range(self) -> str:
        """What may be given, in words: `a whole number from 1 to 1000`, or `one of: drawn, both, plus`."""
        if self.kind == "layers":
            return f"a whole number, several of them, {SWEEP!r} or {LATE!r}"
        if self.kind == "choice":
            return f"one of: {', '.join(value for value, _ in self.choices)}"
        if self.kind == "flag":
            return "true or false"
        whole = self.kind == "integer"
        low = "" if self.low is None else f" above {self.low:g}" if self.above else f" from {_digits(self.low, whole)}"
        if self.high is None:
            return f"a {'whole ' * whole}number{low}"
        return f"a {'whole ' * whole}number{low} {'to' if whole else 'and at most'} {_digits(self.high, whole)}"

    def complaint(self, value: Any) -> str:
        """One sentence for an unsound value: what it is, and what to give instead."""
        shown = repr(value)[:60] if isinstance(value, str) else str(value)[:60]
        verb = "choose" if self.kind == "choice" else "give"
        return f"{self.name} is {shown}; {verb} {self.range}."


def _digits(number: float, whole: bool) -> str:
    return str(number) if whole else f"{number:,.0f}" if number == int(number) else f"{number:g}"


def _plain_number(value: Any) -> Any:
    """Turn a number of another library, such as numpy's, into Python's; leave everything else as it is."""
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def _kind_of(annotation: Any) -> tuple[str, bool, tuple[str, ...]]:
    """(kind, whether None is allowed, values of a choice) of a field's type; TypeError for a type we have no kind for.

    >>> _kind_of(int | None)
    ('integer', True, ())
    """
    if annotation == Layers:
        return "layers", True, ()
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    inner = [part for part in parts if part is not NoneType]
    optional = len(inner) < len(parts)
    if len(inner) == 1 and get_origin(inner[0]) is Literal:
        return "choice", optional, get_args(inner[0])
    kinds = {int: "integer", float: "number", bool: "flag"}
    if len(inner) != 1 or inner[0] not in kinds:
        raise TypeError(f"A setting of type {annotation} has no control; use int, float, bool, Literal or Layers.")
    return kinds[inner[0]], optional, ()
