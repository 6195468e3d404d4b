"""The Train tab: bring pairs, choose a method and settings, train, save. Layout and wiring; the steps do the work."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gradio as gr

from steering.interface import html
from steering.interface.answer_cards import columns_panel, message
from steering.interface.app_state import AppState
from steering.interface.charts import loss_chart, margin_chart
from steering.interface.playground.tab import Playground
from steering.interface.shared_page import training_note
from steering.interface.train import misfits
from steering.interface.train.data_step import DataStep
from steering.interface.train.misfits import Misfits
from steering.interface.train.parts import HIDDEN, on_page
from steering.interface.train.run_step import SAMPLE_PROMPTS, RunStep
from steering.interface.train.save_step import SaveStep
from steering.interface.train.settings_step import SettingsStep
from steering.interface.train.time_estimates import TimeEstimates
from steering.pairs.dataset import Pairs

BRING, CHOOSE, TRAIN = "1  Bring preference pairs", "2  Choose the method and the effort", "3  Train, look and keep"
"""Headings of the steps; those of the first two change to what was brought and chosen."""
NOT_BEGUN = html.note("Charts, sample answers and the result appear here. Training goes on if you look elsewhere.")
TRAININGS_WAITING = 16
"""Visitors whose training may run or wait for another at a time; each holds one of the server's threads."""


