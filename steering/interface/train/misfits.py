"""Pairs that do not fit: those that a trained vector moves least, or the wrong way, to be flipped or dropped.

The handlers return the parts of the page that change, by name: `misfits` (the panel), `misfits_list` (HTML), `misfit`
(the choice), and after a flip or a drop those of step 1 (see `pairs_reading`).
"""

from collections.abc import Sequence
from html import escape

import gradio as gr

from steering.errors import SteeringError
from steering.evaluation.pair_margins import PairMargin, suspects
from steering.interface import html
from steering.interface.train.pairs_reading import TABLE_ROWS, report
from steering.interface.train.parts import Update
from steering.pairs.dataset import Pairs

MOST_SHOWN = 6
"""Pairs that are listed: more would be the whole of a held-out fifth."""
MOST_TEXT = 70
"""Characters of a prompt in the list."""
TRAIN_AGAIN = "Train again to see what that changes."


class Misfits:
    """The panel, laid out in the container that is open when it is made."""

    def __init__(self) -> None:
        with gr.Accordion("Pairs that do not fit", open=False, visible=False, elem_id="misfits") as self.panel:
            self.list = gr.HTML(elem_id="misfits-list", padding=False)
            with gr.Row():
                self.choice = gr.Dropdown([], label="Pair", elem_id="misfit", interactive=True, scale=3)
                self.flip = gr.Button("Flip it", size="sm", elem_id="flip-pair", min_width=90)
                self.drop = gr.Button("Drop it", size="sm", elem_id="drop-pair", min_width=90)
            self.done = gr.HTML(elem_id="misfit-done", padding=False)

    @property
    def parts(self) -> dict[str, gr.components.Component | gr.Accordion]:
        """The components by the names that updates use."""
        return {
            "misfits": self.panel,
            "misfits_list": self.list,
            "misfit": self.choice,
            "misfit_done": self.done,
        }


def shown(margins: Sequence[PairMargin], pairs: Pairs) -> Update:
    """List the pairs that the vector moves least; hide the panel where nothing was measured."""
    if not margins:
        return {"misfits": gr.update(visible=False)}
    by_line = {pair.line: pair for pair in pairs}
    worst = [margin for margin in suspects(margins) if margin.line in by_line][:MOST_SHOWN]
    rows = "".join(
        f"<tr><td>{escape(pairs.report.unit)} {margin.line}</td>"
        f"<td>{escape(_short(by_line[margin.line].prompt))}</td>"
        f"<td>{_signed(margin.up, margin.up > 0)}</td><td>{_signed(margin.down, margin.down < 0)}</td></tr>"
        for margin in worst
    )
    wrong = sum(margin.spread < 0 for margin in margins)
    told = (
        f"{wrong} of {len(margins)} held-out pairs move the wrong way" if wrong else "All held-out pairs move rightly"
    )
    note = html.note(f"{told}. Those at the top may have chosen and rejected the wrong way round.")
    head = "<th>where</th><th>prompt</th><th>margin at +1</th><th>at -1</th>"
    choices = [(f"{pairs.report.unit} {m.line}: {_short(by_line[m.line].prompt)}", m.line) for m in worst]
    return {
        "misfits": gr.update(visible=True),
        "misfits_list": f"{note}<div class='found-pairs'><table><tr>{head}</tr>{rows}</table></div>",
        "misfit": gr.update(choices=choices, value=choices[0][1] if choices else None),
        "misfit_done": "",
    }


def flipped(line: int | None, pairs: Pairs | None) -> Update:
    """Swap the two answers of a pair."""
    return _changed(line, pairs, "flipped")


def dropped(line: int | None, pairs: Pairs | None) -> Update:
    """Leave a pair out."""
    return _changed(line, pairs, "dropped")


def _changed(line: int | None, pairs: Pairs | None, how: str) -> Update:
    places = [place for place, pair in enumerate(pairs or ()) if pair.line == line]
    if pairs is None or not places:
        return {"misfit_done": html.note("That pair is not among the pairs any more.")}
    try:
        changed = pairs.flip(places) if how == "flipped" else pairs.drop({p: "dropped by hand" for p in places})
    except SteeringError as error:
        return {"misfit_done": html.problem(str(error))}
    return {
        "pairs": changed,
        "report": report(changed),
        "table": changed[:TABLE_ROWS].to_rows(),
        "misfit_done": html.note(f"{pairs.report.unit.capitalize()} {line} was {how}. {TRAIN_AGAIN}"),
    }


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 1] + "…"


def _signed(value: float, right: bool) -> str:
    return f"<span class='{'towards' if right else 'away'}'>{value:+.1f}</span>"
