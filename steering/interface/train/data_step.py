"""Step 1 of the Train tab: bring preference pairs. Layout and wiring; `pairs_reading` does the work."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.interface import html
from steering.interface.app_state import AppState
from steering.interface.files import take_upload
from steering.interface.train import pairs_reading
from steering.interface.train.column_mapping import ColumnMapping, columns_of, preview_html
from steering.interface.train.draft_panel import ENDPOINT, DraftPanel
from steering.interface.train.pairs_doctor import PairsDoctor
from steering.interface.train.pairs_reading import ROLES, TABLE_ROWS, example_sets
from steering.interface.train.parts import HIDDEN, Update
from steering.interface.train.settings_step import SettingsStep
from steering.pairs.dataset import MAX_ROWS, Pairs
from steering.pairs.readers import SUFFIXES

DRAFTS_WAITING = 4
"""Visitors whose drafts may be written at a time; each holds one of the server's threads."""


@dataclass(frozen=True)
class DataStep:
    """The components of step 1.

    Attributes:
        source: what was brought last, a `PairsSource` (state).
    """

    example: gr.Dropdown
    hub: gr.Textbox
    read_hub: gr.Button
    file: gr.File
    most: gr.Textbox
    which: gr.Radio
    read_limited: gr.Button
    pasted: gr.Textbox
    read_pasted: gr.Button
    mapping: ColumnMapping
    draft: DraftPanel
    report: gr.HTML
    doctor: PairsDoctor
    table_panel: gr.Accordion
    table: gr.Dataframe
    source: gr.State

    @classmethod
    def build(cls, app: AppState, *, endpoints: bool = False) -> "DataStep":
        """Lay the step out in the container that is open; `endpoints`: see `DraftPanel`."""
        gr.HTML(
            "<p class='hint'>A pair is a prompt with two answers: "
            "<b>chosen</b> shows the behavior you want, <b>rejected</b> its opposite. 60 pairs are a good start.</p>"
        )
        with gr.Row():
            with gr.Column(min_width=260):
                example = gr.Dropdown(
                    example_sets(), label="Take an example set", value=None, elem_id="example-set", interactive=True
                )
                hub = gr.Textbox(
                    label="or a data set of the Hugging Face Hub",
                    placeholder="owner/name",
                    max_lines=1,
                    max_length=300,
                    elem_id="hub-data-set",
                )
                read_hub = gr.Button("Read the data set", size="sm", elem_id="read-hub")
            with gr.Column(min_width=260):
                file = gr.File(label="or drop a file", file_types=list(SUFFIXES), height=140, elem_id="pairs-file")
                kinds = ", ".join(suffix.removeprefix(".").upper() for suffix in SUFFIXES)
                gr.HTML(html.note(kinds), padding=False)
                with gr.Accordion("Large file?", open=False, elem_id="read-limit"):
                    most = gr.Textbox(
                        label="Read at most (pairs)",
                        placeholder=f"all, up to {MAX_ROWS:,}",
                        max_lines=1,
                        max_length=20,
                        elem_id="read-at-most",
                    )
                    which = gr.Radio(
                        [("the first ones", "first"), ("drawn from the whole file", "drawn")],
                        value="first",
                        show_label=False,
                        container=False,
                        elem_id="read-which",
                    )
                    read_limited = gr.Button("Read it again", size="sm", elem_id="read-again")
            with gr.Column(min_width=260):
                pasted = gr.Textbox(
                    label="or paste rows",
                    placeholder='prompt,chosen,rejected\nWould you lead us?,"Yes, at once.","No, thank you."',
                    lines=3,
                    max_lines=3,
                    elem_id="pasted",
                )
                read_pasted = gr.Button("Read the pasted rows", size="sm", elem_id="read-pasted")
        draft = DraftPanel(app, endpoints=endpoints)
        report = gr.HTML(elem_id="pairs-report", padding=False)
        doctor = PairsDoctor()
        mapping = ColumnMapping()
        with gr.Accordion("Look at the pairs and edit them", open=False, elem_id="pairs-accordion") as table_panel:
            table = gr.Dataframe(
                headers=list(ROLES),
                type="array",
                column_count=len(ROLES),
                interactive=True,
                wrap=True,
                column_widths=["26%", "35%", "35%"],  # else as wide as the longest text, and to be scrolled sideways
                max_height=340,
                show_row_numbers=True,
                label=f"The first {TABLE_ROWS} pairs",
                elem_id="pairs-table",
            )
        return cls(
            example=example,
            hub=hub,
            read_hub=read_hub,
            file=file,
            most=most,
            which=which,
            read_limited=read_limited,
            pasted=pasted,
            read_pasted=read_pasted,
            mapping=mapping,
            draft=draft,
            report=report,
            doctor=doctor,
            table_panel=table_panel,
            table=table,
            source=gr.State(None),
        )

    def wire(
        self,
        app: AppState,
        page: gr.Blocks,
        settings: SettingsStep,
        pairs: gr.State,
        name: gr.Textbox,
        behavior: gr.Textbox,
    ) -> Sequence[Any]:
        """Wire the step's events; return those after which `pairs` may be others.

        Args:
            pairs: the state that holds the pairs to train on.
            name, behavior: of the vector; texts for them are proposed.
        """
        parts = {
            "pairs": pairs,
            "report": self.report,
            "table": self.table,
            "table_panel": self.table_panel,
            "name": name,
            "behavior": behavior,
            "source": self.source,
            "draft_status": self.draft.status,
        }
        outputs = [*parts.values(), *self.mapping.outputs]
        limit = [self.most, self.which]

        def updates(update: Update) -> Any:
            changed: dict[Any, Any] = {parts[part]: value for part, value in update.items() if part != "mapping"}
            if "mapping" in update:
                changed |= self.mapping.show(update["mapping"])
            return changed or gr.skip()

        def read(handler: Any, **options: Any) -> Any:
            return lambda *values: updates(handler(*values, **options))

        def read_upload(request: gr.Request, file: str | None, most: str, which: str, old: Pairs | None) -> Any:
            return updates(_read_upload(app, request, file, most, which, old))

        def read_again(current: Any, most: str, which: str, old: Pairs | None, *columns: str) -> Any:
            return updates(pairs_reading.read_mapped(current, most, which, old, columns_of(columns)))

        def draft(values: dict[Any, Any], request: gr.Request) -> Iterator[Any]:
            for update in self.draft.draft(values, values[pairs], request):
                yield updates(update)

        reads = [
            self.example.input(read(pairs_reading.read_example), [self.example, pairs], outputs, **HIDDEN),
            self.file.upload(read_upload, [self.file, *limit, pairs], outputs, **HIDDEN),
            self.read_pasted.click(
                read(pairs_reading.read_text, limits=app.limits), [self.pasted, *limit, pairs], outputs, **HIDDEN
            ),
            gr.on(
                [self.read_hub.click, self.hub.submit],
                read(pairs_reading.read_hub, limits=app.limits),
                [self.hub, *limit, pairs],
                outputs,
                **HIDDEN,
            ),
            gr.on(
                [self.mapping.read.click, self.read_limited.click, self.most.submit],
                read_again,
                [self.source, *limit, pairs, *self.mapping.fields],
                outputs,
                **HIDDEN,
            ),
            self.table.input(
                read(pairs_reading.apply_edits), [self.table, pairs], outputs, trigger_mode="always_last", **HIDDEN
            ),
            self.draft.start.click(
                draft,
                {pairs, *self.draft.inputs},
                outputs,
                concurrency_id="draft",
                concurrency_limit=DRAFTS_WAITING,
                **HIDDEN,
            ),
        ]
        self.draft.stop.click(self.draft.runs.stop, queue=False, api_visibility="private")
        page.unload(self.draft.runs.forget)

        def give_way(current: Pairs | None, request: gr.Request) -> Any:
            return updates(self.draft.give_way(current, request))

        pairs.change(give_way, pairs, [self.draft.status, self.table], queue=False, **HIDDEN)
        gr.on(
            [self.draft.behavior.blur, self.draft.opposite.blur],
            self.draft.show_system_prompts,
            {*self.draft.inputs},
            [self.draft.towards, self.draft.away, self.draft.made],
            queue=False,
            **HIDDEN,
        )
        if self.draft.endpoints:
            self.draft.writer.input(
                lambda writer: gr.update(visible=writer == ENDPOINT),
                self.draft.writer,
                self.draft.endpoint_row,
                queue=False,
                **HIDDEN,
            )
        gr.on(
            [dropdown.input for dropdown in self.mapping.fields],
            _preview,
            [self.source, *self.mapping.fields],
            self.mapping.preview,
            trigger_mode="always_last",
            **HIDDEN,
        )
        self._wire_doctor(app, settings, pairs)
        return reads

    def _wire_doctor(self, app: AppState, settings: SettingsStep, pairs: gr.State) -> None:
        pairs.change(
            lambda current: self.doctor.examine(current, app, settings),
            pairs,
            self.doctor.outputs,
            trigger_mode="always_last",
            **HIDDEN,
        )
        controls = [control.component for own in settings.controls.values() for control in own.values()]
        for number, button in enumerate(self.doctor.buttons):

            def take(values: dict[Any, Any], number: int) -> Any:
                return self.doctor.take(number, values[self.doctor.offered], settings, values)

            button.click(
                partial(take, number=number),
                {self.doctor.offered, *settings.inputs},
                [self.doctor.taken, *controls],
                **HIDDEN,
            )


def _read_upload(
    app: AppState, request: gr.Request, file: str | None, most: str, which: str, pairs: Pairs | None
) -> Update:
    """Read a file that was dropped; on a public page it is moved to the visitor's private folder first."""
    try:
        if file and app.is_public:
            app.visitors.check_room()
            file = str(take_upload(file, app.visit(request).visitor.uploads))
    except SteeringError as error:
        return pairs_reading.failure(str(error), pairs)
    return pairs_reading.read_file(file, most, which, pairs, app.limits)


def _preview(source: Any, *columns: str) -> str:
    """Show the first pair with these columns."""
    return preview_html(pairs_reading.preview_mapped(source, columns_of(columns)))
