"""The next token while a slider is dragged: bars of the untouched and the steered model, and a forecast in words."""

import json
import logging
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.generation.next_token import NextToken
from steering.interface.answer_cards import history, read_turns
from steering.interface.app_state import AppState, Visit
from steering.interface.html_component import widget
from steering.interface.playground.controls import LONGEST_PROMPT
from steering.interface.playground.sliders import fitting, is_stale
from steering.vectors.action import check_multiplier

logger = logging.getLogger(__name__)

MOST_BARS = 10
UNREADABLE = "The page asked something unreadable; reload it."
DRAG = "Drag a slider: the first word of the answer moves with it."
NO_SLIDERS = "What the model would write first; there is no slider for it yet."
HARDLY, A_LITTLE, CLEARLY = 0.005, 0.1, 1.0
"""KL divergences in nats up to which a setting is said to move the first word hardly, a little, clearly: by eye, from
the bars of the shipped vectors."""


def next_token_panel(app: AppState, **options: Any) -> gr.HTML:
    """Make the panel; its script listens to the sliders and sends requests to this server by itself."""

    def next_token(request: str) -> dict[str, Any]:
        """Answer a request, JSON of {prompt, system, multipliers, turns, full, ticket}.

        Returns {"forecast": one line, or what is wrong, "chances": [{label, text, untouched, steered}]}.
        """
        try:
            asked = json.loads(request)
            if not isinstance(asked, dict):
                raise SteeringError(UNREADABLE)
            return _answer(app.visit_with_ticket(asked.get("ticket")), asked)
        except SteeringError as error:
            return {"forecast": str(error), "chances": []}
        except (ValueError, TypeError, RecursionError) as error:  # of reading it
            logger.info("A request for the next token could not be read: %s", error)
            return {"forecast": UNREADABLE, "chances": []}

    return widget({}, "next-token", server_functions=[next_token], **options)


def _answer(visit: Visit, request: dict[str, Any]) -> dict[str, Any]:
    try:
        prompt, system = str(request["prompt"])[:LONGEST_PROMPT], str(request["system"])[:LONGEST_PROMPT]
        multipliers = {str(slug): check_multiplier(m) for slug, m in request["multipliers"].items()}
        weights = "full" if request.get("full") else "float16"
    except (KeyError, TypeError, AttributeError) as error:
        raise SteeringError(UNREADABLE) from error
    if is_stale(visit.app, request):
        raise SteeringError(f"The model was changed to {visit.model.name}: press Generate, or reload the page.")
    setting = visit.library.setting(multipliers)
    before = history(read_turns(request), "setting")
    result = visit.app.preview(weights).next_token(prompt, setting, system=system, before=before, top=MOST_BARS)
    return {
        "forecast": forecast(result) if multipliers else DRAG if fitting(visit) else NO_SLIDERS,
        "chances": _bars(result),
    }


def _bars(result: NextToken) -> list[dict[str, Any]]:
    """Return the tokens most probable in either model, in the untouched model's order so that bars stay in place."""
    either = {chance.text: chance for chance in (*result.baseline, *result.steered)}
    most = sorted(either.values(), key=lambda chance: -max(chance.untouched, chance.steered))[:MOST_BARS]
    return [
        {"label": label(c.text), "text": c.text, "untouched": round(c.untouched, 5), "steered": round(c.steered, 5)}
        for c in sorted(most, key=lambda chance: -chance.untouched)
    ]


def forecast(result: NextToken) -> str:
    """Say which first words the setting moves most.

    Such as: `The first word moves far: “Oh” rises from 1 % to 34 %, “I” falls from 62 % to 14 %.`
    """
    either = {chance.text: chance for chance in (*result.baseline, *result.steered)}.values()
    if result.kl < HARDLY:
        return "This setting hardly moves the first word."
    up = max(either, key=lambda chance: chance.steered - chance.untouched)
    down = min(either, key=lambda chance: chance.steered - chance.untouched)
    parts = [
        f"“{label(c.text)}” {verb} from {_percent(c.untouched)} to {_percent(c.steered)}"
        for c, verb, moved in ((up, "rises", up.steered > up.untouched), (down, "falls", down.steered < down.untouched))
        if moved
    ]
    how_far = "a little" if result.kl < A_LITTLE else "clearly" if result.kl < CLEARLY else "far"
    return f"The first word moves {how_far}: {', '.join(parts)}."


def label(token: str) -> str:
    """Write a token as a reader sees it: an invisible one is named."""
    return token.strip() or {"": "(end)", "\n": "(new line)", "\n\n": "(new line)"}.get(token, "(space)")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.1g} %" if share >= 0.001 else "under 0.1 %"
