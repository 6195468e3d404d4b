"""Settings of training methods: one pydantic model a method, each field with its label, help, unit and range.

The command line's options, the page's controls, the API's schema and the validation are all made from these fields, so
a method that adds a setting adds one line. An unsound value is refused in one plain sentence (see `checked`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from steering.errors import SteeringError

SWEEP = "sweep"
"""As a layer: find the best one on the held-out pairs first."""

Layers = int | tuple[int, ...] | Literal["sweep"] | None
"""Type of a field that says where to steer: one layer, several, `SWEEP`, or None for the middle one."""


def setting(
    default: Any,
    *,
    label: str,
    help: str,
    unit: str = "",
    group: str = "",
    choice_labels: Mapping[str, str] | None = None,
    advanced: bool = True,
    **limits: Any,
) -> Any:
    """Declare one field of a `MethodConfig`.

    Args:
        label: a few words for the page.
        help: one sentence for people, without a full stop; the command line and the page show it.
        unit: of the number, such as `pairs` or `nats`.
        group: heading under which the page shows it; empty leaves it off the page.
        choice_labels: for a `Literal` field, what the page calls each value.
        limits: pydantic's `ge`, `gt`, `le`, `lt`.
    """
    extra = {"unit": unit, "group": group, "choice_labels": dict(choice_labels or {})}
    return Field(default, title=label, description=help, json_schema_extra=extra, **limits)


class MethodConfig(BaseModel):
    """Base of every method's settings: frozen, and closed to keys it does not declare.

    Every method has a layer and a seed; the rest is the method's own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layer: Layers = setting(None, label="Layer", help="decoder block whose output is steered, counted from 0")
    seed: int = setting(0, label="Seed", help="decides all that is left to chance", group="The run", ge=0, le=2**63 - 1)

    @classmethod
    def checked(cls, method: str, settings: Mapping[str, Any]) -> Self:
        """Make a config of `settings`; raise SteeringError, one sentence, for an unknown or unsound one.

        None stands for "not given": the field keeps its default.
        """
        specs = {spec.name: spec for spec in cls.specs()}
        if unknown := sorted(set(settings) - set(specs)):
            raise SteeringError(f"{method} has no setting {unknown[0]!r}; it has: {', '.join(sorted(specs))}.")
        given = {name: value for name, value in settings.items() if value is not None}
        try:
            return cls(**given)
        except ValidationError as error:
            name = str(error.errors()[0]["loc"][0]) if error.errors()[0]["loc"] else ""
            if name not in specs:  # a rule over several fields
                raise SteeringError(str(error.errors()[0]["msg"]).removeprefix("Value error, ")) from error
            raise SteeringError(specs[name].complaint(given.get(name))) from error

    @classmethod
    def specs(cls) -> list["SettingSpec"]:
        """What each field is, in the order in which they are declared."""
        return [SettingSpec.of(name, field) for name, field in cls.model_fields.items()]


@dataclass(frozen=True)
class SettingSpec:
    """One setting as the command line, the page and the API need it.

    Attributes:
        kind: `layers`, `integer`, `number`, `flag` or `choice`.
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
        extra: dict[str, Any] = field.json_schema_extra or {}
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

    def complaint(self, value: Any) -> str:
        """One sentence for an unsound value: what it is, and what to give instead."""
        shown = repr(value)[:60] if isinstance(value, str) else str(value)[:60]
        if self.kind == "layers":
            return f"{self.name} is {shown}; give a whole number, several of them, or {SWEEP!r}."
        if self.kind == "choice":
            return f"{self.name} is {shown}; choose one of: {', '.join(value for value, _ in self.choices)}."
        if self.kind == "flag":
            return f"{self.name} is {shown}; give true or false."
        if self.kind == "integer":
            return f"{self.name} is {shown}; give a whole number from {self.low} to {self.high}."
        low = "above 0" if self.above else f"from {self.low:g}"
        return f"{self.name} is {shown}; give a number {low} and at most {self.high:,.0f}."


def _kind_of(annotation: Any) -> tuple[str, bool, tuple[str, ...]]:
    """(kind, whether None is allowed, values of a choice) of a field's type."""
    if annotation == Layers:
        return "layers", True, ()
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    optional = NoneType in parts
    (inner,) = (part for part in parts if part is not NoneType)
    if get_origin(inner) is Literal:
        return "choice", optional, get_args(inner)
    return {int: "integer", float: "number", bool: "flag"}[inner], optional, ()
