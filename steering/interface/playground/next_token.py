"""The next word while a slider is dragged: bars of the untouched and the steered model, and a forecast in words."""

import json
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.generation.next_token import NextToken
from steering.interface.answer_cards import history, read_turns
from steering.interface.app_state import AppState
from steering.interface.html_component import widget
from steering.interface.playground.controls import LONGEST_PROMPT
from steering.interface.playground.sliders import setting_of
from steering.vectors.vector import check_multiplier

SHOWN = 10
UNREADABLE = "The page asked something unreadable; reload it."
UNMOVED = 0.005  # nats; what no eye sees in the bars


def next_word_panel(app: AppState, **options: Any) -> gr.HTML:
    """The panel; it listens to the sliders by itself and asks this server."""

    def next_word(request: str) -> dict[str, Any]:
        """{"forecast": one line, "chances": [{label, text, untouched, steered}]} for what the browser wants to know."""
        try:
            return _answer(app, json.loads(request))
        except SteeringError as error:
            return {"forecast": str(error), "chances": []}
        except (ValueError, TypeError, RecursionError):  # of reading it
            return {"forecast": UNREADABLE, "chances": []}

    return widget({}, "next-word", server_functions=[next_word], **options)


def _answer(app: AppState, wanted: Any) -> dict[str, Any]:
    try:
        prompt, system = str(wanted["prompt"])[:LONGEST_PROMPT], str(wanted["system"])[:LONGEST_PROMPT]
        multipliers = {str(slug): check_multiplier(m) for slug, m in wanted["multipliers"].items()}
        weights = "full" if wanted.get("full") else "float16"
    except (KeyError, TypeError, AttributeError) as error:
        raise SteeringError(UNREADABLE) from error
    setting = setting_of(app, multipliers)
    before = history(read_turns(wanted), "setting")
    found = app.preview(weights).next_token(prompt, setting, system=system, before=before, top=SHOWN)
    chances = _shown(found)
    return {
        "forecast": forecast(found) if multipliers else "Drag a slider: the first word of the answer moves with it.",
        "chances": chances,
    }


def _shown(found: NextToken) -> list[dict[str, Any]]:
    """The tokens most probable in either model. In the untouched model's order, so that bars do not jump about."""
    either = {chance.text: chance for chance in (*found.baseline, *found.steered)}
    most = sorted(either.values(), key=lambda chance: -max(chance.untouched, chance.steered))[:SHOWN]
    return [
        {"label": label(c.text), "text": c.text, "untouched": round(c.untouched, 5), "steered": round(c.steered, 5)}
        for c in sorted(most, key=lambda chance: -chance.untouched)
    ]


def forecast(found: NextToken) -> str:
    """Where the setting pushes the first word: `Oh from 1 % to 34 %; I from 62 % to 14 %.`"""
    either = {chance.text: chance for chance in (*found.baseline, *found.steered)}.values()
    if found.kl < UNMOVED:
        return "This setting hardly moves the first word."
    up = max(either, key=lambda chance: chance.steered - chance.untouched)
    down = min(either, key=lambda chance: chance.steered - chance.untouched)
    parts = [
        f"“{label(c.text)}” {verb} from {_percent(c.untouched)} to {_percent(c.steered)}"
        for c, verb, moved in ((up, "rises", up.steered > up.untouched), (down, "falls", down.steered < down.untouched))
        if moved
    ]
    how_far = "a little" if found.kl < 0.1 else "clearly" if found.kl < 1 else "far"
    return f"The first word moves {how_far}: {', '.join(parts)}."


def label(token: str) -> str:
    """A token as a reader sees it: an invisible one is named."""
    return token.strip() or {"": "(end)", "\n": "(new line)", "\n\n": "(new line)"}.get(token, "(space)")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.1g} %" if share >= 0.001 else "under 0.1 %"
