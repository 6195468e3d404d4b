"""The plots of the page: transparent and mid-toned for light and dark, with fixed axes so that nothing jumps."""

from collections.abc import Sequence

import plotly.graph_objects as go

from steering.training import Progress

TEXT, GRID = "#8a8274", "rgba(138, 130, 116, 0.25)"
TOWARDS, AWAY, STEPS = "#2b877f", "#c2673d", "#8a8274"


def loss_chart(history: Sequence[Progress] = ()) -> go.Figure:
    """Loss of each step, and its moving average."""
    steps = [p for p in history if p.loss is not None]
    x, losses = [p.step for p in steps], [p.loss for p in steps]
    figure = go.Figure()
    figure.add_scatter(x=x, y=losses, mode="markers", marker={"size": 5, "color": GRID}, name="one step")
    figure.add_scatter(x=x, y=_smoothed(losses), mode="lines", line={"color": STEPS, "width": 2}, name="smoothed")
    return _styled(figure, "Loss of each step (lower is better)", history).update_yaxes(rangemode="tozero")


def margin_chart(history: Sequence[Progress] = ()) -> go.Figure:
    """Preference margin on held-out pairs at +1 and -1."""
    measured = [p for p in history if p.held_out]
    figure = go.Figure()
    for sign, colour, words in ((1, TOWARDS, "at +1: should rise"), (-1, AWAY, "at -1: should fall")):
        points = [(p.step, r.preference_margin) for p in measured for r in p.held_out if r.multiplier == sign]
        x, y = [0, *(x for x, _ in points)], [0.0, *(y for _, y in points)]
        figure.add_scatter(x=x, y=y, mode="lines+markers", line={"color": colour, "width": 2}, name=words)
    return _styled(figure, "Held-out preference margin, in nats", history)


def _styled(figure: go.Figure, title: str, history: Sequence[Progress]) -> go.Figure:
    total = history[-1].total_steps if history else 1
    figure.update_xaxes(range=[0, max(1, total)], title_text="step", gridcolor=GRID, zeroline=False)
    figure.update_yaxes(gridcolor=GRID, zerolinecolor=GRID)
    return figure.update_layout(
        template="none",
        title={"text": title, "font": {"size": 14}, "x": 0.02, "y": 0.97},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": TEXT, "family": "IBM Plex Sans, sans-serif", "size": 12},
        margin={"l": 45, "r": 15, "t": 36, "b": 75},
        height=290,
        legend={"orientation": "h", "y": -0.28},
        showlegend=True,
    )


def _smoothed(values: Sequence[float], weight: float = 0.85) -> list[float]:
    """Exponential moving average without the start's bias."""
    smooth, total, mass = [], 0.0, 0.0
    for value in values:
        total, mass = weight * total + value, weight * mass + 1
        smooth.append(total / mass)
    return smooth
