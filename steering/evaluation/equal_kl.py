"""At which multiplier another vector has a given KL divergence, so that two vectors are compared at equal cost."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from steering.evaluation.answers import Answer, Arm
from steering.evaluation.baselines import Way
from steering.evaluation.settings import EvaluationSettings
from steering.evaluation.writer import Writer
from steering.models.loading import LanguageModel
from steering.vectors.vector import SteeringVector


def multiplier_at(
    wanted: float,
    model: LanguageModel,
    vector: SteeringVector,
    start: float,
    settings: EvaluationSettings,
    prompts: Sequence[int],
    should_stop: Callable[[], bool],
) -> float:
    """Find the multiplier, of the sign of `start`, at which a vector's mean KL divergence is `wanted`, in nats a token.

    Args:
        start: where the search begins, not 0.
        prompts: numbers of the settings' prompts that are answered at each trial.
    """
    sign = math.copysign(1.0, start)

    def measure(size: float) -> float:
        trial, arm = Writer(model, settings, None, None, should_stop), Arm("trial", sign * size)
        return mean_kl(trial.of(arm)) if trial.write([Way(arm, vector)], prompts) else 0.0

    return sign * scaled_to(wanted, measure, abs(start))


def mean_kl(answers: Sequence[Answer]) -> float:
    """Return the mean over answers of their mean KL divergence, in nats a token; 0 where nothing was steered."""
    known = [answer.mean_kl for answer in answers if answer.mean_kl is not None]
    return float(np.mean(known)) if known else 0.0


def scaled_to(wanted: float, measure: Callable[[float], float], start: float, rounds: int = 4) -> float:
    """Find the multiplier at which a measure that grows with it, such as the KL divergence, is `wanted`.

    Near 0 a KL divergence grows with the square of the multiplier, so the exponent begins at 2 and then follows what
    was measured (secant on a log-log scale). It stops within 10 % of what is wanted.

    Returns the best multiplier found; `start` if the measure is 0 there.
    """
    points: list[tuple[float, float]] = []
    multiplier = start
    for _ in range(rounds):
        value = measure(multiplier)
        if value <= 0 or wanted <= 0:
            return start
        points.append((math.log(multiplier), math.log(value)))
        if abs(math.log(value / wanted)) < math.log(1.1):
            break
        slope = 2.0
        if len(points) > 1 and points[-1][0] != points[-2][0]:
            slope = (points[-1][1] - points[-2][1]) / (points[-1][0] - points[-2][0])
            slope = min(4.0, max(0.5, slope))
        step = (math.log(wanted) - points[-1][1]) / slope
        multiplier = math.exp(points[-1][0] + min(1.5, max(-1.5, step)))
    return math.exp(min(points, key=lambda point: abs(point[1] - math.log(wanted)))[0])
