"""What experiments share: vectors with their pairs, answers that are kept, and judges."""

import hashlib
import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from steering import paths
from steering.errors import SteeringError
from steering.evaluation.answers import UNTOUCHED, Answer, Arm
from steering.evaluation.baselines import Way, both_sides
from steering.evaluation.judges import Judge, judge_named
from steering.evaluation.judges.judge import JudgeContext
from steering.evaluation.reading import TextReader
from steering.evaluation.settings import NEW_TOKENS, PROMPTS, EvaluationSettings
from steering.evaluation.statistics import Estimate, estimate
from steering.evaluation.store import RunFolder
from steering.evaluation.writer import Writer
from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs, read_pairs
from steering.pairs.tokenization import readable_pairs
from steering.training.pipeline import train
from steering.training.starter_drafts import starters
from steering.training.vector_report import prompts_for, trained_and_held_out
from steering.vectors.vector import SUFFIX, SteeringVector

HOLDOUT = 0.2
"""Share of the pairs that a vector made here is not trained on, as the command line's default."""


class Stopped(SteeringError):
    """The experiment was stopped; it goes on from what its folder holds."""


@dataclass(frozen=True)
class Subject:
    """A behavior that is experimented with.

    Attributes:
        name: stem of its example set, such as `power-seeking`; vector: that moves it.
        trained, held_out: the pairs that the vector was trained on, and the others.
    """

    name: str
    vector: SteeringVector
    trained: Pairs
    held_out: Pairs

    @property
    def pairs(self) -> Pairs:
        """All of its pairs."""
        return Pairs.of([*self.trained, *self.held_out])


@dataclass(frozen=True)
class Written:
    """Answers of some ways to some prompts.

    Attributes:
        prompts: what was answered.
        answers: arm -> its answers in the order of the prompts.
    """

    prompts: tuple[str, ...]
    answers: dict[Arm, list[Answer]]

    def fluency(self, arm: Arm) -> Estimate:
        """Estimate an arm's fluency."""
        return estimate([answer.fluency for answer in self.answers[arm]])


