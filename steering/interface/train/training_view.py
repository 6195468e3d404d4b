"""What the Train tab shows of a run while it goes on: a line of figures under a bar, and two charts."""

import time
from typing import Any

import plotly.graph_objects as go

from steering.interface import html
from steering.interface.charts import Point, loss_chart, margin_chart
from steering.interface.training_queue import TrainingStatus
from steering.training.progress import Progress
from steering.vectors.vector import SteeringVector

CHART_SECONDS = 1.5
"""Between two drawings. gradio sends and mounts a plot whole each time: at 10 a second the page only redraws, at one
a second no frame stays blank (measured with gradio 6.31)."""
ENDINGS = {"": "Done", "early": "Ended early", "asked": "Stopped", "time": "Ended in time", "broken": "Broke off"}
"""How a run ended, by `Progress.stopped`."""


class TrainingView:
    """Collects a run's reports; renders them as HTML and charts.

    Attributes:
        due: whether the latest report should be shown: the first one and each measurement at once, otherwise one
            every `CHART_SECONDS`.
        status: how far the run is, for those who wait for it.
    """

    def __init__(self) -> None:
        self.due, self.status = False, TrainingStatus()
        self._latest = Progress("preparing")
        self._curve: list[Point] = []
        self._drawn = float("-inf")
        self._first_step: int | None = None  # of this run, which may continue an earlier one
        self._layers = self._preparation_note = ""

    def add(self, progress: Progress) -> None:
        """Take in a report of the stage `preparing` or `training`."""
        self._latest = progress
        if progress.settings:  # the preparation is done, and what it noted stays on the page
            self._layers = _layers(progress.settings["layer"])
            self._preparation_note = progress.note
        if progress.stage != "training":
            self.due = False
            return
        if progress.loss is not None:
            self._curve.append(_point(progress))
        if progress.vector is not None and self._curve:  # the vector knows the steps of the run this one continues
            first = self._curve[0]["step"]
            earlier = progress.vector.metrics.get("curve", [])
            self._curve = [point for point in earlier if point["step"] < first] + self._curve
        if self._first_step is None:
            self._first_step = progress.step
        # Not of the first step: it runs the untouched model, too, and would be taken for many times itself.
        left = progress.seconds_left if progress.step > self._first_step else None
        self.status = TrainingStatus(progress.step, progress.total_steps, left)
        now = time.monotonic()
        self.due = now - self._drawn > CHART_SECONDS or progress.held_out is not None
        if self.due:
            self._drawn = now

    def charts(self) -> tuple[go.Figure, go.Figure]:
        """Draw the loss and the held-out margin up to now."""
        total = self._latest.total_steps
        return loss_chart(self._curve, total), margin_chart(self._curve, total)

    @property
    def has_curve(self) -> bool:
        """Whether the method reports a loss at all; some find their vector without one."""
        return bool(self._curve)

    def html(self) -> str:
        """Render the bar, the figures and the notes of the latest report."""
        progress = self._latest
        share = progress.step / progress.total_steps if progress.total_steps else 0
        if progress.stage == "preparing":
            looking = "" if progress.settings else progress.note
            return html.progress_bar(share, looking or "Preparing ...") + _notes(self._preparation_note)
        return html.progress_bar(share, " · ".join(self._figures())) + _notes(self._preparation_note, progress.note)

    def _figures(self) -> list[str]:
        progress = self._latest
        what = "Step" if progress.unit == "steps" else "Pair"
        figures = [f"{what} {progress.step} of {progress.total_steps}"]
        if self.status.seconds_left is not None:
            figures.append(f"about {html.duration(self.status.seconds_left)} left")
        figures.append(self._layers)
        if progress.loss is not None:
            figures.append(f"loss {progress.loss:.3f}")
        if progress.norm:
            figures.append(f"vector norm {progress.norm:.1f}")
        measured: list[dict[str, float]] = next(
            (point["held_out"] for point in reversed(self._curve) if "held_out" in point), []
        )
        if measured:
            each = [f"{100 * r['preference_accuracy']:.0f} % at {r['multiplier']:+g}" for r in measured]
            figures.append(f"held-out accuracy {' and '.join(each)}")
        return [figure for figure in figures if figure]


def summary(progress: Progress, vector: SteeringVector) -> str:
    """`Done after 24 of 24 steps, 40 s: a vector of norm 4.2 at layer 14.` for the report of a run that has ended."""
    return (
        f"{ENDINGS[progress.stopped]} after {progress.step} of {progress.total_steps} {progress.unit}, "
        f"{html.duration(progress.seconds)}: {html.where(vector)}."
    )


def _point(progress: Progress) -> Point:
    """Return a report as a point of the curve, in the form in which vector files store it."""
    point: dict[str, Any] = {"step": progress.step, "loss": progress.loss}
    if progress.held_out:
        point |= {"held_out_loss": progress.held_out_loss, "held_out": [r.as_dict() for r in progress.held_out]}
    return point


def _layers(layer: int | list[int]) -> str:
    return f"layer {layer}" if isinstance(layer, int) else f"layers {', '.join(map(str, layer))}"


def _notes(*texts: str) -> str:
    return "".join(html.note(text) for text in texts if text)
