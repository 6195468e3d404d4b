"""The paper's experiments on the page: choose one, press once, read table, picture and verdict."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from html import escape
from typing import Any

import gradio as gr

from steering.evaluation.settings import PROMPTS
from steering.experiments import Bench, Experiment, Progress, Result, experiment_named, experiments, reproduce
from steering.experiments.picture import picture, table_html, write_page
from steering.interface import html
from steering.interface.app_state import AppState, Visit
from steering.interface.evaluate.turn import Update, in_turn
from steering.interface.files import downloadable
from steering.interface.runs import Run
from steering.training.pipeline import Deadline
from steering.training.starter_drafts import starters

HIDDEN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
MOST_PROMPTS = 60
STOPPED = "Stopped. The same experiment goes on from here."


class ExperimentsPanel:
    """The panel's components, laid out in the container that is open when it is made, and what their events do."""

    def __init__(self, app: AppState) -> None:
        self.app = app
        first = next(iter(experiments().values()))
        folded = gr.Accordion("Experiments of the paper, and further ones", open=False, elem_id="experiments")
        with folded, gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=280):
                self.name = gr.Dropdown(
                    [(each.title, name) for name, each in experiments().items()],
                    value=first.name,
                    label="Experiment",
                    elem_id="experiment-name",
                )
                self.about = gr.HTML(about(first), elem_id="experiment-about", padding=False)
                self.behaviors = gr.Dropdown(
                    [starter.key for starter in starters()],
                    value=[],
                    multiselect=True,
                    label="Other behaviors",
                    info="left empty, the experiment takes its own",
                    elem_id="experiment-behaviors",
                )
                self.count = gr.Slider(
                    2, MOST_PROMPTS, PROMPTS, step=1, label="Number of prompts", elem_id="experiment-prompts"
                )
                with gr.Row():
                    self.start = gr.Button("Run the experiment", variant="primary", elem_id="start-experiment")
                    self.stop = gr.Button("Stop", elem_id="stop-experiment")
                self.status = gr.HTML(elem_id="experiment-status")
                self.report = gr.DownloadButton("Download the report", interactive=False, elem_id="experiment-report")
            with gr.Column(scale=2, min_width=320):
                self.verdict = gr.HTML(contents(), elem_id="experiment-verdict", padding=False)
                self.chart = gr.Plot(show_label=False, container=False, visible=False, elem_id="experiment-chart")
                self.table = gr.HTML(elem_id="experiment-table", padding=False)

    def wire(self) -> None:
        """Subscribe to the panel's own events."""
        unqueued = {"queue": False, **HIDDEN}
        outputs = [self.status, self.report, self.verdict, self.chart, self.table]
        self.name.change(lambda name: about(experiment_named(name)), self.name, self.about, **unqueued)
        self.start.click(self._run, [self.name, self.behaviors, self.count], outputs, concurrency_limit=8, **HIDDEN)
        self.stop.click(self._stop, None, None, **unqueued)

    def _stop(self, request: gr.Request) -> None:
        self.app.training_runs.stop(request)

    def _run(self, name: str, behaviors: list[str], count: float, request: gr.Request) -> Iterator[Any]:
        yield {self.report: gr.update(interactive=False), self.status: html.progress_bar(0, "Getting ready ...")}
        for update in run_experiment(self.app, str(name), behaviors or (), int(count), request):
            yield {getattr(self, part): value for part, value in update.items()}


def run_experiment(
    app: AppState, name: str, behaviors: Sequence[str], count: int, request: gr.Request | None
) -> Iterator[Update]:
    """Run an experiment when its turn comes; yield what changes: `status`, `verdict`, `chart`, `table`, `report`."""

    def prepare(visit: Visit, run: Run) -> Iterator[Update]:
        experiment = experiment_named(name)
        folder = visit.visitor.folder / "experiments" / experiment.name

        def work() -> Iterator[Update]:
            deadline = Deadline(run.over, visit.limits.training_seconds)  # from when the turn has come
            bench = Bench(
                app.model,
                folder,
                prompt_count=max(2, min(MOST_PROMPTS, count)),
                vectors=tuple(map(str, behaviors)),
                should_stop=app.in_use.until_changed(deadline),
            )
            yield from _reports(experiment, bench, run)

        return work()

    return in_turn(app, request, "experiment", prepare)


def _reports(experiment: Experiment, bench: Bench, run: Run) -> Iterator[Update]:
    with closing(reproduce(experiment, bench)) as reports:
        for progress in reports:
            if run.superseded():
                return
            yield _shown(experiment, progress)
    if progress.done and progress.result is not None and bench.folder:
        page = write_page(experiment, progress.result, bench.model.name, bench.folder)
        yield {"report": gr.update(value=downloadable(page), interactive=True)}


def _shown(experiment: Experiment, progress: Progress) -> Update:
    if progress.stopped:
        return {"status": html.note(STOPPED)}
    if progress.done:
        update: Update = {"status": html.progress_bar(1, f"Done in {html.duration(progress.seconds)}.")}
    else:
        share = min(0.97, progress.seconds / (60 * experiment.minutes))
        words = progress.doing[:1].upper() + progress.doing[1:]
        update = {"status": html.progress_bar(share, f"{words} ...")}
    if progress.result is not None:
        figure = picture(progress.result)
        update |= {
            "verdict": verdict(progress.result),
            "chart": gr.update(value=figure, visible=figure is not None),
            "table": table_html(progress.result),
        }
    return update


def about(experiment: Experiment) -> str:
    """Say what an experiment asks, what the paper found and how long it takes."""
    return html.note(
        f"{experiment.question} About {experiment.minutes:g} minutes on two CPU cores, with the bundled model."
    ) + html.note(f"In the paper: {experiment.paper}")


def contents() -> str:
    """List the experiments that there are, for the place where a result will be."""
    lines = "".join(f"<li><b>{escape(each.title)}</b>: {escape(each.question)}</li>" for each in experiments().values())
    return f"<ul class='experiments'>{lines}</ul>"


def verdict(result: Result) -> str:
    """Render what was found: the sentence first, then what to mind."""
    if not result.verdict:
        return ""
    notes = "".join(f"<li>{escape(note)}</li>" for note in result.notes)
    return f"<div class='verdict'><p><b>{escape(result.verdict)}</b></p><ul>{notes}</ul></div>"