@dataclass
class Bench:
    """Makes vectors, writes answers and judges them, for one run of an experiment.

    Attributes:
        model: the untouched model.
        folder: where everything is kept, so that a stopped run goes on; None keeps nothing.
        prompt_count: prompts of a set; tokens: of an answer; epochs: of a training, None for the default.
        vectors: names of the behaviors, for experiments that let one choose; empty for their own.
        other_model: Hub id or folder of another checkpoint, for the transfer.
        judge_name: of the judge, see `evaluation.judges`.
        seed: of what is drawn.
        should_stop: asked at every token and step.
        weights: with which the model generates, see `generation.stream`.
        written: answers written in this run.
    """

    model: LanguageModel
    folder: Path | None = None
    prompt_count: int = PROMPTS
    tokens: int = NEW_TOKENS
    epochs: int | None = None
    vectors: tuple[str, ...] = ()
    other_model: str = ""
    judge_name: str = "offline"
    seed: int = 0
    should_stop: Callable[[], bool] = lambda: False
    weights: str = "float16"
    written: int = 0
    _judges: dict[str, Judge] = field(default_factory=dict)
    _reader: TextReader | None = None

    def subject(self, name: str) -> Generator[str, None, Subject]:
        """Take a shipped behavior: its vector if it was made for this model, else one that is trained now.

        Raises SteeringError for a name that is none of the example sets.
        """
        known = {starter.key: starter for starter in starters()}
        if name not in known:
            raise SteeringError(f"There is no behavior {name!r}; choose one of: {', '.join(known)}.")
        pairs = readable_pairs(self.model, read_pairs(known[name].pairs_file))
        file = paths.shipped("vectors") / f"{name}{SUFFIX}"
        if file.is_file():
            vector = SteeringVector.load(file)
            trained, held_out = trained_and_held_out(vector, pairs)
            if vector.model_fingerprint == self.model.fingerprint and held_out:
                return Subject(name, vector, trained, held_out)
        trained, held_out = pairs.split(HOLDOUT, self.seed)
        yield f"training {name} for {self.model.name}"
        vector = self.trained(name, trained, held_out, behavior=known[name].behavior)
        return Subject(name, vector, trained, held_out)

    def trained(
        self, name: str, pairs: Pairs, held_out: Pairs, *, method: str = "bipo", behavior: str = "", **settings: Any
    ) -> SteeringVector:
        """Train a vector, or take the one that an earlier run in the folder made with the same settings."""
        if self.epochs and method == "bipo":
            settings = {"epochs": self.epochs} | settings
        facts = [method, settings, self.seed, self.model.fingerprint, pairs.sha256]
        file = self.folder and self.folder / "vectors" / f"{name}-{_digest(facts)}{SUFFIX}"
        if file and file.is_file():
            return SteeringVector.load(file)
        if method == "bipo":
            settings = {"seed": self.seed} | settings
        vector = train(self.model, pairs, method, held_out=held_out, should_stop=self.should_stop, **settings)
        self.check_stop()  # a vector that was stopped is another one
        vector = replace(vector, name=name, behavior=behavior)
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            vector.save(file)
        return vector

    def prompts(self, subject: Subject) -> list[str]:
        """Choose prompts that the subject's vector was not trained on."""
        return prompts_for(subject.vector, subject.pairs, "pairs", self.prompt_count)

    def write(
        self, part: str, ways: Sequence[Way], prompts: Sequence[str], *, model: LanguageModel | None = None
    ) -> Generator[str, None, Written]:
        """Have ways answer prompts, two at a time; what an earlier run wrote is taken from the folder.

        Args:
            part: name of the folder's part, lower-case.
            model: that answers; by default the untouched one.

        Raises Stopped.
        """
        model = model or self.model
        settings = EvaluationSettings(
            tuple(prompts), (), (), self.tokens, baselines=(), seed=self.seed, weights=self.weights
        )
        facts = [settings.as_json(), model.fingerprint, [_way_facts(way) for way in ways]]
        folder = RunFolder(self.folder / f"{part}-{_digest(facts)}") if self.folder else None
        if folder:
            folder.begin({"key": _digest(facts), "settings": settings.as_json()})
        writer = Writer(model, settings, None, folder, self.should_stop)
        for start in range(0, len(ways), 2):
            two = ways[start : start + 2]
            yield "writing " + ", ".join(_arm_words(way.arm) for way in two)
            if not writer.write(two, range(len(prompts))):
                raise Stopped("The experiment was stopped; start it again and it goes on from here.")
            self.written += sum(len(prompts) for _ in two)
        return Written(tuple(prompts), {way.arm: writer.of(way.arm) for way in ways})

    def scores(self, subject: Subject, written: Written, arm: Arm) -> list[float | None]:
        """Judge an arm's answers by what the subject's pairs show; the untouched model reads them."""
        answers = written.answers[arm]
        if self._reader is None:
            self._reader = TextReader(self.model)
        readings = self._reader.read([answer.text for answer in answers], self.tokens, self.should_stop)
        self.check_stop()
        assert readings is not None
        asked, texts = [written.prompts[answer.prompt] for answer in answers], [answer.text for answer in answers]
        return [each.behavior for each in self.judge(subject).verdicts(asked, texts, readings)]

    def judge(self, subject: Subject) -> Judge:
        """Make a judge of the subject's behavior; JudgeRefused if it is not accurate enough."""
        key = subject.pairs.sha256
        if key not in self._judges:
            behavior = both_sides(subject.vector.behavior)[0] or subject.name
            context = JudgeContext(self.model, subject.pairs, behavior, self.tokens, should_stop=self.should_stop)
            self._judges[key] = judge_named(self.judge_name).make(context)
        return self._judges[key]

    def judge_note(self, subject: Subject) -> str:
        """Say how far the subject's offline judge can be trusted."""
        card = self.judge(subject).card
        known = "" if card.accuracy is None else f", right on {card.accuracy:.0%} of answers it had not seen"
        return f"Judge of {subject.name}: {card.name}{known}."

    def check_stop(self) -> None:
        """Raise Stopped if it is time."""
        if self.should_stop():
            raise Stopped("The experiment was stopped; start it again and it goes on from here.")


def cosine(first: SteeringVector, second: SteeringVector) -> float:
    """Return the cosine of two vectors over all layers; a layer that one of them lacks counts as 0 there."""
    shared = [k for k in first.layers if k in second.layers]
    products = sum(float(first.directions[k] @ second.directions[k]) for k in shared)
    return products / max(first.norm * second.norm, 1e-12)


def ways_at(name: str, vector: SteeringVector, multipliers: Sequence[float]) -> list[Way]:
    """Make the ways of a vector at some multipliers; 0 is the untouched model."""
    return [Way(Arm(name, m), vector) if m else Way(UNTOUCHED) for m in multipliers]


def _arm_words(arm: Arm) -> str:
    return f"{arm.name} {arm.multiplier:+g}" if arm.multiplier else arm.name


def _way_facts(way: Way) -> list[Any]:
    tensors = way.vector.directions.items() if way.vector else ()
    directions = {k: hashlib.sha256(d.numpy().tobytes()).hexdigest() for k, d in tensors}
    return [way.arm.name, way.arm.multiplier, way.system, [list(turn) for turn in way.before], directions]


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:12]
