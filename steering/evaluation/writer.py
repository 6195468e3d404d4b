"""Writes the answers of an evaluation chunk by chunk, reads them again and has them judged."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from steering.evaluation.answers import UNTOUCHED, Answer, Arm, answer_of
from steering.evaluation.baselines import Way
from steering.evaluation.judges.judge import Judge, Verdict
from steering.evaluation.reading import Readings, TextReader
from steering.evaluation.settings import EvaluationSettings
from steering.evaluation.store import Answers, RunFolder
from steering.generation.batch import complete
from steering.generation.request import Request
from steering.generation.sampling import Sampling
from steering.models.loading import LanguageModel

ROWS = 40
"""Rows of a decode batch, those of the untouched model that run along included. Of 14, 28 and 56 rows, 28 and 56 wrote
alike, 14 slower by a third (bundled model, two cores)."""


class Writer:
    """Writes answers and keeps them.

    Chunks are the same in every run with the same settings, finished or resumed, so that the answers are.

    Args:
        folder: where answers are kept; None keeps them in memory only.

    Attributes:
        answers: all so far, those of earlier runs included.
        written: how many this run has written, with those that were there left out.
    """

    def __init__(
        self,
        model: LanguageModel,
        settings: EvaluationSettings,
        judge: Judge | None,
        folder: RunFolder | None,
        should_stop: Callable[[], bool],
    ) -> None:
        self.model, self.settings, self.judge, self._folder = model, settings, judge, folder
        self._should_stop = should_stop
        self._readers: dict[bool, TextReader] = {}  # by whether they compute log-probabilities
        self.answers: Answers = folder.answers() if folder else {}
        self.written = 0
        if folder:
            folder.mend()

    def write(self, ways: Sequence[Way], prompts: Sequence[int], max_new_tokens: int | None = None) -> bool:
        """Write the answers of some ways to some prompts, unless they are there; return False if stopped.

        Args:
            prompts: numbers of the prompts.
            max_new_tokens: by default that of the settings.
        """
        for chunk in self._chunks(ways, prompts):
            if all((way.arm, prompt) in self.answers for way in ways for prompt in chunk):
                continue
            if not self._write_chunk(ways, chunk, max_new_tokens or self.settings.max_new_tokens):
                return False
        return True

    def of(self, arm: Arm) -> list[Answer]:
        """Return an arm's answers with their relevance, in the order of the prompts."""
        gains = [
            answer.gain for (own, _), answer in self.answers.items() if own == UNTOUCHED and answer.gain is not None
        ]
        usual = statistics.median(gains) if gains else 0.0
        numbers = range(len(self.settings.prompts))
        return [self.answers[arm, number].related(usual) for number in numbers if (arm, number) in self.answers]

    def _chunks(self, ways: Sequence[Way], prompts: Sequence[int]) -> list[Sequence[int]]:
        """Split the prompts so that each part fills the decode batch."""
        rows = sum(1 + bool(way.trace and way.setting) for way in ways)
        parts = -(-len(prompts) // max(1, ROWS // rows))  # as few as fit, and of like size
        return [prompts[len(prompts) * n // parts : len(prompts) * (n + 1) // parts] for n in range(parts)]

    def _write_chunk(self, ways: Sequence[Way], prompts: Sequence[int], max_new_tokens: int) -> bool:
        sampling = Sampling(max_new_tokens, repetition_penalty=self.settings.repetition_penalty)
        requests: list[tuple[Request, list[Way], int]] = []
        for prompt in prompts:
            for group in _groups(ways):
                request = Request(
                    self.model,
                    self.settings.prompts[prompt],
                    [way.setting for way in group],
                    system=group[0].system,
                    before=group[0].before,
                    sampling=sampling,
                    trace=group[0].trace,
                )
                requests.append((request, group, prompt))
        jobs = [request for request, _, _ in requests]
        if not complete(self.model, jobs, weights=self.settings.weights, should_stop=self._should_stop):
            return False
        columns = {
            (way.arm, prompt): column
            for request, group, prompt in requests
            for way, column in zip(group, request.columns, strict=True)
        }
        answers = [
            answer_of(arm, prompt, column, columns.get((UNTOUCHED, prompt)))
            for (arm, prompt), column in columns.items()
        ]
        judged = self._judged(answers)
        if judged is None:
            return False
        self.answers.update({(answer.arm, answer.prompt): answer for answer in judged})
        self.written += len(judged)
        if self._folder:
            self._folder.append(judged)
        return True

    def _judged(self, answers: Sequence[Answer]) -> list[Answer] | None:
        """Add behavior and gain to each; None if stopped."""
        texts = [answer.text for answer in answers]
        prompts = [self.settings.prompts[answer.prompt] for answer in answers]
        traced = any(answer.gain is not None for answer in answers)
        readings = self.read(texts, with_logps=traced)
        if readings is None:
            return None
        verdicts: Sequence[Verdict] = [Verdict(None)] * len(texts)
        if self.judge:
            verdicts = self.judge.verdicts(prompts, texts, readings, self._should_stop)
            if self._should_stop():  # some verdicts may be missing for that alone
                return None
        return [
            replace(
                answer,
                gain=None if answer.gain is None or np.isnan(logp) else answer.gain - float(logp),
                behavior=verdict.behavior,
                relevance=verdict.relevance,
                fluency=answer.fluency if verdict.fluency is None else verdict.fluency,
                problem=verdict.problem,
            )
            for answer, logp, verdict in zip(answers, readings.logps, verdicts, strict=True)
        ]

    def read(self, texts: Sequence[str], *, with_logps: bool) -> Readings | None:
        """Have the untouched model read texts again; None if stopped."""
        if self._readers.get(with_logps) is None:
            self._readers[with_logps] = TextReader(self.model, with_logps=with_logps)
        return self._readers[with_logps].read(texts, self.settings.max_new_tokens, self._should_stop)


def _groups(ways: Sequence[Way]) -> list[list[Way]]:
    """Group ways that can be columns of one request: the same turns before the answer, traced or not."""
    groups: dict[tuple[object, ...], list[Way]] = {}
    for way in ways:
        groups.setdefault((way.system, tuple(way.before), way.trace), []).append(way)
    return list(groups.values())
