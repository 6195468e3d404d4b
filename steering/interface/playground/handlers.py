"""What the Playground tab's events do on the server; each returns or yields {component: value}."""

import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.interface.answer_cards import message
from steering.interface.app_state import AppState
from steering.interface.html import note
from steering.interface.model_in_use import ModelChanged
from steering.interface.playground import model_view, url_state
from steering.interface.playground.answers import answer
from steering.interface.playground.controls import LARGEST_SEED, SPECS, Controls
from steering.interface.playground.examples import EXAMPLES, WITHOUT_VECTORS, Example, first_example, resolved
from steering.interface.playground.first_answers import WRITTEN_AHEAD, first_answers
from steering.interface.playground.layout import Layout, Updates
from steering.interface.playground.sliders import SliderPanel, is_stale, names_of, panel_value, read_panel

SKIP = gr.skip()
MOST_NAMED = 5
"""Vectors that a sentence about a link names."""


@dataclass(frozen=True)
class Stamp:
    """What the browser says about a request.

    Attributes:
        fresh: whether all answers are to be decoded again (Generate), or only those that changed.
        sent_at: when it was sent, in ms since 1970: requests may overtake each other on their way.
    """

    fresh: bool
    sent_at: float | None

    @classmethod
    def read(cls, value: Any) -> "Stamp":
        """Read the stamp a browser sent; one that is unsound counts as an update that was sent last."""
        value = value if isinstance(value, dict) else {}
        sent_at = value.get("sent_at")
        return cls(value.get("fresh") is True, sent_at if isinstance(sent_at, int | float) else None)