def build(
    app: AppState,
    page: gr.Blocks,
    arrival: Callable[..., Any],
    tabs: gr.Tabs,
    play: Playground,
    *,
    endpoints: bool = False,
) -> gr.State:
    """Lay the tab out and wire it; return the state that holds the pairs.

    Args:
        arrival: subscribes to the opening of the page, once its visitor is known.
        endpoints: whether drafts may be written by another server (see `DraftPanel`).
    """
    pairs, unsaved = gr.State(None), gr.State(None)
    with gr.Accordion(BRING, open=True, elem_classes="step", elem_id="step-pairs") as step_pairs:
        data = DataStep.build(app, endpoints=endpoints)
    with gr.Accordion(CHOOSE, open=True, elem_classes="step", elem_id="step-settings") as step_settings:
        settings = SettingsStep(app.model.num_layers, limits=app.limits)
    with gr.Accordion(TRAIN, open=True, elem_classes="step", elem_id="step-train"):
        with gr.Row(elem_id="training-buttons"):
            start = gr.Button("Train", variant="primary", elem_id="start-training", scale=2)
            stop = gr.Button("Stop and keep the best", elem_id="stop-training", scale=1)
        status = gr.HTML(NOT_BEGUN + training_note(app), elem_id="training-status")
        with gr.Row(elem_id="training-run", equal_height=False):
            with gr.Column(min_width=300, scale=2):
                results = gr.HTML(elem_id="training-results", padding=False)
                with gr.Row(elem_id="save-row"):
                    name = gr.Textbox(label="Name", info="beside its slider", max_length=80, elem_id="vector-name")
                    behavior = gr.Textbox(
                        label="Behavior", info="what it does, in a few words", max_length=200, elem_id="behavior"
                    )
                saved = gr.HTML(elem_id="saved-note")
                with gr.Row():
                    save = gr.Button("Save to the shelf", elem_id="save-vector")
                    visit = gr.Button("Try it on the Playground", visible=False, elem_id="visit-playground")
                with gr.Column(visible=False, elem_id="training-charts") as charts:
                    margin, loss = (
                        gr.Plot(chart, show_label=False, container=False, elem_id=elem_id)
                        for elem_id, chart in (("margin-chart", margin_chart()), ("loss-chart", loss_chart()))
                    )
            with gr.Column(min_width=300, scale=3):
                samples = [
                    columns_panel(message(), elem_id=f"training-samples-{number}") for number in range(SAMPLE_PROMPTS)
                ]
                misfit_panel = Misfits()
        with (
            gr.Accordion("Runs that were not saved", open=True, visible=False, elem_id="drafts") as drafts_box,
            gr.Row(),
        ):
            draft = gr.Dropdown([], label="Run", elem_id="draft", interactive=True)
            open_draft = gr.Button("Open it", size="sm", elem_id="open-draft")

    # The layers are those of the model, which may be another one by the time the page opens, or later.
    gr.on(
        [page.load, play.generation.change],
        lambda: settings.layer_update(app.model.num_layers),
        None,
        settings.layer,
        queue=False,
        **HIDDEN,
    )
    run_step, save_step, time_estimates = RunStep(app, settings), SaveStep(app), TimeEstimates(app, settings)
    of_vector = {
        "unsaved": unsaved,
        "results": results,
        "status": status,
        "charts": charts,
        "loss_chart": loss,
        "margin_chart": margin,
        "save": save,
    }
    of_run = {
        **of_vector,
        **{f"samples_{number}": panel for number, panel in enumerate(samples)},
        **misfit_panel.parts,
        "step_pairs": step_pairs,
        "step_settings": step_settings,
        "start": start,
    }
    of_save = {"saved": saved, "sliders": play.sliders, "visit": visit, "unsaved": unsaved, "save": save}
    of_drafts = {"drafts_box": drafts_box, "draft": draft}
    of_times = {"effort": settings.effort, "time": settings.time}

    reads = data.wire(app, page, settings, pairs, name, behavior)
    pairs.change(lambda current: gr.update(label=pairs_line(current)), pairs, step_pairs, queue=False, **HIDDEN)
    of_misfit = {"pairs": pairs, "report": data.report, "table": data.table, "misfit_done": misfit_panel.done}
    changes = []
    for button, change in ((misfit_panel.flip, misfits.flipped), (misfit_panel.drop, misfits.dropped)):

        def changed(line: Any, current: Any, change: Any) -> Any:
            return on_page(of_misfit, change(line, current))

        chosen_pair = [misfit_panel.choice, pairs]
        changes.append(button.click(partial(changed, change=change), chosen_pair, [*of_misfit.values()], **HIDDEN))

    def train(values: dict[Any, Any], request: gr.Request) -> Iterator[Any]:
        for update in run_step.train(values[pairs], values, request):
            yield on_page(of_run, update)

    training = start.click(
        train,
        {pairs, *settings.inputs},
        [*of_run.values()],
        concurrency_id="train",
        concurrency_limit=TRAININGS_WAITING,
        trigger_mode="multiple",
        **HIDDEN,
    )
    stop.click(app.training_runs.stop, queue=False, api_visibility="private")

    chosen = settings.method.input(
        settings.choose_method, settings.method, settings.method_outputs, queue=False, **HIDDEN
    )
    timed = [each.then for each in (*reads, *changes, chosen, training)] + [
        each.change for each in settings.time_inputs
    ]
    for event in timed:
        event(
            lambda values: on_page(of_times, time_estimates.update(values[pairs], values)),
            {pairs, *settings.inputs},
            [*of_times.values()],
            concurrency_id="estimate",
            concurrency_limit=4,
            trigger_mode="always_last",
            **HIDDEN,
        )

    def saved_as(request: gr.Request, *values: Any) -> Any:
        return on_page(of_save, save_step.save(request, *values))

    def opened(request: gr.Request, draft_id: str | None) -> Any:
        return on_page(of_opened, save_step.open_draft(request, draft_id))

    def listed(request: gr.Request) -> Any:
        return on_page(of_drafts, save_step.list_drafts(request))

    saving = save.click(
        saved_as,
        [unsaved, name, behavior, play.sliders],
        [*of_save.values()],
        **HIDDEN,
    )
    visit.click(partial(gr.update, selected="playground"), None, tabs, queue=False, **HIDDEN)
    of_opened = {**of_vector, "name": name}
    open_draft.click(opened, draft, [*of_opened.values()], **HIDDEN)
    for event in (arrival, training.then, saving.then):
        event(listed, None, [*of_drafts.values()], queue=False, **HIDDEN)
    return pairs


def pairs_line(pairs: Pairs | None) -> str:
    """Return the heading of step 1: what to do, or what was brought."""
    if not pairs:
        return BRING
    return f"1  {len(pairs):,} preference pair{'' if len(pairs) == 1 else 's'} of {pairs.report.source}"
