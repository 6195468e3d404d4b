"""The plots of the page: transparent and mid-toned for light and dark, with fixed axes so that nothing jumps."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

TEXT, GRID, FAINT = "#8a8274", "rgba(138, 130, 116, 0.25)", "rgba(138, 130, 116, 0.5)"
TOWARDS, AWAY, STEPS = "#2b877f", "#c2673d", "#8a8274"
"""Colours of +1, of -1 and of single steps: between the light and the dark ones of assets/app.css, to suit both."""
SMOOTHING = 0.85
"""Weight of the past in the moving average: about the last 7 steps count, a quarter of a quick run."""

Point = dict[str, Any]
"""One step of a run as vector files store it: `step`, `loss`; where measured also `held_out_loss` and `held_out`."""
Curve = Sequence[Point]


def loss_chart(curve: Curve = (), total: int | None = None) -> go.Figure:
    """Draw the loss of each step, its moving average, and the loss on the held-out pairs.

    Args:
        total: steps of the whole run, the end of the axis; by default the last step of the curve.
    """
    x, losses = [p["step"] for p in curve], [p["loss"] for p in curve]
    measured = [(p["step"], p["held_out_loss"]) for p in curve if "held_out_loss" in p]
    figure = go.Figure()
    figure.add_scatter(x=x, y=losses, mode="markers", marker={"size": 5, "color": FAINT}, name="one step")
    figure.add_scatter(x=x, y=_smoothed(losses), mode="lines", line={"color": STEPS, "width": 2}, name="smoothed")
    figure.add_scatter(
        x=[x for x, _ in measured],
        y=[y for _, y in measured],
        mode="lines+markers",
        line={"color": TOWARDS, "width": 2},
        name="held-out pairs",
    )
    return _styled(figure, "Loss (lower is better)", curve, total).update_yaxes(rangemode="tozero")


def margin_chart(curve: Curve = (), total: int | None = None) -> go.Figure:
    """Draw the preference margin on held-out pairs at +1 and -1; arguments as in `loss_chart`."""
    measured = [(p["step"], r) for p in curve for r in p.get("held_out", ())]
    figure = go.Figure()
    for sign, colour, words in ((1, TOWARDS, "at +1: should rise"), (-1, AWAY, "at -1: should fall")):
        points = [(step, r["preference_margin"]) for step, r in measured if r["multiplier"] == sign]
        x, y = [x for x, _ in points], [y for _, y in points]
        figure.add_scatter(x=x, y=y, mode="lines+markers", line={"color": colour, "width": 2}, name=words)
    return _styled(figure, "Held-out preference margin, in nats", curve, total)


def _styled(figure: go.Figure, title: str, curve: Curve, total: int | None) -> go.Figure:
    total = total or (curve[-1]["step"] if curve else 1)
    figure.update_xaxes(range=[0, max(1, total)], title={"text": "step", "standoff": 4}, gridcolor=GRID, zeroline=False)
    figure.update_yaxes(gridcolor=GRID, zerolinecolor=GRID)
    figure.update_traces(cliponaxis=False)  # else half of the first and of the last marker is cut off
    return figure.update_layout(
        template="none",
        title={"text": title, "font": {"size": 14}, "x": 0.02, "y": 0.97},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": TEXT, "family": "IBM Plex Sans, sans-serif", "size": 12},
        margin={"l": 45, "r": 15, "t": 36, "b": 95},
        height=310,
        legend={"orientation": "h", "y": -0.26, "yanchor": "top"},
        showlegend=True,
    )


def _smoothed(values: Sequence[float], weight: float = SMOOTHING) -> list[float]:
    """Return the exponential moving average, divided by the weights given so far so that it starts unbiased."""
    smooth, total, mass = [], 0.0, 0.0
    for value in values:
        total, mass = weight * total + value, weight * mass + 1
        smooth.append(total / mass)
    return smooth
