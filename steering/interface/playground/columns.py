"""Which columns a run shows: the comparison or the sweep, then the pins."""

from dataclasses import dataclass

from steering.errors import SteeringError
from steering.interface.playground.controls import SWEEP, SWEEP_MULTIPLIERS
from steering.interface.playground.sliders import MAX_COLUMNS, Multipliers, SliderPanel, title_of


@dataclass(frozen=True)
class ColumnSpec:
    """A column to show.

    Attributes:
        id: its place in the comparison, which stays when its setting changes: `baseline`, `setting`, `opposite`,
            `pin:<place>`, `sweep:<multiplier>`.
        kind: its colour, one of `baseline`, `setting`, `opposite`, `pin`.
        title: above the answer; `multipliers`: those other than 0, by slug.
    """

    id: str
    kind: str
    title: str
    multipliers: Multipliers


def columns_of(panel: SliderPanel, mode: str, names: dict[str, str], most: int = MAX_COLUMNS) -> list[ColumnSpec]:
    """List the columns to show; equal settings are shown once, as the pin if one is.

    Raises SteeringError if there is no vector to sweep, or every column is hidden.
    """
    multipliers = panel.multipliers
    if mode == SWEEP:
        swept = panel.active or next(iter(multipliers), "") or next(iter(names), "")
        if not swept:
            raise SteeringError("There is no vector to sweep yet; make one in the Train tab.")
        settings = [
            ("baseline" if not m else "setting" if m > 0 else "opposite", {swept: m}) for m in SWEEP_MULTIPLIERS
        ]
        columns = [
            ColumnSpec(f"sweep:{m[swept]:g}", kind, title_of(m, names), without_zeros(m)) for kind, m in settings
        ]
    else:
        columns = [ColumnSpec("baseline", "baseline", "baseline", {})]
        if multipliers:
            opposite = {slug: -m for slug, m in multipliers.items()}
            columns.append(ColumnSpec("setting", "setting", title_of(multipliers, names), multipliers))
            columns.append(ColumnSpec("opposite", "opposite", title_of(opposite, names), opposite))
        columns = [column for column in columns if column.id not in panel.hidden]
    for place, pin in enumerate(panel.pins):
        pinned = ColumnSpec(f"pin:{place}", "pin", pin.name or title_of(pin.setting, names), without_zeros(pin.setting))
        same = [i for i, column in enumerate(columns) if column.multipliers == pinned.multipliers]
        if same:
            columns[same[0]] = pinned
        else:
            columns.append(pinned)
    if not columns:
        raise SteeringError("Every column is hidden; show one again, or move a slider.")
    return columns[:most]


def without_zeros(multipliers: Multipliers) -> Multipliers:
    """Leave out the vectors that are off."""
    return {slug: m for slug, m in multipliers.items() if m}
