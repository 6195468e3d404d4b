"""Follow-up questions: the answers so far become turns, each column goes on from its own; a past turn can be edited."""

from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.interface.answer_cards import MOST_TURNS, cards_of, message, read_turns
from steering.interface.app_state import AppState
from steering.interface.html_component import page_function

SKIP = gr.skip()


def wire_conversation(
    app: AppState, columns: gr.HTML, prompt: gr.Textbox, follow: gr.Button, begin: gr.Button, hidden: dict[str, Any]
) -> None:
    """Wire the buttons: `follow` keeps the answers, `begin` forgets them, the panel's own edit goes back.

    `hidden` are the options of gradio events that belong to the page alone.
    """

    def follow_up(answers_value: Any, request: gr.Request) -> tuple[Any, ...]:
        """Keep these answers as the conversation so far and wait for the next prompt."""
        app.runs.begin(request)  # what is still being written would bring the old answers back
        try:
            turns = read_turns(answers_value)
        except SteeringError as error:
            return message(problem=str(error)), SKIP, SKIP
        answers = {id: card["text"] for id, card in cards_of(answers_value).items() if card["text"]}
        if len(turns) >= MOST_TURNS:
            return {**answers_value, "note": f"{MOST_TURNS} turns are the most; start over."}, SKIP, SKIP
        if not answers:
            return message(note="There is no answer to follow up yet.", turns=turns), SKIP, SKIP
        turns.append({"user": str(answers_value.get("asked", "")), "answers": answers})
        return (
            message("Write what comes next; every column goes on from its own answer.", turns=turns),
            "",
            gr.update(visible=True),
        )

    def forget(request: gr.Request) -> tuple[Any, ...]:
        """Start over: no turns, no answers."""
        app.runs.begin(request)
        return message("A new conversation: write a prompt."), gr.update(visible=False)

    def edit(answers_value: Any, request: gr.Request) -> tuple[Any, ...]:
        """Back to a past turn: its words in the prompt, the turns from there on forgotten."""
        app.runs.begin(request)
        try:
            turns = read_turns(answers_value)
            place = range(len(turns))[int(answers_value["edit"])]
        except (SteeringError, LookupError, TypeError, ValueError, OverflowError):
            return SKIP, SKIP, SKIP
        earlier = turns[:place]
        panel = message("Change the prompt and send it: the conversation goes on from here.", turns=earlier)
        return panel, turns[place]["user"], gr.update(visible=bool(earlier))

    focus = page_function("focusPrompt")
    follow.click(follow_up, columns, [columns, prompt, begin], queue=False, **hidden).then(fn=None, js=focus)
    begin.click(forget, None, [columns, begin], queue=False, **hidden).then(fn=None, js=focus)
    columns.edit(edit, columns, [columns, prompt, begin], queue=False, **hidden).then(fn=None, js=focus)