@dataclass(frozen=True)
class Handlers:
    """The handlers of one page."""

    app: AppState
    layout: Layout

    def write(
        self, request: gr.Request | None, stamp: Any, sliders: Any, answers_value: Any, *control_values: Any
    ) -> Iterator[Updates]:
        """Decode the answers that are to be shown, as the browser has sliders, answers and controls.

        Args:
            request: tells visitors apart.
            stamp: see `Stamp`.
            sliders: the sliders' value.
            answers_value: the columns panel's value.
            control_values: the controls' values, in the order of `Controls`.
        """
        columns, seed, generation = self.layout.columns, self.layout.controls["seed"], self.layout.generation
        sent = Stamp.read(stamp)
        run = self.app.runs.begin(request, sent.sent_at)
        if run.superseded():  # overtaken on its way here
            yield {columns: SKIP}
            return
        turns = answers_value.get("turns", []) if isinstance(answers_value, dict) else []
        if is_stale(self.app, sliders):  # `model_changed` follows, because of the new generation
            yield {columns: message(note="The model was changed meanwhile."), generation: self.app.generation}
            return
        values = dict(zip(SPECS, control_values, strict=True))
        if values["new_seed"] and sent.fresh:
            values["seed"] = random.randrange(LARGEST_SEED)
        try:
            controls, panel = Controls.read(values).within(self.app.limits), read_panel(sliders)
            updates = {seed: values["seed"]}  # with the first value of the columns
            with closing(
                answer(self.app.visit(request), panel, controls, answers_value, run, fresh=sent.fresh)
            ) as panels:
                for value in panels:
                    yield {columns: value, **updates}
                    updates = {}
            if run.superseded():
                yield {columns: SKIP}  # gradio sends a run's last value once more when it ends
        except ModelChanged as error:
            yield {columns: message(problem=str(error), turns=turns), generation: self.app.generation}
        except SteeringError as error:
            yield {columns: message(problem=str(error), turns=turns)}

    def stop(self, request: gr.Request, stamp: Any) -> None:
        """End the visitor's run, also one that was sent before and has not come in yet."""
        self.app.runs.stop(request, Stamp.read(stamp).sent_at or 0.0)

    def choose_chip(self, place: int, request: gr.Request | None, sliders: Any) -> Updates:
        """Set prompt and sliders as the example at this place of `EXAMPLES` has them, if the page can show it."""
        example = resolved(self.app.visit(request)).get(place)
        return self.choose_example(example, request, sliders) if example else {self.layout.columns: SKIP}

    def choose_example(self, example: Example, request: gr.Request | None, sliders: Any) -> Updates:
        """Set prompt and sliders as the example has them; pins and hidden columns stay."""
        layout = self.layout
        self.app.runs.begin(request)  # what is still being decoded would bring the old answers back
        try:
            now = read_panel(sliders)
        except SteeringError as error:
            return {layout.columns: message(problem=str(error))}
        panel = SliderPanel(example.panel.multipliers, now.pins, example.panel.active, now.hidden)
        return {
            layout.sliders: panel_value(self.app.visit(request), panel),
            layout.controls["prompt"]: example.prompt,
            layout.advice: note(example.hint),
            layout.columns: message(),
        }

    def restore(self, request: gr.Request) -> Updates:
        """Set the page as its address says; where that says nothing, as the first example."""
        visit, layout, model = self.app.visit(request), self.layout, self.app.model.name
        first = first_example(visit)
        link = url_state.read(request.query_params)
        controls = link.over(Controls(first.prompt)).within(self.app.limits)
        panel = SliderPanel(link.multipliers, link.pins, link.active, link.hidden) if link.given else first.panel
        advice = "" if link.given else note(first.hint)
        ahead = None if link.given else first_answers(visit, first, controls)
        if ahead:
            advice = note(f"{first.hint} {WRITTEN_AHEAD}")
        if missing := sorted(set(link.vectors) - set(names_of(visit))):
            named = ", ".join(slug[:40] for slug in missing[:MOST_NAMED])
            advice = note(f"This link also uses {named}, not on this shelf: ask whoever sent it for the file.")
        if link.model and link.model != model:
            advice = note(f"This link was made with the model {link.model[:80]}; this page runs {model}.")
        return {
            layout.sliders: panel_value(visit, panel),
            layout.advice: advice,
            layout.generation: self.app.generation,
            **({layout.columns: ahead} if ahead else {}),
            **{widget: getattr(controls, name) for name, widget in layout.controls.items()},
        }

    def show_model(self, request: gr.Request | None = None) -> Updates:
        """Set what depends on the model, but for the sliders and the controls' values."""
        return model_view.show_model(self.app.visit(request), self.layout)

    def start_starters(self, request: gr.Request | None = None) -> Updates:
        """Begin to make the shipped behaviors for the model."""
        return model_view.start_starters(self.app.visit(request), self.layout)

    def stop_starters(self, request: gr.Request | None = None) -> Updates:
        """End it."""
        return model_view.stop_starters(self.app.visit(request), self.layout)

    def tick(self, request: gr.Request | None, sliders: Any, saved: int) -> Updates:
        """Show how far it is."""
        return model_view.tick(self.app.visit(request), self.layout, sliders, saved)

    def model_changed(self, request: gr.Request | None, sliders: Any, prompt: str) -> Updates:
        """Set the page anew for a model that took the place of the one it was opened with.

        A prompt of the visitor's own stays; an example's is replaced by one that suits the model.
        """
        if not is_stale(self.app, sliders):
            return {self.layout.columns: SKIP}
        self.app.runs.begin(request)
        visit, layout = self.app.visit(request), self.layout
        first = first_example(visit)
        examples = {example.prompt for example in (*EXAMPLES, *WITHOUT_VECTORS.values())}
        from_example = not (prompt or "").strip() or prompt in examples
        updates = model_view.show_model(visit, layout)
        if from_example:
            updates[layout.controls["prompt"]]["value"] = first.prompt
        panel = first.panel if from_example else SliderPanel()
        return {
            **updates,
            layout.sliders: panel_value(visit, panel),
            layout.advice: note(f"The model is {self.app.model.name} now. {first.hint if from_example else ''}"),
            layout.columns: message("The answers appear here."),
        }
