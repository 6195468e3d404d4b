"""How far an evaluation is."""

from collections.abc import Mapping
from dataclasses import dataclass

from steering.evaluation.answers import Arm
from steering.evaluation.judges import JudgeCard
from steering.evaluation.points import Point
from steering.evaluation.summary import Summary


@dataclass(frozen=True)
class EvaluationProgress:
    """How far an evaluation is.

    Attributes:
        stage: `judge`, `curve`, `finer`, `baselines` or `done`; doing: what is under way, in words.
        share: of the answers that are written, 0 to 1; seconds: since it began; seconds_left: None before there is one.
        judge: None before it is ready.
        points: of all arms so far.
        summary: what follows from them; None before the coarse curve is there.
        stopped: whether it was stopped; it can go on from here.
    """

    stage: str
    doing: str
    share: float
    seconds: float
    seconds_left: float | None
    judge: JudgeCard | None
    points: Mapping[Arm, Point]
    summary: Summary | None = None
    stopped: bool = False
