"""The response curve as a picture: behavior, soundness of the text and KL divergence over one shared axis."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

TEXT, GRID = "#8a8274", "rgba(138, 130, 116, 0.25)"
COLOURS = ("#2b877f", "#c2673d", "#5b6bb5", "#a04f86")
"""Of vectors, in turn; mid-toned, so that they suit a light and a dark page."""
RANGE_FILL = "rgba(43, 135, 127, 0.10)"
ROWS = (
    ("behavior", "Behavior (judge)"),
    ("fluency", "Fluency"),
    ("relevance", "Relevance"),
    ("kl", "KL, nats a token"),
)
"""Score -> title of its row. Each has a row of its own, so that no two lines share a scale that is not theirs."""

UTILITY = ("utility", "Utility, questions right")
"""The row that is there once the questions were asked."""

Row = Mapping[str, Any]
"""A point as `Point.as_json` gives it."""


def curve_chart(
    curves: Mapping[str, Sequence[Row]],
    baselines: Mapping[str, float] | None = None,
    useful_range: Sequence[float] | None = None,
    recommended: float | None = None,
    x_title: str = "multiplier",
) -> go.Figure:
    """Draw the curves of one or more vectors.

    Args:
        curves: vector -> its points, the untouched model's at 0 among them.
        baselines: words -> behavior score, drawn as dotted lines: what prompting reaches, say.
        useful_range, recommended: of the only vector; shaded, and marked.
        x_title: what its numbers are, where they are no multipliers.
    """
    asked = any(row.get("utility") is not None for rows in curves.values() for row in rows)
    scores = [*ROWS, UTILITY] if asked else [*ROWS]
    figure = make_subplots(
        rows=len(scores), cols=1, shared_xaxes=True, vertical_spacing=0.055, row_heights=[2, *[1] * (len(scores) - 1)]
    )
    ends = [float(row["multiplier"]) for rows in curves.values() for row in rows] or [-1.0, 1.0]
    low, high = min(ends), max(ends)
    for number, (score, title) in enumerate(scores, start=1):
        for colour, (name, rows) in zip(COLOURS * 9, curves.items(), strict=False):
            _add_line(figure, number, score, name, rows, colour)
        figure.add_annotation(
            text=f"<b>{title}</b>", xref="paper", yref=f"y{number if number > 1 else ''} domain", x=0, y=1.0,
            yanchor="bottom", xanchor="left", showarrow=False, font={"size": 12, "color": TEXT},
        )  # fmt: skip
    for place, (words, value) in enumerate((baselines or {}).items()):
        figure.add_hline(
            y=value, row=1, col=1, line={"color": TEXT, "width": 1, "dash": "dot"}, annotation_text=words,
            annotation_position="bottom left" if place % 2 else "top left",
            annotation_font={"size": 10, "color": TEXT},
        )  # fmt: skip
    if useful_range and useful_range[0] < useful_range[1]:
        for number in range(1, len(scores) + 1):
            figure.add_vrect(
                x0=useful_range[0],
                x1=useful_range[1],
                fillcolor=RANGE_FILL,
                line_width=0,
                layer="below",
                row=number,
                col=1,
            )
    if recommended:
        figure.add_vline(x=recommended, line={"color": COLOURS[0], "width": 1, "dash": "dash"})
    figure.update_yaxes(gridcolor=GRID, zerolinecolor=GRID, rangemode="tozero", nticks=4)
    for number in (1, 2, 3):
        figure.update_yaxes(range=[-0.04, 1.06], row=number, col=1)
    pad = 0.04 * max(1.0, high - low)
    figure.update_xaxes(gridcolor=GRID, zerolinecolor=GRID, range=[low - pad, high + pad], dtick=1)
    figure.update_xaxes(title={"text": x_title, "standoff": 4}, row=len(scores), col=1)
    return figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": TEXT, "family": "IBM Plex Sans, sans-serif", "size": 12},
        # With a legend, plotly's tool bar (26 px, shown under the pointer) needs a place above it.
        margin={"l": 42, "r": 18, "t": 52 if len(curves) > 1 else 26, "b": 40},
        height=560 + 90 * (len(scores) - len(ROWS)),
        showlegend=len(curves) > 1,
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.0, "yanchor": "bottom", "font": {"size": 11}},
    )


def _add_line(figure: go.Figure, row: int, score: str, name: str, rows: Sequence[Row], colour: str) -> None:
    """Draw one score with its 95 % interval as a band."""
    if score == "utility":
        rows = [{**r, score: dict.fromkeys(("mean", "low", "high"), r.get(score))} for r in rows]
    known = sorted((r for r in rows if (r[score] or {}).get("mean") is not None), key=lambda r: float(r["multiplier"]))
    if score == "kl" and known:
        known = sorted([*known, *({"multiplier": 0.0, "kl": dict.fromkeys(("mean", "low", "high"), 0.0)},)], key=_place)
    if not known:
        return
    x = [float(r["multiplier"]) for r in known]
    mean, low, high = ([float(r[score][key]) for r in known] for key in ("mean", "low", "high"))
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    figure.add_scatter(
        x=[*x, *reversed(x)], y=[*high, *reversed(low)], fill="toself", mode="none",
        fillcolor=f"rgba({red}, {green}, {blue}, 0.16)", hoverinfo="skip", row=row, col=1, showlegend=False,
    )  # fmt: skip
    figure.add_scatter(
        x=x, y=mean, mode="lines+markers", line={"color": colour, "width": 2}, marker={"size": 6}, name=name, row=row,
        col=1, showlegend=row == 1, legendgroup=name, cliponaxis=False,
        hovertemplate="%{x:+g}: %{y:.2f}<extra>" + name.replace("<", "&lt;") + "</extra>",
    )  # fmt: skip


def _place(row: Row) -> float:
    return float(row["multiplier"])


def curve_of(points: Sequence[Row], name: str) -> list[Row]:
    """Pick a vector's points and the untouched model's out of an evaluation's."""
    return [row for row in points if row["arm"] in (name, "untouched")]


def prompting_lines(points: Sequence[Row]) -> dict[str, float]:
    """Return what the chart marks as lines: the behavior that prompting reaches when it asks for it."""
    words = {"system prompt": "asked in the system prompt", "few-shot": "shown examples"}
    found = {}
    for row in points:
        mean = (row["behavior"] or {}).get("mean")
        if row["arm"] in words and float(row["multiplier"]) > 0 and mean is not None:
            found[words[row["arm"]]] = float(mean)
    return found
