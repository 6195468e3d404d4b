"""The Train tab: bring pairs, choose an effort, watch, keep the vector. Layout here, work in training_desk.py."""

from typing import Any

import gradio as gr

from steering.interface.answer_cards import columns_panel, message
from steering.interface.app_state import AppState
from steering.interface.charts import loss_chart, margin_chart
from steering.interface.playground.tab import Playground
from steering.interface.train.data_step import COLUMN_HINTS, TABLE_ROWS, PairsDesk, example_sets
from steering.interface.train.run_step import TrainingDesk
from steering.interface.train.save_step import Keeping
from steering.interface.train.settings_step import Choices
from steering.interface.train.time_estimates import Estimates


def build(app: AppState, page: gr.Blocks, tabs: gr.Tabs, play: Playground) -> None:
    """Lay the tab out and wire it."""
    reading, keeping = PairsDesk(), Keeping(app)
    pairs = gr.State(None)
    vector = gr.State(None)
    hidden = {"show_progress": "hidden", "api_visibility": "private"}

    with gr.Column(elem_classes="step"):
        gr.HTML(
            "<h2><span>1</span> Bring preference pairs</h2><p class='hint'>A pair is a prompt with two answers: "
            "<b>chosen</b> shows the behavior you want, <b>rejected</b> its opposite. 60 pairs are a good start.</p>"
        )
        with gr.Row():
            with gr.Column(min_width=260):
                example = gr.Dropdown(
                    example_sets(),
                    label="Take an example set",
                    value=None,
                    elem_id="example-set",
                    interactive=True,
                )
            with gr.Column(min_width=260):
                file = gr.File(
                    label="or drop a file: CSV, TSV, JSON, JSONL, Parquet",
                    file_types=[".csv", ".tsv", ".json", ".jsonl", ".parquet"],
                    height=140,
                    elem_id="pairs-file",
                )
            with gr.Column(min_width=260):
                pasted = gr.Textbox(
                    label="or paste rows",
                    placeholder='prompt,chosen,rejected\nWould you lead us?,"Yes, at once.","No, thank you."',
                    lines=3,
                    max_lines=3,
                    elem_id="pasted",
                )
                paste = gr.Button("Read the pasted rows", size="sm", elem_id="read-pasted")
        with gr.Accordion("My columns have other names", open=False), gr.Row():
            names = [
                gr.Textbox(label=f"Column of the {role}", placeholder=COLUMN_HINTS[role], elem_id=f"column-{role}")
                for role in ("prompt", "chosen", "rejected")
            ]
        report = gr.HTML(elem_id="pairs-report")
        with gr.Accordion("Look at the pairs and edit them", open=False, elem_id="pairs-accordion"):
            table = gr.Dataframe(
                headers=["prompt", "chosen", "rejected"],
                type="array",
                column_count=(3, "fixed"),
                interactive=True,
                wrap=True,
                max_height=340,
                label=f"The first {TABLE_ROWS} pairs",
                elem_id="pairs-table",
            )

    with gr.Column(elem_classes="step"):
        gr.HTML("<h2><span>2</span> Choose the effort</h2>")
        choices = Choices(app.model.num_layers)
    estimates, training_desk = Estimates(app, choices), TrainingDesk(app, choices)

    with gr.Column(elem_classes="step"):
        gr.HTML("<h2><span>3</span> Train</h2>")
        with gr.Row():
            go = gr.Button("Train", variant="primary", elem_id="start-training", scale=2)
            stop = gr.Button("Stop and keep the best", elem_id="stop-training", scale=1)
        status = gr.HTML(elem_id="training-status")
        with gr.Row():
            charts = [
                gr.Plot(chart, show_label=False, container=False, min_width=300, elem_id=f"{name}-chart")
                for name, chart in (("loss", loss_chart()), ("margin", margin_chart()))
            ]

    with gr.Column(elem_classes="step"):
        gr.HTML("<h2><span>4</span> Look at it and keep it</h2>")
        samples = columns_panel(message(), elem_id="training-samples")
        results = gr.HTML("<p class='hint'>The finished vector appears here.</p>", elem_id="training-results")
        with gr.Row():
            name = gr.Textbox(label="Name", info="beside its slider", max_length=80, elem_id="vector-name")
            behavior = gr.Textbox(
                label="Behavior", info="what it does, in a few words", max_length=200, elem_id="behavior"
            )
        saved = gr.HTML(elem_id="saved-note")
        with gr.Row():
            save = gr.Button("Save to the shelf", variant="primary", elem_id="save-vector")
            visit = gr.Button("Try it on the Playground", visible=False, elem_id="visit-playground")
        with (
            gr.Accordion("Runs that were not saved", open=True, visible=False, elem_id="drafts") as drafts_box,
            gr.Row(),
        ):
            draft = gr.Dropdown([], label="Run", elem_id="draft", interactive=True)
            take = gr.Button("Open it", size="sm", elem_id="open-draft")

    read = [pairs, report, table, name]
    reads = [
        example.input(reading.read_example, [example, pairs], [*read, behavior], **hidden),
        gr.on([file.upload, *(n.submit for n in names)], reading.read_file, [file, *names, pairs], read, **hidden),
        paste.click(reading.read_text, [pasted, *names, pairs], read, **hidden),
        table.input(reading.edited, [table, pairs], [pairs, report], trigger_mode="always_last", **hidden),
    ]

    def train(given: dict[Any, Any], request: gr.Request) -> Any:
        yield from training_desk.train(given[pairs], given, request)

    training = go.click(
        train,
        {pairs, *choices.inputs},
        [status, *charts, vector, results, samples],
        concurrency_id="train",
        concurrency_limit=16,
        trigger_mode="multiple",
        **hidden,
    )
    stop.click(app.training_runs.stop, queue=False, api_visibility="private")
    for event in (*(each.then for each in reads), *(each.change for each in choices.of_estimate), training.then):
        event(
            lambda given: estimates.tell(given[pairs], given),
            {pairs, *choices.inputs},
            choices.effort,
            concurrency_id="estimate",
            concurrency_limit=4,
            trigger_mode="always_last",
            **hidden,
        )
    kept = [saved, play.mixer, visit, vector]
    saving = save.click(keeping.save, [vector, name, behavior, play.mixer], kept, **hidden)
    visit.click(lambda: gr.update(selected="playground"), None, tabs, queue=False, **hidden)
    take.click(keeping.open_draft, draft, [vector, results, name, status, *charts], **hidden)
    for event in (page.load, training.then, saving.then):
        event(keeping.list_drafts, None, [drafts_box, draft], queue=False, **hidden)
