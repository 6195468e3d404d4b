"""How far a judge agrees with people: 120 generated answers labelled by hand, which ship with the project.

`assets/evaluation/labelled.csv` has 20 answers of the bundled model for each of six behaviors, steered at multipliers
from -2 to 2. They were labelled without the multiplier in sight: `shows` the behavior, its `opposite`, or `neither`.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass

from steering import paths
from steering.evaluation.judges.judge import JudgeContext, JudgeKind
from steering.evaluation.reading import read_texts
from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs, read_pairs

LONGEST_ANSWER = 40
"""Tokens of the labelled answers."""


@dataclass(frozen=True)
class LabelledAnswer:
    """An answer and what a person says of it: `shows`, `opposite` or `neither`."""

    behavior: str
    prompt: str
    answer: str
    label: str


@dataclass(frozen=True)
class AgreementResult:
    """How a judge does on the answers of one behavior.

    Attributes:
        behavior: name of its example set.
        same: answers on which judge and person agree, of `clear`, those that show the behavior or its opposite.
        accuracy: of the judge on the pairs, see `JudgeCard`.
    """

    behavior: str
    same: int
    clear: int
    accuracy: float | None


def labelled_answers() -> list[LabelledAnswer]:
    """Read the labelled answers."""
    with (paths.shipped("assets") / "evaluation" / "labelled.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [LabelledAnswer(row["behavior"], row["prompt"], row["answer"], row["label"]) for row in rows]


def agreement(kind: JudgeKind, model: LanguageModel) -> Iterator[AgreementResult]:
    """Make the judge for each behavior from its example set, without the prompts labelled, and compare."""
    labelled = labelled_answers()
    for behavior in dict.fromkeys(each.behavior for each in labelled):
        own = [each for each in labelled if each.behavior == behavior]
        prompts = {each.prompt for each in own}
        example_set = read_pairs(paths.shipped("assets") / "examples" / f"{behavior}.csv")
        pairs = Pairs.of(pair for pair in example_set if pair.prompt not in prompts)
        judge = kind.make(JudgeContext(model, pairs, behavior, LONGEST_ANSWER))
        texts = [each.answer for each in own]
        readings = read_texts(model, texts, max_tokens=LONGEST_ANSWER)
        assert readings is not None  # nobody stops it
        verdicts = judge.verdicts([each.prompt for each in own], texts, readings)
        scored = [
            (verdict.behavior > 0.5) == (each.label == "shows")
            for each, verdict in zip(own, verdicts, strict=True)
            if each.label != "neither" and verdict.behavior is not None
        ]
        yield AgreementResult(behavior, sum(scored), len(scored), judge.card.accuracy)
