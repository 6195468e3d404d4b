"""How long each effort would take on this machine, told before anything is trained."""

import threading
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.evaluation.preference import BATCH
from steering.interface import html
from steering.interface.app_state import AppState
from steering.interface.train.settings_step import Choices, labels
from steering.pairs.dataset import Pairs
from steering.pairs.tokenization import EncodedPair, encode_pairs
from steering.training.methods.bipo.config import CURVE_PAIRS, SWEEP, BiPOSettings
from steering.training.methods.bipo.layer_sweep import FINALISTS, HELD_OUT_PAIRS, STEPS, TRAIN_PAIRS
from steering.training.methods.bipo.presets import EFFORTS
from steering.training.methods.bipo.time_estimate import Lengths, Speed, measure_speed
from steering.training.methods.bipo.train import steered_layers

ENCODED = 200
"""Of so many training pairs the lengths are counted; the others are taken to be like them."""


class Estimates:
    """Tells the time of each effort. The speed is measured once for a layer, then it is only arithmetic."""

    def __init__(self, app: AppState, choices: Choices) -> None:
        self.app, self.choices = app, choices
        self._speeds: dict[int, Speed] = {}
        self._measuring = threading.Lock()

    def tell(self, pairs: Pairs | None, given: Mapping[Any, Any]) -> Any:
        """The efforts with their times; without them where nothing is known, or a training runs just now."""
        try:
            times = self._times(pairs, given) if pairs else {}
        except (SteeringError, ValueError, OverflowError):  # what is wrong with the choices, Train will say
            times = {}
        return gr.update(choices=labels(times))

    def _times(self, pairs: Pairs, given: Mapping[Any, Any]) -> dict[str, str]:
        model, choices = self.app.model, self.choices
        efforts = {effort: BiPOSettings(**choices.settings(given, effort)) for effort in EFFORTS}
        for settings in efforts.values():
            settings.check()
        training, held_out = pairs.split(float(given[choices.holdout]), next(iter(efforts.values())).seed)
        _, encoded = encode_pairs(model, training[:ENCODED])
        watched = encode_pairs(model, held_out[:CURVE_PAIRS])[1] if held_out else []
        lengths = Lengths.of([*encoded, *watched])
        trained = tuple(islice(cycle(lengths.own[: len(encoded)]), len(training)))
        lengths = Lengths(lengths.prefix, (*trained, *lengths.own[len(encoded) :]))
        times = {}
        for effort, settings in efforts.items():
            speed = self._speed(encoded, steered_layers(model, settings.layer)[0])
            if speed is None:
                return {}
            seconds = speed.seconds(settings, lengths, len(trained))
            if settings.layer == SWEEP and watched:
                seconds += sweep_seconds(speed, lengths, len(trained))
            times[effort] = f"about {html.roughly(seconds)}"
        return times

    def _speed(self, pairs: Sequence[EncodedPair], layer: int) -> Speed | None:
        """None while a training runs: both would be slowed down, and the figure would be wrong."""
        with self._measuring:
            if layer not in self._speeds and self.app.training.acquire(blocking=False):
                try:
                    self._speeds[layer] = measure_speed(self.app.model, pairs, layer)
                finally:
                    self.app.training.release()
            return self._speeds.get(layer)


def sweep_seconds(speed: Speed, pairs: Lengths, training: int) -> float:
    """Predicted seconds of `layers.sweep_layers`."""
    tried = Lengths(pairs.prefix, pairs.own[:training][:TRAIN_PAIRS]).tokens(BATCH)
    watched = Lengths(pairs.prefix, pairs.own[training:][:HELD_OUT_PAIRS]).tokens(BATCH)
    slopes_and_steps = tried + 2 * FINALISTS * STEPS * tried / 2  # a step takes half the pairs, with both signs
    return (
        speed.setup * max(pairs.own)
        + speed.untouched * (tried + watched)
        + speed.step * slopes_and_steps
        + speed.scoring * 2 * FINALISTS * watched
    )
