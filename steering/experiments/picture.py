"""An experiment's result as a picture, and as one HTML file that needs nothing else."""

from html import escape
from pathlib import Path

import plotly.graph_objects as go

from steering.errors import SteeringError
from steering.evaluation.curve_chart import COLOURS, GRID, TEXT
from steering.evaluation.report import STYLE
from steering.experiments.registry import Experiment
from steering.experiments.result import Heat, Lines, Result, words

SCALE = ((0.0, "#f2ead9"), (0.5, "#7fb3a6"), (1.0, "#1d5f59"))
"""Colours of a heat map from low to high; light to dark in both themes, with the number written in each cell."""


def picture(result: Result) -> go.Figure | None:
    """Draw the result; None if it is a table alone."""
    if isinstance(result.picture, Lines):
        figure = _lines(result.picture)
    elif isinstance(result.picture, Heat):
        figure = _heat(result.picture)
    else:
        return None
    return figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": TEXT, "family": "IBM Plex Sans, sans-serif", "size": 12},
        margin={"l": 62, "r": 18, "t": 40, "b": 46},
        height=340,
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
    )


def _lines(lines: Lines) -> go.Figure:
    figure = go.Figure()
    for colour, (name, points) in zip(COLOURS * 9, lines.lines.items(), strict=False):
        known = [(x, value) for x, value in points if value.count]
        figure.add_scatter(
            x=[x for x, _ in known],
            y=[value.mean for _, value in known],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [value.high - value.mean for _, value in known],
                "arrayminus": [value.mean - value.low for _, value in known],
                "thickness": 1,
            },
            mode="lines+markers",
            name=name,
            line={"color": colour, "width": 2},
            hovertemplate="%{x:+g}: %{y:.2f}<extra>" + escape(name) + "</extra>",
        )
    figure.update_xaxes(gridcolor=GRID, zerolinecolor=GRID, title=lines.x_title)
    return figure.update_yaxes(gridcolor=GRID, zerolinecolor=GRID, title=lines.y_title)


def _heat(heat: Heat) -> go.Figure:
    text = [[NUMBER.format(value) if value is not None else "" for value in row] for row in heat.values]
    figure = go.Figure(
        go.Heatmap(
            x=list(heat.x),
            y=list(heat.y),
            z=[list(row) for row in heat.values],
            text=text,
            texttemplate="%{text}",
            colorscale=[list(stop) for stop in SCALE],
            showscale=False,
            hovertemplate=f"{heat.x_title} %{{x}}, {heat.y_title} %{{y}}: %{{z:.2f}}<extra></extra>",
        )
    )
    figure.update_xaxes(title=heat.x_title, type="category")
    figure.update_yaxes(title=heat.y_title, type="category")
    return figure.update_layout(title={"text": heat.title, "font": {"size": 12}, "x": 0.02})


NUMBER = "{:.2f}"


def table_html(result: Result) -> str:
    """Return the table; texts are escaped."""
    heads = "".join(f"<th scope='col'>{escape(column)}</th>" for column in result.columns)
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(words(cell))}</td>" for cell in row) + "</tr>" for row in result.rows
    )
    return f"<table class='results'><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"


def write_page(experiment: Experiment, result: Result, model: str, folder: Path) -> Path:
    """Write `report.html` into the folder; return its path."""
    figure = picture(result)
    chart = figure.to_html(full_html=False, include_plotlyjs=True) if figure else ""
    notes = "".join(f"<li>{escape(note)}</li>" for note in result.notes)
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(experiment.title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f"<h1>{escape(experiment.title)}</h1><p>{escape(experiment.question)} · {escape(model)}</p>"
        f"<p><b>{escape(result.verdict)}</b></p><p>In the paper: {escape(experiment.paper)}</p>"
        f"{chart}{table_html(result)}<ul>{notes}</ul></html>"
    )
    path = folder / "report.html"
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise SteeringError(f"{folder} cannot be written to ({error.strerror}); free some space.") from error
    return path
