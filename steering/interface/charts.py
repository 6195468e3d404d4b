"""The plots of the page. Transparent and mid-toned, so that they sit well in light and dark."""

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from steering.training import Progress

TEXT, GRID = "#8a8274", "rgba(138, 130, 116, 0.25)"
TOWARDS, AWAY, STEPS = "#2b877f", "#c2673d", "#8a8274"


def training_chart(history: Sequence[Progress] = ()) -> go.Figure:
    """Loss of each step, and the held-out preference margin at +1 and -1. Axes fixed, so that nothing jumps."""
    figure = make_subplots(
        rows=1,
        cols=2,
        horizontal_spacing=0.12,
        subplot_titles=("Loss of each step (lower is better)", "Held-out preference margin, in nats"),
    )
    steps = [p for p in history if p.loss is not None]
    measured = [p for p in history if p.held_out]
    losses = [p.loss for p in steps]
    figure.add_scatter(
        x=[p.step for p in steps],
        y=losses,
        mode="markers",
        marker={"size": 5, "color": GRID},
        name="one step",
        row=1,
        col=1,
    )
    figure.add_scatter(
        x=[p.step for p in steps], y=_smoothed(losses), line={"color": STEPS, "width": 2}, name="smoothed", row=1, col=1
    )
    for sign, colour, words in ((1, TOWARDS, "at +1: should rise"), (-1, AWAY, "at -1: should fall")):
        points = [(p.step, r.preference_margin) for p in measured for r in p.held_out if r.multiplier == sign]
        figure.add_scatter(
            x=[0, *(x for x, _ in points)],
            y=[0.0, *(y for _, y in points)],
            mode="lines+markers",
            line={"color": colour, "width": 2},
            name=words,
            row=1,
            col=2,
        )
    total = history[-1].total_steps if history else 1
    figure.update_xaxes(range=[0, max(1, total)], title_text="step", gridcolor=GRID, zeroline=False)
    figure.update_yaxes(gridcolor=GRID, zerolinecolor=GRID)
    figure.update_yaxes(rangemode="tozero", row=1, col=1)
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": TEXT, "family": "IBM Plex Sans, sans-serif", "size": 12},
        margin={"l": 50, "r": 20, "t": 40, "b": 70},
        height=300,
        legend={"orientation": "h", "y": -0.3},
        showlegend=True,
    )
    figure.update_annotations(font_size=13)
    return figure


def _smoothed(values: Sequence[float], weight: float = 0.85) -> list[float]:
    """Exponential moving average without the start's bias."""
    smooth, total, mass = [], 0.0, 0.0
    for value in values:
        total, mass = weight * total + value, weight * mass + 1
        smooth.append(total / mass)
    return smooth
