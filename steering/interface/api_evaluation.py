"""Evaluation through the API: what the endpoint `evaluate` does."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.evaluation.settings import EvaluationSettings
from steering.interface.api_access import address_of, check_may_train
from steering.interface.api_training import pairs_of_request, plain_errors
from steering.interface.app_state import AppState
from steering.interface.runs import streams_of
from steering.pairs.dataset import Pairs
from steering.pairs.tokenization import readable_pairs
from steering.training.pipeline import Deadline
from steering.training.vector_report import evaluation_of, prompts_for
from steering.vectors.action import check_multiplier
from steering.vectors.vector import SteeringVector

MOST_PROMPTS = 60


@dataclass(frozen=True)
class EvaluationRequest:
    """What a call of `evaluate` asks for, unchecked; see the endpoint's documentation."""

    vector: str
    pairs: list[dict[str, str]]
    prompts: list[str] | None
    multipliers: list[float] | None
    judge: str
    baselines: list[str] | None


def evaluate_for(app: AppState, wanted: EvaluationRequest, request: gr.Request | None) -> Iterator[dict[str, Any]]:
    """Evaluate a vector of the caller's shelf and yield what the endpoint's documentation promises.

    Raises gr.Error, one sentence, for what cannot be evaluated. It ends when nobody listens any more.
    """
    with plain_errors():
        gone = app.listeners.watch(streams_of(request))
        check_may_train(app.visitors, request)
        if app.writes_on_gpu:
            raise SteeringError("Evaluations do not run on this page's GPU.")
        visit = app.program_visit(request)
        found = visit.library.get(str(wanted.vector), files=False)
        read = readable_pairs(app.model, pairs_of_request(wanted.pairs, app.limits))
        settings = _settings(wanted, found, read)
        with closing(app.training.turn(address_of(request) or visit.visitor.id, gone)) as turn:
            for place in turn:
                if not place.place:
                    break
                yield {"waiting": place.place, "seconds": None if place.seconds is None else round(place.seconds, 1)}
            deadline = Deadline(gone, app.limits.training_seconds)
            should_stop = app.in_use.until_changed(deadline)
            evaluation = evaluation_of(app.model, found, read, settings, should_stop=should_stop)
            with closing(evaluation.run()) as reports:
                for progress in reports:
                    yield {
                        "share": round(progress.share, 3),
                        "doing": progress.doing,
                        "seconds_left": round(progress.seconds_left or 0.0, 1),
                    }
    yield {
        "vector": str(wanted.vector),
        "judge": progress.judge.as_json() if progress.judge else None,
        "points": [point.as_json() for point in progress.points.values()],
        "summary": progress.summary.as_json() if progress.summary else None,
        "seconds": round(progress.seconds, 1),
        "complete": not progress.stopped,
    }


def _settings(wanted: EvaluationRequest, vector: SteeringVector, pairs: Pairs) -> EvaluationSettings:
    """Make settings of a request; SteeringError for numbers or names that cannot be."""
    prompts = [str(prompt).strip() for prompt in wanted.prompts or [] if str(prompt).strip()][:MOST_PROMPTS]
    given: dict[str, Any] = {"judge": str(wanted.judge)}
    if wanted.multipliers:
        given |= {"multipliers": tuple(check_multiplier(m) for m in wanted.multipliers if m), "finer": ()}
    if wanted.baselines is not None:
        given["baselines"] = tuple(str(name) for name in wanted.baselines)
    return EvaluationSettings(tuple(prompts or prompts_for(vector, pairs, "pairs")), **given)
