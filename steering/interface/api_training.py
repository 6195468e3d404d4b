"""Training through the API: what the endpoints `train` and `list_methods` do."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.interface.api_access import address_of, check_may_train
from steering.interface.app_state import AppState
from steering.interface.runs import streams_of
from steering.interface.training_queue import TrainingStatus
from steering.limits import Limits
from steering.pairs.dataset import Pairs, pairs_of_records
from steering.pairs.tokenization import readable_pairs
from steering.training.config import SettingSpec, one_or_all
from steering.training.registry import Method, method_named, methods
from steering.vectors.entry import Entry
from steering.vectors.library import Library
from steering.vectors.vector import SteeringVector

HOLDOUT = 0.2
"""Share of the pairs to measure on, as the command line's default."""
MOST_PAIRS = 5000
"""What a request may bring: some 5 MB, and hours of training on a laptop."""
LONGEST_NAME, LONGEST_BEHAVIOR = 80, 200
"""Characters; what is longer is cut."""


def described_methods() -> list[dict[str, Any]]:
    """Describe all methods, with their presets and settings, as JSON."""
    return [_described(method) for method in methods().values()]


def _described(method: Method) -> dict[str, Any]:
    presets = [
        {"name": name, "label": preset.label, "hint": preset.hint, "settings": dict(preset.settings)}
        for name, preset in method.presets.items()
    ]
    settings = [_described_setting(spec) for spec in method.config_class.specs()]
    return {
        "name": method.name,
        "label": method.label,
        "description": method.description,
        "presets": presets,
        "settings": settings,
    }


def _described_setting(spec: SettingSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "label": spec.label,
        "help": spec.help,
        "unit": spec.unit,
        "type": spec.kind,
        "range": spec.range,
        "default": spec.default,
    }


@dataclass(frozen=True)
class TrainingRequest:
    """What a call of `train` asks for, unchecked; see the endpoint's documentation."""

    pairs: list[dict[str, str]]
    name: str
    behavior: str
    effort: str
    seed: int
    method: str
    settings: Mapping[str, Any] | None


def train_for(app: AppState, wanted: TrainingRequest, request: gr.Request | None) -> Iterator[dict[str, Any]]:
    """Train on the rows, put the vector on the caller's shelf and yield what the endpoint's documentation promises.

    Raises gr.Error, one sentence, for what cannot be trained. It ends when nobody listens any more.
    """
    with plain_errors():
        gone = app.listeners.watch(streams_of(request))
        check_may_train(app.visitors, request)
        visit = app.program_visit(request)
        pairs = pairs_of_request(wanted.pairs, app.limits)
        chosen = method_named(str(wanted.method))
        if not isinstance(wanted.settings, Mapping | None):
            raise SteeringError("settings is a mapping of names to values, such as {'layer': 12}.")
        effort = str(wanted.effort) if wanted.effort else chosen.default_preset
        given = {"seed": wanted.seed, **chosen.preset_settings(effort, app.limits), **(wanted.settings or {})}
        config = chosen.config(given)
        if not str(wanted.name).strip():
            raise SteeringError("The vector needs a name.")
        app.visitors.check_room()
        shelf = _ShelfPlace(visit.library)
        with closing(app.training.turn(address_of(request) or visit.visitor.id, gone)) as turn:
            for place in turn:
                if not place.place:
                    break
                yield {"waiting": place.place, "seconds": None if place.seconds is None else round(place.seconds, 1)}
            training, held_out = readable_pairs(app.model, pairs).split(HOLDOUT, config.seed)
            reports = app.run_training(
                app.model,
                training,
                held_out,
                chosen.name,
                name=str(wanted.name).strip()[:LONGEST_NAME],
                behavior=str(wanted.behavior).strip()[:LONGEST_BEHAVIOR],
                save=shelf.save,
                should_stop=gone,
                limits=app.limits,
                **given,
            )
            with closing(reports):
                for progress in reports:
                    if progress.stage == "training":
                        app.training.status = TrainingStatus.of(progress)
                        yield {
                            "step": progress.step,
                            "steps": progress.total_steps,
                            "loss": progress.loss,
                            "seconds_left": round(progress.seconds_left or 0.0, 1),
                        }
                    if gone():
                        return
    assert shelf.entry and progress.vector  # `done` came, so it was saved
    yield {
        "vector": shelf.entry.slug,
        "layer": one_or_all(progress.vector.layers),
        "norm": round(progress.vector.norm, 3),
        "steps": progress.step,
        "seconds": round(progress.seconds, 1),
        **({"note": progress.note} if progress.note else {}),
    }


class _ShelfPlace:
    """Where a run saves its vector: a new place on the shelf at first, the same again once it was measured."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self.entry: Entry | None = None

    def save(self, vector: SteeringVector) -> None:
        """Add the vector to the shelf, or write it again in its place there."""
        if self.entry is None:
            self.entry = self._library.add(vector)
        else:
            replace(vector, name=self.entry.vector.name).save(self.entry.path)


def pairs_of_request(rows: list[dict[str, str]], limits: Limits) -> Pairs:
    """Check the pairs that a request brings; SteeringError, naming the pair, for one that is unsound."""
    most = min(MOST_PAIRS, limits.pairs or MOST_PAIRS)
    if not isinstance(rows, list) or not 1 <= len(rows) <= most:
        raise SteeringError(f"Give 1 to {most:,} pairs, each with prompt, chosen and rejected.")
    pairs = pairs_of_records(rows, "the API")
    if unsound := [each for each in pairs.report.dropped if not each.reason.startswith("duplicate")]:
        raise SteeringError(f"Pair {unsound[0].line} is unsound: {unsound[0].reason}; correct it or leave it out.")
    return pairs


@contextmanager
def plain_errors() -> Iterator[None]:
    """Pass what went wrong on as one sentence for the caller, without a traceback in the log."""
    try:
        yield
    except SteeringError as error:
        raise gr.Error(str(error), print_exception=False) from error
