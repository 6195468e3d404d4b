"""The Evaluate tab: choose a vector, press once, watch the curve fill, read the texts behind it."""

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.interface import html
from steering.interface.app_state import AppState
from steering.interface.evaluate import view
from steering.interface.evaluate.agreement import Agreement
from steering.interface.evaluate.earlier import finished, opened
from steering.interface.evaluate.experiments import ExperimentsPanel
from steering.interface.evaluate.run import RunStep, pairs_of, read_upload, wish_of
from steering.interface.evaluate.wish_form import TRAINED, UPLOADED, WishForm
from steering.interface.playground.sliders import fitting, names_of, panel_value, read_panel
from steering.interface.playground.tab import Playground
from steering.interface.train.pairs_reading import example_sets, examples_folder
from steering.pairs.dataset import Pairs, read_pairs

HIDDEN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
INTRO = html.note(
    "The model answers prompts at multipliers from -4 to 4; a judge says how much of the behavior each answer shows. "
    "Then comes what could do as well: asking for it in the prompt, a mean difference, random directions."
)


def build(
    app: AppState, arrival: Callable[..., Any], play: Playground, train_pairs: gr.State, *, endpoints: bool
) -> None:
    """Lay the tab out and wire it.

    Args:
        arrival: subscribes to the opening of the page, once its visitor is known.
        train_pairs: the pairs that were brought on the Train tab.
        endpoints: whether visitors may have another server judge. Not on a public page: it would send their requests
            with the host's key.
    """
    EvaluateTab(app, play, train_pairs, endpoints=endpoints).wire(arrival)


