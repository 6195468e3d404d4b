"""Small pieces of HTML that several tabs show. Whatever comes from a file or a person is escaped here."""

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from steering.pairs.dataset import PairsReport
from steering.vectors.vector import SteeringVector

MOST_DROPPED_SHOWN = 30
"""Rows left out that are listed with their reason; a file with more troubles than that has one in common."""


def problem(text: str) -> str:
    """Render what went wrong; screen readers announce it at once."""
    return f'<p class="problem" role="alert">{escape(text)}</p>'


def note(text: str) -> str:
    """Render a line of quiet text."""
    return f'<p class="note">{escape(text)}</p>'


def signed(multiplier: float) -> str:
    """Write a multiplier: `+1.5`, `-2`, and `0` without a sign."""
    return f"{multiplier:+g}" if multiplier else "0"


def duration(seconds: float) -> str:
    """Write a time: `40 s`, `3 min`, `2 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def roughly(seconds: float) -> str:
    """Write a predicted time no more exactly than it is known: to 10 s, then to minutes."""
    return duration(max(10, round(seconds, -1)) if seconds < 85 else max(90, seconds))


def where(vector: SteeringVector) -> str:
    """Describe a vector by its size and place: `a vector of norm 4.2 at layer 14`."""
    layers = f"layer{'s' * (len(vector.layers) > 1)} {', '.join(map(str, vector.layers))}"
    return f"a vector of norm {vector.norm:.1f} at {layers}"


def report(result: PairsReport) -> str:
    """Render what was read, and which rows were dropped and why."""
    summary = note(result.summary())
    if not result.dropped:
        return summary
    rows = [f"<li>{escape(result.unit)} {d.line}: {escape(d.reason)}</li>" for d in result.dropped[:MOST_DROPPED_SHOWN]]
    if len(result.dropped) > MOST_DROPPED_SHOWN:
        rows.append(f"<li>and {len(result.dropped) - MOST_DROPPED_SHOWN:,} more</li>")
    listed = f"<ul>{''.join(rows)}</ul>"
    return f"{summary}<details class='dropped'><summary>Rows left out, and why</summary>{listed}</details>"


def results_table(results: Sequence[dict[str, Any]], pairs: int | None = None) -> str:
    """Render held-out results by multiplier; empty where nothing was measured.

    Args:
        results: as vector files store them, possibly from a stranger's file: {multiplier, preference_accuracy,
            preference_margin}; unreadable ones are left out.
        pairs: how many pairs were measured.
    """
    rows, measured = [], pairs
    for result in results:
        try:
            multiplier, accuracy = float(result["multiplier"]), float(result["preference_accuracy"])
            margin = float(result["preference_margin"])
        except (KeyError, TypeError, ValueError):
            continue  # a file of somebody else's making
        share = f"{100 * accuracy:.0f} %"
        measured = _whole(result.get("pairs")) or measured
        rows.append(
            f"<tr><th scope='row'>{signed(multiplier)}</th>"
            f"<td><span class='bar' style='--share:{accuracy:.3f}'></span>{share}"
            f"{_interval(result.get('accuracy_interval'), lambda share: f'{100 * share:.0f}')}</td>"
            f"<td class='{'towards' if margin > 0 else 'away' if margin < 0 else ''}'>{margin:+.1f}"
            f"{_interval(result.get('margin_interval'), lambda nats: f'{nats:+.1f}')}</td></tr>"
        )
    if not rows:
        return ""
    count = f" ({measured} pairs it was not trained on; in brackets the 95 % interval)" if measured else ""
    return (
        f"<table class='results'><caption>Measured on held-out pairs{count}</caption><thead><tr><th>multiplier</th>"
        "<th title='share of pairs where the model finds the chosen answer more probable'>prefers the behavior</th>"
        "<th title='how much steering moves log p(chosen) - log p(rejected)'>margin, nats</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _interval(ends: Any, write: Callable[[float], str]) -> str:
    """Render the ends of an interval; nothing where a file, of an earlier version or a stranger's, has none."""
    try:
        low, high = map(float, ends)
    except (TypeError, ValueError):
        return ""
    return f" <small class='interval'>[{write(low)}, {write(high)}]</small>"


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def progress_bar(share: float, text: str) -> str:
    """Render a bar filled to `share`, from 0 to 1, with a line of text below it."""
    percent = 100 * min(1.0, max(0.0, share))
    return (
        f'<div class="progress" role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{percent:.0f}">'
        f'<div style="width:{percent:.1f}%"></div></div><p class="note">{escape(text)}</p>'
    )
