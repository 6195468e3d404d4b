"""How well a vector does while it is trained, by what the model writes: behavior times fluency on a few prompts.

The held-out loss judges a vector by the log-probability of given answers, which goes on falling where the text has
broken down. This is the other way to choose the best vector of a run.
"""

from collections.abc import Callable, Mapping

import numpy as np
from torch import Tensor

from steering.errors import SteeringError
from steering.evaluation.answers import Arm
from steering.evaluation.baselines import Way
from steering.evaluation.judges import judge_named
from steering.evaluation.judges.judge import JudgeContext
from steering.evaluation.prompts import distinct_prompts, evenly
from steering.evaluation.settings import EvaluationSettings
from steering.evaluation.writer import Writer
from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs
from steering.training.registry import RunContext
from steering.vectors.vector import SteeringVector

PROMPTS = 8
"""Answers at +1 and -1 of so many, each with its untouched twin, are one decode batch."""
NEW_TOKENS = 24
"""As long as those by which random directions are judged; 3 seconds a measurement on two cores, bundled model."""


class WrittenEffect:
    """Scores vectors of one training run.

    Args:
        pairs: trained on; the offline judge learns from them.
        held_out: its prompts are answered.
        should_stop: asked at every token.

    Raises SteeringError if the judge is not accurate enough, or there are fewer than two held-out prompts.
    """

    def __init__(
        self, model: LanguageModel, pairs: Pairs, held_out: Pairs, should_stop: Callable[[], bool] = lambda: False
    ) -> None:
        prompts = evenly(distinct_prompts(held_out), PROMPTS)
        if len(prompts) < 2:
            raise SteeringError("Fewer than two prompts are held out, too few to judge by what is written.")
        self._settings = EvaluationSettings(tuple(prompts), (), (), NEW_TOKENS, baselines=())
        self._model, self._should_stop = model, should_stop
        self._judge = judge_named("offline").make(JudgeContext(model, pairs, "", NEW_TOKENS, should_stop=should_stop))

    def score(self, vector: SteeringVector) -> float | None:
        """Return the mean of behavior times fluency over answers at +1 and, of the opposite behavior, at -1.

        From 0 to 1, the higher the better; None if stopped.
        """
        writer = Writer(self._model, self._settings, self._judge, None, self._should_stop)
        arms = [Arm("vector", sign) for sign in (1.0, -1.0)]
        if not writer.write([Way(arm, vector) for arm in arms], range(len(self._settings.prompts))):
            return None
        products = []
        for arm in arms:
            for answer in writer.of(arm):
                if answer.behavior is not None and answer.fluency is not None:
                    wanted = answer.behavior if arm.multiplier > 0 else 1 - answer.behavior
                    products.append(wanted * answer.fluency)
        return float(np.mean(products)) if products else 0.0


class SharedEffect:
    """A `WrittenEffect` of a run by several processes: the main one writes, and all of them learn the score.

    Every process must make the same calls.

    Attributes:
        works: whether there is a judge; note: a sentence for the user if there is none, else empty.
    """

    def __init__(self, model: LanguageModel, pairs: Pairs, held_out: Pairs, context: RunContext) -> None:
        self._processes = context.processes
        self._effect: WrittenEffect | None = None

        def make() -> str:
            try:
                if self._processes.is_main:
                    self._effect = WrittenEffect(model, pairs, held_out, context.should_stop)
            except SteeringError as error:
                return f"The best vector is chosen by the held-out loss: {error}"
            return ""

        self.note = str(self._processes.agreed(self._processes.together(make)))
        self.works = not self.note

    def score(self, vectors: Mapping[int, Tensor], token_scope: str) -> float | None:
        """Score the vectors, layer -> v [hidden_size], see `WrittenEffect.score`."""

        def write() -> float | None:
            directions = {k: v.detach().float().cpu() for k, v in vectors.items()}
            if self._effect is None:
                return None
            return self._effect.score(SteeringVector(directions, token_scope=token_scope))

        return self._processes.agreed(self._processes.together(write))