class EvaluateTab:
    """The tab's components, laid out in the container that is open when it is made, and what their events do."""

    def __init__(self, app: AppState, play: Playground, train_pairs: gr.State, *, endpoints: bool) -> None:
        self.app, self.play, self.train_pairs = app, play, train_pairs
        self.run_step, self.agreement = RunStep(app), Agreement()
        self.uploaded, self.curve = gr.State(None), gr.State(None)
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=280):
                self.form = form = WishForm(endpoints=endpoints)
                with gr.Row():
                    self.start = gr.Button("Evaluate", variant="primary", elem_id="start-evaluation")
                    self.stop = gr.Button("Stop", elem_id="stop-evaluation")
                form.lay_out_cost()
                self.status = gr.HTML(INTRO, elem_id="evaluation-status")
                self.verdict = gr.HTML(elem_id="evaluation-verdict", padding=False)
                with gr.Row():
                    self.keep = gr.Button("Keep the range with the vector", interactive=False, elem_id="keep-range")
                    self.report = gr.DownloadButton(
                        "Download the report", interactive=False, elem_id="evaluation-report"
                    )
                self.earlier = gr.Dropdown(
                    [],
                    label="Earlier evaluations",
                    info="choose one to open it again",
                    visible=False,
                    elem_id="earlier-evaluations",
                    interactive=True,
                )
            with gr.Column(scale=2, min_width=320):
                self.chart = gr.Plot(show_label=False, container=False, visible=False, elem_id="evaluation-chart")
                self.legend = gr.HTML("", padding=False)
                with gr.Row(visible=False) as self.beside:
                    self.others = gr.Dropdown(
                        [],
                        multiselect=True,
                        label="Draw beside it",
                        info="curves in other vectors' files",
                        elem_id="evaluate-others",
                    )
                    self.axis = gr.Radio(
                        [view.MULTIPLIER, view.KL_UNITS],
                        value=view.MULTIPLIER,
                        label="Over",
                        info="at equal KL units vectors change the text as much",
                        elem_id="evaluate-axis",
                    )
                self.table = gr.HTML(elem_id="evaluation-table", padding=False)
        with gr.Column(visible=False, elem_id="evaluation-texts") as self.texts:
            heading = html.note("Sort by a column. Choose a row and say whether you agree with the judge.")
            gr.HTML("<h3>Every answer</h3>" + heading, padding=False)
            self.answers = gr.Dataframe(
                headers=view.ANSWER_HEADS,
                datatype=["number", "str", "number", "number", "str", "str"],
                column_widths=["8%", "13%", "8%", "8%", "23%", "40%"],
                interactive=False,
                wrap=True,
                max_height=420,
                show_label=False,
                elem_id="evaluation-answers",
            )
            self.agreement.build()
        self.experiments = ExperimentsPanel(app)

    @property
    def _parts(self) -> dict[str, Any]:
        names = (
            "status",
            "verdict",
            "chart",
            "legend",
            "table",
            "texts",
            "answers",
            "keep",
            "report",
            "curve",
            "beside",
        )
        return {name: getattr(self, name) for name in names}

    def wire(self, arrival: Callable[..., Any]) -> None:
        """Subscribe to what happens on the tab and, for the shelf, on others."""
        outputs, unqueued = [*self._parts.values()], {"queue": False, **HIDDEN}
        wish = {self.form.pairs_choice, self.train_pairs, self.uploaded, *self.form.fields.values()}
        started = self.start.click(self._evaluate, wish, outputs, concurrency_limit=8, **HIDDEN)
        started.then(self.agreement.forget, None, self.agreement.outputs, **unqueued)
        self.stop.click(self._stop, None, None, **unqueued)
        self.keep.click(self._keep, self.play.sliders, [self.status, self.play.sliders], **HIDDEN)
        self.form.file.change(
            self._drop, self.form.file, [self.uploaded, self.status, self.form.pairs_choice], **HIDDEN
        )
        of_vector = [self._parts[name] for name in ("verdict", "chart", "legend", "table", "texts", "curve", "beside")]
        shown = [self.form.pairs_choice, self.others, *of_vector]
        self.form.vector.change(self._show_vector, [self.form.vector, self.train_pairs], shown, **unqueued)
        for event in (arrival, self.play.sliders.change):
            event(self._shelf, [self.form.vector, self.others], [self.form.vector, self.others], **unqueued)
        for event in (arrival, started.then):
            event(self._list_earlier, None, self.earlier, **unqueued)
        reopened = self.earlier.input(self._open, self.earlier, outputs, **unqueued)
        reopened.then(self.agreement.forget, None, self.agreement.outputs, **unqueued)
        drawn_from = [self.form.vector, self.curve, self.others, self.axis]
        for event in (started.then, self.others.change, self.axis.change):
            event(self._draw, drawn_from, self.chart, **unqueued)
        self.form.wire()
        self.agreement.wire(self.answers)
        self.experiments.wire()

    def _shelf(self, request: gr.Request, chosen: str | None, beside: list[str] | None) -> Any:
        visit = self.app.visit(request)
        names = names_of(visit)
        slugs = [entry.slug for entry in fitting(visit)]
        value = chosen if chosen in slugs else next(iter(slugs), None)
        choices = [(names[slug], slug) for slug in slugs]
        kept = [slug for slug in beside or () if slug in slugs]
        return gr.update(choices=choices, value=value), gr.update(choices=choices, value=kept)

    def _draw(
        self, request: gr.Request, slug: str | None, measured: view.Curve | None, beside: list[str] | None, axis: str
    ) -> Any:
        """Draw the vector's curve, measured now or stored, and those stored of others."""
        vectors = {entry.slug: entry.vector for entry in self.app.visit(request).library.entries()}
        own = measured or (view.stored_curve(vectors[slug]) if slug in vectors else None)
        others = [view.stored_curve(vectors[each]) for each in beside or () if each in vectors and each != slug]
        curves = [curve for curve in (*others, own) if curve]
        if own is None:
            return gr.skip()
        return view.comparison(curves, axis) if len(curves) > 1 or axis == view.KL_UNITS else own.alone

    def _show_vector(self, request: gr.Request, slug: str | None, own: Pairs | None) -> Any:
        """Show what is in the vector's file of an earlier evaluation, and choose the pairs that it was made of."""
        entry = next((entry for entry in self.app.visit(request).library.entries() if entry.slug == slug), None)
        name = pairs_of(entry.vector) if entry else ""
        curve = view.stored_curve(entry.vector) if entry else None
        figure = curve and curve.alone
        return {
            self.form.pairs_choice: gr.update(value=name or (TRAINED if own else None)),
            self.verdict: html.note("As stored in the vector's file. Evaluate measures it anew.") if figure else "",
            self.chart: gr.update(value=figure, visible=figure is not None),
            self.legend: view.LEGEND if figure else "",
            self.table: "",
            self.texts: gr.update(visible=False),
            self.curve: None,
            self.beside: gr.update(visible=figure is not None),
            self.others: gr.update(value=[]),
        }

    def _list_earlier(self, request: gr.Request) -> Any:
        choices = finished(self.app.visit(request))
        return gr.update(choices=choices, value=None, visible=bool(choices))

    def _open(self, request: gr.Request, key: str | None) -> Any:
        if not key:
            return gr.skip()
        try:
            shown = opened(self.app.visit(request), key)
        except SteeringError as error:
            shown = {"status": html.problem(str(error))}
        return {self._parts[name]: value for name, value in shown.items()}

    def _evaluate(self, values: dict[Any, Any], request: gr.Request) -> Iterator[Any]:
        choice, pairs = values[self.form.pairs_choice], None
        try:
            if choice in (UPLOADED, TRAINED):
                pairs = values[self.uploaded if choice == UPLOADED else self.train_pairs]
            elif choice in {file for _, file in example_sets()}:
                pairs = read_pairs(examples_folder() / choice)
            wish = wish_of({name: values[field] for name, field in self.form.fields.items()}, pairs)
        except SteeringError as error:
            yield {self.status: html.problem(str(error))}
            return
        yield {self.keep: gr.update(interactive=False), self.report: gr.update(interactive=False)}
        for update in self.run_step.evaluate(wish, request):
            yield {self._parts[name]: value for name, value in update.items()}

    def _stop(self, request: gr.Request) -> None:
        self.app.training_runs.stop(request)

    def _drop(self, request: gr.Request, path: str | None) -> Any:
        if not path:
            return {self.uploaded: None}
        try:
            read = read_upload(path, self.app.visit(request))
        except SteeringError as error:
            return {self.uploaded: None, self.status: html.problem(str(error))}
        said = html.note(f"{len(read):,} pairs of {read.report.source}")
        return {self.uploaded: read, self.status: said, self.form.pairs_choice: UPLOADED}

    def _keep(self, request: gr.Request, sliders: Any) -> Any:
        said, changed = self.run_step.keep(request)
        if not changed:
            return {self.status: said}
        return {self.status: said, self.play.sliders: panel_value(self.app.visit(request), read_panel(sliders))}
