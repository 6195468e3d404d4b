"""Follow-up questions: the answers so far become turns, each column goes on from its own; a past turn can be edited."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.interface.answer_cards import MOST_TURNS, cards_of, message, read_turns
from steering.interface.app_state import AppState
from steering.interface.html_component import page_function
from steering.interface.playground.layout import Layout, Updates


@dataclass(frozen=True)
class ConversationHandlers:
    """What the conversation's events do on the server; each ends the run that would bring the old answers back."""

    app: AppState
    layout: Layout

    def follow_up(self, answers_value: Any, request: gr.Request | None) -> Updates:
        """Make the answers that are shown a turn of the conversation, and wait for the next prompt."""
        self.app.runs.begin(request)
        layout = self.layout
        try:
            turns = read_turns(answers_value)
        except SteeringError as error:
            return {layout.columns: message(problem=str(error))}
        answers = {id: card["text"] for id, card in cards_of(answers_value).items() if card["text"]}
        if len(turns) >= MOST_TURNS:
            return {layout.columns: {**answers_value, "note": f"{MOST_TURNS} turns are the most; start over."}}
        if not answers:
            return {layout.columns: message(note="There is no answer to follow up yet.", turns=turns)}
        turns.append({"user": str(answers_value.get("asked", "")), "answers": answers})
        return {
            layout.columns: message("Write what comes next; every column goes on from its own answer.", turns=turns),
            layout.controls["prompt"]: "",
            layout.start_over: gr.update(visible=True),
        }

    def start_over(self, request: gr.Request | None) -> Updates:
        """Forget the conversation."""
        self.app.runs.begin(request)
        return {
            self.layout.columns: message("A new conversation: write a prompt."),
            self.layout.start_over: gr.update(visible=False),
        }

    def edit(self, answers_value: Any, request: gr.Request | None) -> Updates:
        """Go back to the turn whose number is the value's "edit": its words in the prompt, later turns forgotten."""
        self.app.runs.begin(request)
        layout = self.layout
        try:
            turns = read_turns(answers_value)
            place = range(len(turns))[int(answers_value["edit"])]
        except (SteeringError, LookupError, TypeError, ValueError, OverflowError):
            return {layout.columns: gr.skip()}
        earlier = turns[:place]
        return {
            layout.columns: message(
                "Change the prompt and send it: the conversation goes on from here.", turns=earlier
            ),
            layout.controls["prompt"]: turns[place]["user"],
            layout.start_over: gr.update(visible=bool(earlier)),
        }


def wire_conversation(app: AppState, layout: Layout, hidden: dict[str, Any]) -> None:
    """Wire the buttons and the panel's own `edit`; `hidden` are the options of events that belong to the page alone."""
    handlers = ConversationHandlers(app, layout)
    columns = layout.columns
    changed = [columns, layout.controls["prompt"], layout.start_over]
    events = [
        layout.follow_up.click(handlers.follow_up, columns, changed, queue=False, **hidden),
        layout.start_over.click(handlers.start_over, None, changed, queue=False, **hidden),
        columns.edit(handlers.edit, columns, changed, queue=False, **hidden),
    ]
    for event in events:
        event.then(fn=None, js=page_function("focusPrompt"))
