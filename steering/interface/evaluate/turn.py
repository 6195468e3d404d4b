"""Long work of the Evaluate tab, such as an evaluation: one at a time for all visitors, failures told in a sentence."""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.interface import html
from steering.interface.app_state import AppState, Visit
from steering.interface.runs import Run
from steering.interface.training_queue import NobodyWaits

logger = logging.getLogger(__name__)

Update = dict[str, Any]
"""Name of a part of the tab -> what it shows."""


def in_turn(
    app: AppState, request: gr.Request | None, what: str, prepare: Callable[[Visit, Run], Iterator[Update]]
) -> Iterator[Update]:
    """Wait for the visitor's turn, then yield what the work yields; `status` tells the place in the queue.

    Args:
        what: the work's name for people, such as `evaluation`.
        prepare: called at once, so that what is wrong is told before waiting; what it returns is iterated when the
            turn comes. A SteeringError of either is shown, any other exception is logged.
    """
    run = app.training_runs.begin(request)
    try:
        if app.writes_on_gpu:
            raise SteeringError(
                f"{what.capitalize()}s do not run on this page's GPU; start the playground on a machine of your own."
            )
        visit = app.visit(request)
        work = prepare(visit, run)
        app.visitors.check_room()
        with closing(app.training.turn(visit.visitor.id, run.over)) as turn:
            for place in turn:
                if not place.place:
                    break
                yield {"status": html.note(place.words())}
            yield from work
    except NobodyWaits:
        yield {"status": html.note("Stopped before it began.")}
    except SteeringError as error:
        yield {"status": html.problem(str(error))}
    except Exception:  # a model may fail in any way; the bar must not stand still as if it went on
        logger.exception("an %s failed", what)
        yield {"status": html.problem(f"The {what} failed; the server's log says why.")}
