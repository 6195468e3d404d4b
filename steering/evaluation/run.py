"""The evaluation of one vector by what the model writes: its response curve, then what it is compared with."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from steering.errors import SteeringError
from steering.evaluation import baselines
from steering.evaluation.answers import UNTOUCHED, Arm
from steering.evaluation.baselines import Way
from steering.evaluation.equal_kl import mean_kl, multiplier_at
from steering.evaluation.judges import judge_named
from steering.evaluation.judges.judge import Judge, JudgeContext
from steering.evaluation.multiple_choice import utility_steps
from steering.evaluation.points import Point, point_of
from steering.evaluation.progress import EvaluationProgress
from steering.evaluation.settings import EvaluationSettings, curve_groups, in_twos
from steering.evaluation.store import RunFolder
from steering.evaluation.summary import summarize, useful_range, working_points
from steering.evaluation.writer import Writer
from steering.generation.request import prompt_ids
from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs
from steering.vectors.vector import SteeringVector

RANDOM_TOKENS = 24
"""Of an answer by a random direction, and of the vector's own where it is compared with them."""
FIRST_PROMPTS = 4
"""Prompts of the first chunk, so that there is something to see within seconds."""
SCALING_PROMPTS = 5
"""Prompts on which another vector is scaled to the same KL divergence: 200 tokens."""

Comparisons = Mapping[str, Callable[[], SteeringVector]]
"""Name -> makes a vector that is compared at the same KL divergence. Made when its turn comes."""


@dataclass(frozen=True)
class _Work:
    """What is written next: some ways answer some prompts."""

    stage: str
    doing: str
    ways: Sequence[Way]
    prompts: Sequence[int]
    tokens: int | None = None


