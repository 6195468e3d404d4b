"""The draft panel of step 1: from a sentence about a behavior to pairs in the table, written by a model."""

import logging
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import gradio as gr

from steering.drafting import DraftProgress, draft_pairs
from steering.errors import SteeringError
from steering.interface import html
from steering.interface.app_state import AppState
from steering.interface.runs import Runs, session_of
from steering.interface.train.pairs_reading import NO_COLUMNS, TABLE_ROWS, report
from steering.interface.train.parts import Update
from steering.pairs.dataset import Pairs
from steering.prompting import Endpoint, contrasting_system_prompts

TITLE = "No pairs yet? Describe the behavior and have them drafted"
LONGEST_BEHAVIOR = 200
"""Characters of a description: a sentence."""
LONGEST_SYSTEM_PROMPT = 2000
MOST_DRAFTED = 200
"""Pairs of one draft: there are 200 prompts, and the bundled model takes some seconds for each."""
DEFAULT_DRAFTED = 24
THIS_MODEL, ENDPOINT = "this model", "endpoint"
WRITERS = [("The model of this page", THIS_MODEL), ("Another model, over an OpenAI-compatible endpoint", ENDPOINT)]
KEY_NOTE = "a key is read from STEERING_API_KEY, else OPENAI_API_KEY, where this page was started; never typed here"

logger = logging.getLogger(__name__)


