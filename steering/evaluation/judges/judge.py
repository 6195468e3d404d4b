"""What a judge is: it reads a text and says how much of the behavior it shows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from steering.errors import SteeringError

if TYPE_CHECKING:  # listing the judges, as `steering evaluate --help` does, must not wait for torch
    from steering.evaluation.reading import Readings
    from steering.models.loading import LanguageModel
    from steering.pairs.dataset import Pairs

LEAST_ACCURACY = 0.75
"""Of a judge on pairs that it was not fitted on; a worse one gives no verdicts. A coin has 0.5."""


class JudgeRefused(SteeringError):
    """A judge that is not accurate enough on these pairs to say anything."""


@dataclass(frozen=True)
class JudgeCard:
    """What must stand beside every verdict.

    Attributes:
        name: of the judge, such as `offline`.
        accuracy: share of the pairs' answers, not seen in fitting, that it puts on the right side; None if not
            measured.
        answers: how many answers that was measured on.
        notes: sentences on what to mind, such as that answer length alone tells the pairs apart.
    """

    name: str
    accuracy: float | None
    answers: int = 0
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the attributes by name."""
        return {"name": self.name, "accuracy": self.accuracy, "answers": self.answers, "notes": list(self.notes)}


@dataclass(frozen=True)
class Verdict:
    """What a judge says of one text; None where it gave no usable answer.

    Attributes:
        behavior: how much of the behavior it shows, from 0 (its opposite) to 1.
        relevance, fluency: from 0 to 1, by judges that rate them, too.
        problem: why there is no answer; else empty.
    """

    behavior: float | None
    relevance: float | None = None
    fluency: float | None = None
    problem: str = ""


class Judge(Protocol):
    """One judge, ready to judge one behavior."""

    @property
    def card(self) -> JudgeCard:
        """Its name and how far it can be trusted."""

    def verdicts(
        self,
        prompts: Sequence[str],
        texts: Sequence[str],
        readings: "Readings",
        should_stop: Callable[[], bool] = lambda: False,
    ) -> list[Verdict]:
        """Judge each text, in order; if stopped, the verdicts that are missing say so.

        Args:
            prompts: what each text answers.
            readings: what the untouched model makes of the texts, see `evaluation.reading`.
        """


@dataclass(frozen=True)
class JudgeContext:
    """What a judge may be made from.

    Attributes:
        model: the untouched model.
        pairs: preference pairs that show the behavior.
        behavior: in words.
        max_tokens: of the texts that will be judged.
        options: of the judge, such as an endpoint's `url` and `model`.
        should_stop: asked now and then; a judge that is being made gives up with `SteeringError`.
    """

    model: "LanguageModel"
    pairs: "Pairs"
    behavior: str
    max_tokens: int
    options: dict[str, str] = field(default_factory=dict)
    should_stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class JudgeKind:
    """One way to judge.

    Attributes:
        name: on the command line and in files; lower-case.
        label, description: for the page.
        make: makes a judge; raises JudgeRefused if it is not accurate enough, SteeringError for options it lacks.
    """

    name: str
    label: str
    description: str
    make: Callable[[JudgeContext], Judge]
