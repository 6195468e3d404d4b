"""The measures that there are: ours, and those that other packages add.

A measure gives one number, or several named ones, for each multiplier of a vector. Adding one takes one file with a
function and `MEASURES`, which names it; another package declares an entry point:

    [project.entry-points."steering.measures"]
    mine = "my_package.my_measure:MEASURE"
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module

from steering.errors import SteeringError
from steering.evaluation.judges import JudgeCard
from steering.evaluation.preference import PreferenceResult, evaluate
from steering.evaluation.prompts import distinct_prompts, evenly
from steering.evaluation.run import Evaluation
from steering.evaluation.settings import PROMPTS, EvaluationSettings
from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs
from steering.plugins import with_plugins
from steering.runtime.distributed import ALONE, Processes
from steering.vectors.action import check_multiplier
from steering.vectors.vector import SteeringVector

ENTRY_POINTS = "steering.measures"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MeasureContext:
    """What is measured, and results that several measures share.

    Attributes:
        model: the model that is steered.
        vector: the vector that is measured.
        pairs: preference pairs that it was not trained on.
        multipliers: at which it is measured, each a number from -100 to 100.
        on_progress: hears (batches done, batches in all).
        processes: those that measure together, each making the same calls.
        settings: of what is generated and judged; by default the pairs' first prompts and the offline judge.
    """

    model: LanguageModel
    vector: SteeringVector
    pairs: Pairs
    multipliers: Sequence[float]
    on_progress: Callable[[int, int], None] | None = None
    processes: Processes = ALONE
    settings: EvaluationSettings | None = None

    @cached_property
    def generated(self) -> Evaluation:
        """Answers to the prompts at every multiplier, judged; written once for all measures of generated text."""
        settings = self.settings or EvaluationSettings(tuple(evenly(distinct_prompts(self.pairs), PROMPTS)))
        evaluation = Evaluation(self.model, self.vector, self.pairs, settings.only(self.multipliers))
        for progress in evaluation.run():
            if self.on_progress and progress.stage != "judge":
                self.on_progress(round(100 * progress.share), 100)
        return evaluation

    @property
    def judge(self) -> JudgeCard | None:
        """Who judged what was generated; None if nothing was."""
        evaluation = self.__dict__.get("generated")
        return evaluation.judge.card if evaluation and evaluation.judge else None

    @cached_property
    def preference(self) -> list[PreferenceResult]:
        """Accuracy and margin at each multiplier, in order; computed once for both measures."""
        return evaluate(
            self.model,
            self.vector,
            self.pairs,
            self.multipliers,
            on_progress=self.on_progress,
            processes=self.processes,
        )


Run = Callable[[MeasureContext], Sequence[float | Mapping[str, float]]]
"""Measure at each multiplier of the context, in order; numbers that are not defined there are NaN."""


@dataclass(frozen=True)
class Measure:
    """One way to measure a vector.

    Attributes:
        name: key of its number in results and files; lower-case. Measures of several numbers name each themselves.
        label: for tables and charts.
        description: one or two plain sentences for the page.
        unit: of the number, such as `nats`; empty for a share.
        run: measures.
    """

    name: str
    label: str
    description: str
    unit: str
    run: Run


OURS = ("preference", "generated", "dose", "utility")
"""Modules of this folder, each with `MEASURES`."""
DEFAULT_MEASURES = ("preference_accuracy", "preference_margin")


@cache
def measures() -> dict[str, Measure]:
    """List all measures by name, ours first; one of another package that cannot be used is logged and left out."""
    ours = [each for module in OURS for each in import_module(f"steering.evaluation.measures.{module}").MEASURES]
    return with_plugins(ours, ENTRY_POINTS, Measure)


def measure_named(name: str) -> Measure:
    """Return the measure of this name; raise SteeringError, listing those that there are, for another."""
    known = measures()
    if name not in known:
        raise SteeringError(f"There is no measure {name!r}; choose one of: {', '.join(known)}.")
    return known[name]


def measure(context: MeasureContext, names: Sequence[str] = DEFAULT_MEASURES) -> list[dict[str, float]]:
    """Measure a vector at each multiplier.

    Returns:
        One row a multiplier, in order: `multiplier`, and the numbers of each measure under its name or their own.

    Raises:
        SteeringError: an unknown measure, a multiplier out of range, a vector that does not fit the model, or two
            measures that give a number of one name.

    Example:
        >>> measure(MeasureContext(model, vector, pairs, [-1.0, 1.0]))
        [{'multiplier': -1.0, 'preference_accuracy': 0.2, 'preference_margin': -3.1},
         {'multiplier': 1.0, 'preference_accuracy': 0.9, 'preference_margin': 4.2}]
    """
    chosen = [measure_named(name) for name in dict.fromkeys(names)]
    rows = [{"multiplier": check_multiplier(multiplier)} for multiplier in context.multipliers]
    for each in chosen:
        for row, value in zip(rows, each.run(context), strict=True):
            numbers = value if isinstance(value, Mapping) else {each.name: value}
            if repeated := row.keys() & numbers.keys():
                raise SteeringError(f"Measure {each.name!r} gives {min(repeated)!r}, which another one gives already.")
            row.update(numbers)
    return rows