class DraftPanel:
    """The panel, folded, laid out in the container that is open when it is made.

    Args:
        app: whose model writes.
        endpoints: whether visitors may have another server asked. Not on a public page: it would send their requests
            in its own name, with its own key.
    """

    def __init__(self, app: AppState, *, endpoints: bool) -> None:
        self.app = app
        self.endpoints = endpoints
        self.runs = Runs(app.listeners)  # of their own: a draft and an answer on the Playground do not end each other
        self._drafting: set[str] = set()  # visitors
        self._instead: dict[str, Update] = {}  # visitor -> what the page shows in place of the draft that was ended
        with gr.Accordion(TITLE, open=False, elem_id="draft-pairs"):
            with gr.Row():
                self.behavior = gr.Textbox(
                    label="Describe the behavior",
                    info="a word or a sentence",
                    placeholder="cheerful, or: refuses to take power",
                    max_lines=2,
                    max_length=LONGEST_BEHAVIOR,
                    min_width=240,
                    elem_id="draft-behavior",
                )
                self.opposite = gr.Textbox(
                    label="Its opposite",
                    info="may stay empty: then it is the behavior's absence",
                    placeholder="gloomy",
                    max_lines=2,
                    max_length=LONGEST_BEHAVIOR,
                    min_width=240,
                    elem_id="draft-opposite",
                )
                self.count = gr.Slider(
                    4,
                    min(MOST_DRAFTED, app.limits.pairs or MOST_DRAFTED),
                    DEFAULT_DRAFTED,
                    step=1,
                    label="Pairs",
                    info="60 are a good start",
                    min_width=200,
                    elem_id="draft-count",
                )
            if endpoints:
                self._endpoint_fields()
            with gr.Accordion("System prompts and questions", open=False, elem_id="draft-details"):
                gr.HTML(
                    html.note(
                        "Each question is answered twice, under these two system prompts. The pairs keep the question "
                        "and the answers, not the system prompts."
                    ),
                    padding=False,
                )
                with gr.Row():
                    self.towards, self.away = (
                        gr.Textbox(
                            label=label,
                            placeholder="made from the description",
                            lines=2,
                            max_lines=6,
                            max_length=LONGEST_SYSTEM_PROMPT,
                            min_width=240,
                            elem_id=elem_id,
                        )
                        for label, elem_id in (
                            ("For the chosen answer", "draft-towards"),
                            ("For the rejected answer", "draft-away"),
                        )
                    )
                self.prompts = gr.Textbox(
                    label="Questions of your own",
                    info="one in each line; if empty, they are drawn from a list of 200 on many topics",
                    lines=2,
                    max_lines=8,
                    max_length=100_000,
                    elem_id="draft-prompts",
                )
            with gr.Row():
                self.start = gr.Button("Draft the pairs", elem_id="start-draft", scale=2)
                self.stop = gr.Button("Stop and keep them", elem_id="stop-draft", scale=1)
            self.status = gr.HTML(elem_id="draft-status", padding=False)
        self.made = gr.State(("", ""))  # the system prompts as made, which tells edited ones

    def _endpoint_fields(self) -> None:
        self.writer = gr.Radio(WRITERS, value=THIS_MODEL, label="Who writes", elem_id="draft-writer")
        with gr.Row(visible=False, elem_id="draft-endpoint") as self.endpoint_row:
            self.url = gr.Textbox(
                label="Address of the endpoint",
                info="up to /v1",
                placeholder="http://localhost:8000/v1",
                max_lines=1,
                max_length=300,
                elem_id="draft-url",
            )
            self.endpoint_model = gr.Textbox(
                label="Name of the model there",
                info=KEY_NOTE,
                max_lines=1,
                max_length=200,
                elem_id="draft-endpoint-model",
            )

    @property
    def inputs(self) -> list[Any]:
        """The components whose values `draft` needs."""
        shared = [self.behavior, self.opposite, self.count, self.towards, self.away, self.made, self.prompts]
        return [*shared, *([self.writer, self.url, self.endpoint_model] if self.endpoints else [])]

    def show_system_prompts(self, values: Mapping[Any, Any]) -> dict[Any, Any]:
        """Return the updates that show the system prompts made from the description, but for those that were edited."""
        behavior, opposite = (str(values[box] or "").strip() for box in (self.behavior, self.opposite))
        try:
            made = contrasting_system_prompts(behavior, opposite) if behavior else ("", "")
        except SteeringError:  # Draft will say what is wrong with the description
            made = ("", "")
        boxes = zip((self.towards, self.away), made, self._edited(values), strict=True)
        return {self.made: made} | {box: prompt for box, prompt, edited in boxes if not edited}

    def _edited(self, values: Mapping[Any, Any]) -> tuple[str, str]:
        """Return both system prompts as they were edited; empty where they were not."""
        towards, away = (str(values[box] or "").strip() for box in (self.towards, self.away))
        made = values[self.made]
        return "" if towards == made[0] else towards, "" if away == made[1] else away

    def draft(
        self, values: Mapping[Any, Any], pairs: Pairs | None, request: gr.Request | None = None
    ) -> Iterator[Update]:
        """Draft pairs; yield what changes on the page: `draft_status`, and `table`, `pairs`, `report`, `name`, ...

        The table cannot be edited meanwhile: the next pair would overwrite what was written there.
        """
        run, visitor = self.runs.begin(request), session_of(request)
        behavior = str(values[self.behavior] or "").strip()
        if not behavior:
            yield {"draft_status": html.problem("Describe the behavior first, in a word or a sentence.")}
            return
        progress: DraftProgress | None = None
        problem = ""
        self._drafting.add(visitor)
        try:
            yield {"draft_status": html.progress_bar(0, "The first pair is being written ..."), "table": locked()}
            for progress in self._drafts(values, behavior, self.app.in_use.until_changed(run.over)):
                if run.superseded():
                    break
                yield {"draft_status": status_html(progress), "table": locked(progress)}
        except SteeringError as error:
            problem = str(error)
        except Exception:  # a model or a server may fail in any way; the bar must not stand still as if it went on
            logger.exception("drafting failed")
            problem = "Drafting failed; the server's log says why."
        finally:
            self._drafting.discard(visitor)
        instead = self._instead.pop(visitor, None)
        if not run.superseded():
            yield self._ended(progress, behavior, problem, pairs)
        elif instead and visitor not in self._drafting:
            yield instead  # what was sent of the draft may have reached the page after `give_way`

    def give_way(self, pairs: Pairs | None, request: gr.Request) -> Update:
        """End the visitor's draft, if one is being written, because other pairs were read meanwhile; show those."""
        if session_of(request) not in self._drafting:
            return {}
        self.runs.begin(request)
        rows = pairs[:TABLE_ROWS].to_rows() if pairs else []
        status = html.note("The draft was ended, because other pairs were read meanwhile.")
        self._instead[session_of(request)] = {
            "draft_status": status,
            "table": gr.update(value=rows, interactive=True),
        }
        return self._instead[session_of(request)]

    def _drafts(self, values: Mapping[Any, Any], behavior: str, over: Any) -> Iterator[DraftProgress]:
        own = [line.strip() for line in str(values[self.prompts] or "").splitlines() if line.strip()]
        opposite = str(values[self.opposite] or "").strip()
        (mine, mine_away), (towards, away) = self._edited(values), contrasting_system_prompts(behavior, opposite)
        source = self._source(values)
        gpu = self.app.gpu if self.app.writes_on_gpu and source is self.app.model else None
        return (gpu.draft if gpu else partial(draft_pairs, source))(
            behavior,
            count=int(values[self.count]),
            opposite=opposite,
            prompts=own or None,
            system_prompts=(mine or towards, mine_away or away),
            should_stop=over,
            limits=self.app.limits,
        )

    def _source(self, values: Mapping[Any, Any]) -> Any:
        """Return who writes the answers."""
        if not self.endpoints or values[self.writer] != ENDPOINT:
            return self.app.model
        url, name = (str(values[box] or "").strip() for box in (self.url, self.endpoint_model))
        if not url or not name:
            raise SteeringError("Give the endpoint's address and the name of the model there.")
        return Endpoint(url, name)

    def _ended(self, progress: DraftProgress | None, behavior: str, problem: str, pairs: Pairs | None) -> Update:
        """Put what was drafted in the place of the pairs; where nothing was, those read before stay."""
        before = pairs[:TABLE_ROWS].to_rows() if pairs else []
        said = html.problem(problem) if problem else ""
        drafted = None
        if progress and progress.pairs:
            try:
                drafted = Pairs.of(progress.pairs, source=f"the draft of “{behavior}”")
            except SteeringError as error:
                said += html.problem(str(error))
        if drafted is None:
            said = said or html.note("Stopped before the first pair was written.")
            return {"draft_status": said, "table": gr.update(value=before, interactive=True)}
        assert progress
        number = "1 pair" if len(drafted) == 1 else f"{len(drafted)} pairs"
        status = said or html.note(f"{number} drafted. Read them below and correct them, then train.")
        return {
            "draft_status": status + counted(progress),
            "pairs": drafted,
            "report": report(drafted),
            "table": gr.update(value=drafted[:TABLE_ROWS].to_rows(), interactive=True),
            "table_panel": gr.update(open=True),
            "name": behavior[:40],
            "behavior": behavior,
            "source": None,
            "mapping": NO_COLUMNS,
        }


def locked(progress: DraftProgress | None = None) -> Any:
    """Update the table to what is drafted so far, not to be edited."""
    rows = [[pair.prompt, pair.chosen, pair.rejected] for pair in progress.pairs[:TABLE_ROWS]] if progress else []
    return gr.update(value=rows, interactive=False)


def status_html(progress: DraftProgress) -> str:
    """Render how far a draft is."""
    figures = [f"{len(progress.pairs)} of {progress.wanted} pairs", f"{progress.tokens:,} tokens"]
    if progress.seconds_left is not None and not progress.done:
        figures.append(f"about {html.roughly(progress.seconds_left)} left")
    share = len(progress.pairs) / progress.wanted if progress.wanted else 0
    return html.progress_bar(share, " · ".join(figures)) + (html.note(progress.note) if progress.note else "")


def counted(progress: DraftProgress) -> str:
    """Say what a draft cost, and its note."""
    cost = html.note(f"{progress.tokens:,} tokens in {html.duration(progress.seconds)}.")
    return cost + (html.note(progress.note) if progress.note else "")