class Evaluation:
    """Evaluates a vector.

    Args:
        pairs: that show the behavior: the judge learns from them, few-shot examples are taken from them.
        folder: where it is kept; an evaluation that is there already goes on. None keeps nothing.
        comparisons: other vectors, such as the mean difference of the same pairs.
        residual_norm: mean norm of the residual stream at the vector's first layer, for the dose; None if not known.
        should_stop: asked at every token.

    Attributes:
        writer: its answers. judge: None before it is made.
    """

    def __init__(
        self,
        model: LanguageModel,
        vector: SteeringVector,
        pairs: Pairs,
        settings: EvaluationSettings,
        *,
        folder: RunFolder | None = None,
        comparisons: Comparisons | None = None,
        residual_norm: float | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        vector.check_fits(model.hidden_size, model.num_layers, model.name)
        self.model, self.vector, self.pairs, self.settings = model, vector, pairs, settings
        self.name = vector.name or "vector"
        self._folder, self._comparisons, self._norm = folder, comparisons or {}, residual_norm
        self._should_stop, self._began = should_stop, time.monotonic()
        self.judge: Judge | None = None
        self.writer = Writer(model, settings, None, folder, should_stop)
        self._spans: list[float] = []
        self._own_span: float | None = None
        self._utility: dict[Arm, float] = {}

    def run(self) -> Generator[EvaluationProgress, None, None]:
        """Evaluate, a report after each chunk; the last one is `done` or `stopped`.

        Raises SteeringError for a judge that cannot be made or is not accurate enough.
        """
        self._began = time.monotonic()
        if self._folder:
            self._folder.begin(self._facts())
        stage = "judge"
        yield self._report(stage, "getting the judge ready")
        try:
            self._make_judge()
            for work in self._work():
                stage = work.stage
                yield self._report(stage, work.doing)
                if not self.writer.write(work.ways, work.prompts, work.tokens):
                    break
            if self.settings.utility and not self._should_stop():
                stage = "utility"
                yield from self._ask_questions()
        except SteeringError:  # a judge or another vector was still being made
            if not self._should_stop():
                raise
        if self._should_stop():
            yield self._report(stage, "stopped", stopped=True)
            return
        last = self._report("done", "done")
        if self._folder:
            self._folder.finish(self._results(last))
        yield last

    def points(self) -> dict[Arm, Point]:
        """Sum up the answers so far, arm by arm in the order of writing; random directions are left out."""
        arms = dict.fromkeys(arm for arm, _ in self.writer.answers if not baselines.is_random(arm))
        points = {arm: point_of(arm, self.writer.of(arm), self._dose(arm), self.settings.seed) for arm in arms}
        return {arm: replace(point, utility=self._utility.get(arm)) for arm, point in points.items()}

    def _way(self, multiplier: float) -> Way:
        return Way(Arm(self.name, multiplier), self.vector) if multiplier else Way(UNTOUCHED)

    def _work(self) -> Iterator[_Work]:
        """Yield what is to be written; what comes later depends on what was found before."""
        halves, (first, *others) = self._halves(), [list(self.settings.multipliers[:1]), *curve_groups(self.settings)]
        start = [UNTOUCHED.multiplier, *first]
        yield self._curve(start, halves[0][:FIRST_PROMPTS])
        for half, rest in ((halves[0], halves[0][FIRST_PROMPTS:]), (halves[1], halves[1])):
            yield self._curve(start, rest)
            for group in others:
                yield self._curve(group, half)
        for group in in_twos(self.settings.finer):
            yield replace(self._curve(group, [*halves[0], *halves[1]]), stage="finer")
        yield from self._baselines(halves)

    def _curve(self, multipliers: Sequence[float], prompts: Sequence[int]) -> _Work:
        doing = "writing answers at " + ", ".join(f"{m:+g}" if m else "0" for m in multipliers)
        return _Work("curve", doing, [self._way(m) for m in multipliers], prompts)

    def _halves(self) -> tuple[list[int], list[int]]:
        """Split the prompts: the curve is there on the first half at once, and on all of them later."""
        numbers = list(range(len(self.settings.prompts)))
        middle = (len(numbers) + 1) // 2
        return numbers[:middle], numbers[middle:]

    def _make_judge(self) -> None:
        context = JudgeContext(
            self.model,
            self.pairs,
            baselines.both_sides(self.vector.behavior)[0] or self.name,
            self.settings.max_new_tokens,
            self.settings.judge_options,
            self._should_stop,
        )
        self.judge = self.writer.judge = judge_named(self.settings.judge).make(context)

    def _baselines(self, halves: tuple[list[int], list[int]]) -> Iterator[_Work]:
        chosen, everything = self.settings.baselines, [*halves[0], *halves[1]]
        if baselines.SYSTEM_PROMPT in chosen and (ways := baselines.prompting(self.vector.behavior)):
            yield _Work("baselines", "asking in the system prompt", ways, everything)
        if baselines.FEW_SHOT in chosen and (ways := self._few_shot()):
            yield _Work("baselines", "showing examples before the prompt", ways, everything)
        if not self.settings.multipliers:
            return
        low, high = working_points(self.points(), self.name)
        for name in self._comparisons if baselines.MEAN_DIFFERENCE in chosen else ():
            vector = replace(self._comparisons[name](), name=name)
            ways = [Way(Arm(name, self._scaled(vector, end)), vector) for end in (low, high) if end]
            yield _Work("baselines", f"writing with {name} at the same KL divergence", ways, everything)
        ends = useful_range(self.points(), self.name)
        low, high = ends[0] or low, ends[1] or high  # where its effect is greatest
        if baselines.RANDOM in chosen and low and high:
            yield from self._random(low, high, halves[0])

    def _ask_questions(self) -> Iterator[EvaluationProgress]:
        """Ask the multiple-choice questions along the coarse curve; what is known is not asked again."""
        multipliers = [UNTOUCHED.multiplier, *self.settings.multipliers]
        kept = self._folder.remembered() if self._folder else {}
        self._utility = {self._way(m).arm: kept[key] for m in multipliers if (key := f"utility {m:+g}") in kept}
        left = [m for m in multipliers if self._way(m).arm not in self._utility]
        steps = utility_steps(self.model, self.vector, left) if left else iter(())
        for number in range(len(left)):
            yield self._report("utility", f"asking multiple-choice questions ({number} of {len(left)} multipliers)")
            if self._should_stop():
                return
            multiplier, share = next(steps)
            self._utility[self._way(multiplier).arm] = kept[f"utility {multiplier:+g}"] = share
            if self._folder:
                self._folder.remember(kept)

    def _few_shot(self) -> list[Way]:
        """Show as many examples as the context has room for."""
        for shots in range(baselines.SHOTS, 0, -1):
            ways = baselines.few_shot(self.pairs, self.settings.prompts, shots)
            if all(self._fits(way) for way in ways):
                return ways
        return []

    def _fits(self, way: Way) -> bool:
        """Tell whether every prompt leaves room for an answer after the turns before it."""
        model, prompts = self.model, self.settings.prompts
        try:
            longest = max(len(prompt_ids(model, text, system=way.system, before=way.before)) for text in prompts)
        except SteeringError:
            return False
        return not model.context_length or longest + self.settings.max_new_tokens <= model.context_length

    def _random(self, low: float, high: float, prompts: list[int]) -> Iterator[_Work]:
        drawn = baselines.random_directions(self.vector, self.settings.random_directions, self.settings.seed)
        for start in range(0, len(drawn), 2):
            two = drawn[start : start + 2]
            ways = [Way(Arm(vector.name, end), vector, trace=False) for vector in two for end in (low, high)]
            doing = f"trying {len(drawn)} random directions ({start} done)"
            yield _Work("baselines", doing, ways, prompts, RANDOM_TOKENS)
        spans = [self._span([self._behaviors(Arm(v.name, end), prompts) for end in (low, high)]) for v in drawn]
        self._spans = [span for span in spans if span is not None]
        self._own_span = self._span([self._rejudged(self.name, end, prompts) for end in (low, high)])

    def _rejudged(self, name: str, multiplier: float, prompts: list[int]) -> list[float | None]:
        """Judge the beginnings of the vector's answers, as long as those of the random directions."""
        ids = self.model.tokenizer
        answers = [self.writer.answers[Arm(name, multiplier), prompt].text for prompt in prompts]
        texts = [str(ids.decode(ids(text, add_special_tokens=False)["input_ids"][:RANDOM_TOKENS])) for text in answers]
        readings = self.writer.read(texts, with_logps=False)
        if readings is None or self.judge is None:
            return [None] * len(prompts)
        asked = [self.settings.prompts[prompt] for prompt in prompts]
        return [verdict.behavior for verdict in self.judge.verdicts(asked, texts, readings, self._should_stop)]

    def _behaviors(self, arm: Arm, prompts: Sequence[int]) -> list[float | None]:
        found = map(self.writer.answers.get, [(arm, prompt) for prompt in prompts])
        return [answer.behavior if answer else None for answer in found]

    @staticmethod
    def _span(sides: Sequence[Sequence[float | None]]) -> float | None:
        """Return the mean over prompts of behavior above less that below; None where nothing was judged."""
        below, above = sides
        gaps = [b - a for a, b in zip(below, above, strict=True) if a is not None and b is not None]
        return float(np.mean(gaps)) if gaps else None

    def _scaled(self, vector: SteeringVector, multiplier: float) -> float:
        """Return the multiplier at which another vector has the KL divergence that ours has at this one."""
        kept = self._folder.remembered() if self._folder else {}
        key = f"{vector.name} {multiplier:+g}"
        if key not in kept:
            prompts = self._halves()[0][:SCALING_PROMPTS]
            own = [answer for answer in self.writer.of(Arm(self.name, multiplier)) if answer.prompt in prompts]
            start = max(-50.0, min(50.0, multiplier * self.vector.norm / max(vector.norm, 1e-12)))
            kept[key] = multiplier_at(
                mean_kl(own), self.model, vector, start, self.settings, prompts, self._should_stop
            )
            if self._folder and not self._should_stop():
                self._folder.remember(kept)
        return max(-100.0, min(100.0, round(kept[key], 3)))

    def _dose(self, arm: Arm) -> float | None:
        if not self._norm or arm.name != self.name:
            return None
        return abs(arm.multiplier) * self.vector.norms[self.vector.layers[0]] / self._norm

    def _report(self, stage: str, doing: str, *, stopped: bool = False) -> EvaluationProgress:
        seconds, total = time.monotonic() - self._began, self.settings.answers_wanted(len(self._comparisons))
        share = min(1.0, len(self.writer.answers) / total) if stage != "done" else 1.0
        rate = seconds / self.writer.written if self.writer.written else None
        left = None if rate is None or stage == "done" else rate * max(0, total - len(self.writer.answers))
        points, summary = self.points(), None
        if any(arm.name == self.name for arm in points):
            summary = summarize(self.name, points, self._scores, self._own_span, self._spans)
        card = self.judge.card if self.judge else None
        return EvaluationProgress(stage, doing, share, seconds, left, card, points, summary, stopped)

    def _scores(self, arm: Arm, score: str) -> list[float | None]:
        found = {answer.prompt: getattr(answer, score) for answer in self.writer.of(arm)}
        return [*map(found.get, range(len(self.settings.prompts)))]

    def _facts(self) -> dict[str, Any]:
        return {
            "key": self.settings.key(self.model, self.vector, self.pairs),
            "vector": {"name": self.name, "behavior": self.vector.behavior, "norm": self.vector.norm}
            | {"layers": list(self.vector.layers), "method": self.vector.method.get("name", "")},
            "model": {"name": self.model.name, "fingerprint": self.model.fingerprint},
            "pairs": {"sha256": self.pairs.sha256, "count": len(self.pairs)},
            "settings": self.settings.as_json(),
        }

    def _results(self, last: EvaluationProgress) -> dict[str, Any]:
        if last.summary is None or last.judge is None:
            raise SteeringError("Nothing was measured.")
        return {
            "judge": last.judge.as_json(),
            "points": [point.as_json() for point in last.points.values()],
            "summary": last.summary.as_json(),
            "random_spans": self._spans,
            "seconds": round(last.seconds, 1),
        }
