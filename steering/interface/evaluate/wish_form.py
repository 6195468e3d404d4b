"""What is chosen before Evaluate is pressed: vector, pairs, prompts, judge, baselines; and what that costs."""

from typing import Any

import gradio as gr

from steering.evaluation.baselines import BASELINES
from steering.evaluation.judges import judges
from steering.evaluation.settings import NEW_TOKENS, PROMPTS, RANDOM_DIRECTIONS
from steering.interface import html
from steering.interface.evaluate import view
from steering.interface.train.pairs_reading import example_sets

HIDDEN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
ENDPOINT = "endpoint"
UPLOADED, TRAINED = "the file dropped below", "the pairs of the Train tab"


class WishForm:
    """The form's components, laid out in the container that is open when it is made.

    Args:
        endpoints: whether visitors may have another server judge.
    """

    def __init__(self, *, endpoints: bool) -> None:
        self.endpoints = endpoints
        self.vector = gr.Dropdown([], label="Vector", elem_id="evaluate-vector", interactive=True)
        self.pairs_choice = gr.Dropdown(
            [*example_sets(), (TRAINED, TRAINED), (UPLOADED, UPLOADED)],
            label="Pairs that show the behavior",
            info="the judge learns from them",
            elem_id="evaluate-pairs",
            interactive=True,
        )
        with gr.Accordion("Other pairs, prompts and settings", open=False, elem_id="evaluate-settings"):
            self.file = gr.File(label="A file of pairs", height=110, elem_id="evaluate-file")
            self.prompt_set = gr.Radio(
                [("Prompts of the pairs, not trained on", "pairs"), ("60 open prompts", "open"), ("My own", "own")],
                value="pairs",
                label="Prompts",
                elem_id="evaluate-prompts",
            )
            self.own_prompts = gr.Textbox(
                label="My own prompts", info="one in each line", lines=3, max_length=20_000, elem_id="evaluate-own"
            )
            self.count = gr.Slider(4, 60, PROMPTS, step=1, label="Number of prompts", elem_id="evaluate-count")
            self.tokens = gr.Slider(8, 96, NEW_TOKENS, step=4, label="Tokens of an answer", elem_id="evaluate-tokens")
            self.judge = gr.Dropdown(
                [(kind.label, name) for name, kind in judges().items() if self.endpoints or name != ENDPOINT],
                value="offline",
                label="Judge",
                elem_id="evaluate-judge",
            )
            if self.endpoints:
                self._lay_out_endpoint()
            self.baselines = gr.CheckboxGroup(
                [(words, name) for name, words in BASELINES.items()],
                value=list(BASELINES),
                label="Compare with",
                elem_id="evaluate-baselines",
            )
            self.random_directions = gr.Slider(
                0, 100, RANDOM_DIRECTIONS, step=10, label="Random directions", elem_id="evaluate-random"
            )
            self.utility = gr.Checkbox(
                label="Also ask 120 multiple-choice questions at each multiplier",
                info="what steering costs in knowledge; about a minute more",
                elem_id="evaluate-utility",
            )

    def _lay_out_endpoint(self) -> None:
        """Lay out what the judge `endpoint` needs, shown once it is chosen."""
        with gr.Group(visible=False, elem_id="evaluate-endpoint") as self.endpoint_fields:
            self.url = gr.Textbox(
                label="Address of the endpoint",
                info="OpenAI-compatible, up to /v1; a key is read from STEERING_API_KEY where this page was started",
                placeholder="http://localhost:8000/v1",
                max_lines=1,
                max_length=300,
                elem_id="evaluate-url",
            )
            self.endpoint_model = gr.Textbox(
                label="Name of the model there", max_lines=1, max_length=200, elem_id="evaluate-endpoint-model"
            )
            self.rubric = gr.Radio(
                [("1 to 4, as in the paper", "scale"), ("behavior, relevance, fluency (AxBench)", "axbench")],
                value="scale",
                label="Rubric",
                elem_id="evaluate-rubric",
            )
            gr.HTML(html.note("Each answer is asked for once and kept: one request, about 300 tokens, an answer."))

    @property
    def fields(self) -> dict[str, Any]:
        """The components whose values `wish_of` needs, by name."""
        names = (
            "vector",
            "prompt_set",
            "own_prompts",
            "count",
            "tokens",
            "random_directions",
            "judge",
            "baselines",
            "utility",
        )
        own = ("url", "endpoint_model", "rubric") if self.endpoints else ()
        return {name: getattr(self, name) for name in (*names, *own)}

    def lay_out_cost(self) -> None:
        """Lay out what the settings cost, in the container that is open."""
        said = view.cost(PROMPTS, NEW_TOKENS, RANDOM_DIRECTIONS, tuple(BASELINES))
        self.cost = gr.HTML(said, elem_id="evaluation-cost", padding=False)

    def wire(self) -> None:
        """Subscribe to the form's own events."""
        if self.endpoints:
            self.judge.change(_shown_for_endpoint, self.judge, self.endpoint_fields, **HIDDEN)
        priced = [self.count, self.tokens, self.random_directions, self.baselines]
        for field in priced:
            field.change(view.cost, priced, self.cost, **HIDDEN)


def _shown_for_endpoint(judge: str) -> Any:
    return gr.update(visible=judge == ENDPOINT)
