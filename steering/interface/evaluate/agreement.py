"""Whether a person agrees with the judge: a thumb for each answer, and how often both say the same."""

from typing import Any

import gradio as gr
import pandas as pd

from steering.interface import html

UNCHOSEN = "Choose a row of the table."


class Agreement:
    """The panel below the table of answers."""

    def build(self) -> None:
        """Lay it out in the container that is open."""
        self.text = gr.HTML(html.note(UNCHOSEN), elem_id="chosen-answer")
        with gr.Row():
            self.shows = gr.Button("It shows the behavior", interactive=False, elem_id="thumb-up")
            self.lacks = gr.Button("It does not", interactive=False, elem_id="thumb-down")
        self.count = gr.HTML(elem_id="agreement")
        self.votes = gr.State({})
        self.chosen = gr.State(None)

    @property
    def outputs(self) -> list[Any]:
        """What `forget` sets."""
        return [self.text, self.shows, self.lacks, self.count, self.votes, self.chosen]

    def forget(self) -> list[Any]:
        """Begin anew: there are other answers."""
        off = gr.update(interactive=False)
        return [html.note(UNCHOSEN), off, off, "", {}, None]

    def wire(self, answers: gr.Dataframe) -> None:
        """React to a chosen row and to the thumbs."""
        hidden: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
        answers.select(self._choose, answers, [self.text, self.shows, self.lacks, self.chosen], **hidden)
        for button, shows in ((self.shows, True), (self.lacks, False)):

            def vote(chosen: Any, votes: dict[Any, Any], shows: bool = shows) -> tuple[dict[Any, Any], str]:
                return self._voted(chosen, votes, shows=shows)

            button.click(vote, [self.chosen, self.votes], [self.votes, self.count], **hidden)

    @staticmethod
    def _choose(answers: pd.DataFrame, event: gr.SelectData) -> tuple[str, Any, Any, Any]:
        row = [str(value) for value in event.row_value] if event.row_value else []
        if len(row) < 6:
            return html.note(UNCHOSEN), gr.update(), gr.update(), None
        score = row[0]
        text = html.note(f"Asked: {row[4]}") + html.note(row[5])
        on = gr.update(interactive=True)
        return text, on, on, (row[1], row[2], row[4], score)

    @staticmethod
    def _voted(chosen: Any, votes: dict[Any, Any], *, shows: bool) -> tuple[dict[Any, Any], str]:
        if not chosen:
            return votes, html.note(UNCHOSEN)
        who, multiplier, prompt, score = chosen
        try:
            judged = float(score) > 0.5
        except ValueError:
            return votes, html.note("The judge gave this answer no score.")
        votes = {**votes, (who, multiplier, prompt): judged == shows}
        same = sum(votes.values())
        return votes, html.note(f"You and the judge agree on {same} of {len(votes)} answers.")
