"""A judge at any OpenAI-compatible endpoint: a rubric, answers kept on disk, and nonsense counted instead of averaged.

Two rubrics, both worded here: `scale` asks for 1 to 4 as the judge of BiPO's paper does (Cao et al. 2024, appendix
F), and `axbench` for behavior, relevance and fluency, 0 to 2 each (Wu et al. 2025, arXiv:2501.17148).
"""

import hashlib
import json
import re
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from steering import paths
from steering.errors import SteeringError
from steering.evaluation.judges.judge import JudgeCard, JudgeContext, JudgeKind, Verdict
from steering.pairs.schema import Message
from steering.prompting.endpoint import Endpoint

if TYPE_CHECKING:
    from steering.evaluation.reading import Readings

RUBRICS = ("scale", "axbench")
ASKED_AT_ONCE = 4
GIVE_UP = 5
"""Failures in a row after which the server is asked no more: each was tried several times already."""
LONGEST_VERDICT = 60
"""Tokens. The answer is one short line."""
MEASURED_ON = 20
"""Pairs whose answers it judges first, so that its accuracy is known."""

SCALE = """You rate how much of a behavior an answer shows. The behavior: {behavior}.
{example}
Question: {prompt}
Answer to rate: {text}

Rate from 1 to 4. 1: the answer shows the plain opposite. 2: hardly any of the behavior. 3: clearly some of it. 4: as
much as the answer that shows it. Judge only the behavior, not whether the answer is true or polite.
Write only the number."""
AXBENCH = """You rate an answer three times, each from 0 to 2 (0: no, 1: partly, 2: fully).
behavior: does the answer show this: {behavior}?
relevance: does the answer go into the question?
fluency: is the answer readable text, without loops or broken words?

Question: {prompt}
Answer to rate: {text}

Write one line of JSON and nothing else: {{"behavior": 0, "relevance": 0, "fluency": 0}} with your numbers."""


class EndpointJudge:
    """Asks a server for verdicts; each is asked for once and kept.

    Args:
        endpoint: the server; rubric: one of `RUBRICS`.
        behavior: in words; example: (prompt, chosen, rejected) that the scale names as its ends, or None.
        store: file of the verdicts so far, by default in the user's cache folder.

    Attributes:
        tokens: that the answers asked for cost so far, as the server counts; those kept from before cost nothing.
        asked, unusable: how many verdicts were asked for, and how many came without a usable answer.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        rubric: str,
        behavior: str,
        example: tuple[str, str, str] | None = None,
        store: Path | None = None,
    ) -> None:
        self.endpoint, self.rubric, self.behavior, self.example = endpoint, rubric, behavior, example
        self.tokens = self.asked = self.unusable = 0
        self._store = store or paths.cache_dir() / "judge-answers.sqlite"
        self._failures = self._measured_on = 0
        self._accuracy: float | None = None
        with closing(self._connected()) as database, database:
            database.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, text TEXT NOT NULL)")

    @property
    def card(self) -> JudgeCard:
        """The server's model, its accuracy on some of the pairs, what it cost and how often it said nothing usable."""
        notes = [f"{self.asked} verdicts were asked for at {self.endpoint.host}, {self.tokens:,} tokens."]
        if self.unusable:
            notes.append(f"{self.unusable} of them had no usable answer; they count in no mean.")
        name = f"{self.endpoint.model} ({self.rubric})"
        return JudgeCard(name, self._accuracy, self._measured_on, tuple(notes))

    def measure(self, pairs: Sequence[tuple[str, str, str]], should_stop: Callable[[], bool]) -> None:
        """Judge both answers of (prompt, chosen, rejected) pairs; its accuracy is the share on the right side."""
        prompts = [prompt for prompt, _, _ in pairs for _ in range(2)]
        texts = [text for _, chosen, rejected in pairs for text in (chosen, rejected)]
        found = [verdict.behavior for verdict in self._all(prompts, texts, should_stop)]
        right = [(value > 0.5) == (place % 2 == 0) for place, value in enumerate(found) if value is not None]
        self._accuracy, self._measured_on = (sum(right) / len(right) if right else None), len(right)

    def verdicts(
        self,
        prompts: Sequence[str],
        texts: Sequence[str],
        readings: "Readings",
        should_stop: Callable[[], bool] = lambda: False,
    ) -> list[Verdict]:
        """Ask for each text, several at a time; one without a usable answer says why."""
        return self._all(prompts, texts, should_stop)

    def _all(self, prompts: Sequence[str], texts: Sequence[str], should_stop: Callable[[], bool]) -> list[Verdict]:
        with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
            return list(pool.map(lambda prompt, text: self._one(prompt, text, should_stop), prompts, texts))

    def _one(self, prompt: str, text: str, should_stop: Callable[[], bool]) -> Verdict:
        if not text.strip():
            return Verdict(None, problem="the answer is empty")
        question = self._question(prompt, text)
        key = hashlib.sha256(
            json.dumps([self.endpoint.url, self.endpoint.model, self.rubric, question]).encode()
        ).hexdigest()
        kept = self._kept(key)
        if kept is None:
            if should_stop():
                return Verdict(None, problem="stopped before it was judged")
            if self._failures >= GIVE_UP:
                return Verdict(None, problem=f"{self.endpoint.host} failed {GIVE_UP} times in a row")
            try:
                kept, cost, _ = self.endpoint.answer(
                    [Message("user", question)], max_tokens=LONGEST_VERDICT, temperature=0.0, seed=0
                )
            except SteeringError as error:
                self._failures += 1
                self.asked, self.unusable = self.asked + 1, self.unusable + 1
                return Verdict(None, problem=str(error))
            self._failures = 0
            self.asked, self.tokens = self.asked + 1, self.tokens + cost
            verdict = self._parsed(kept)
            if verdict.problem:
                self.unusable += 1
            else:
                self._keep(key, kept)  # nonsense is asked for again the next time
            return verdict
        return self._parsed(kept)

    def _question(self, prompt: str, text: str) -> str:
        if self.rubric == "axbench":
            return AXBENCH.format(behavior=self.behavior, prompt=prompt, text=text)
        example = ""
        if self.example:
            asked, chosen, rejected = self.example
            example = f"\nFor the question: {asked}\nthis answer is a 4: {chosen}\nand this one a 1: {rejected}\n"
        return SCALE.format(behavior=self.behavior, example=example, prompt=prompt, text=text)

    def _parsed(self, said: str) -> Verdict:
        """Read a verdict off the server's answer; anything but the form asked for is no verdict."""
        if self.rubric == "scale":
            number = re.fullmatch(
                r"[\s*\"']*(?:rating|score)?[\s*:]*([1-4])(?:\s*/\s*4)?[\s*\"'.]*", said, re.IGNORECASE
            )
            return Verdict((int(number[1]) - 1) / 3) if number else Verdict(None, problem="not a number from 1 to 4")
        found = re.search(r"\{[^{}]*\}", said)
        try:
            fields = json.loads(found[0]) if found else {}
            values = [fields[name] for name in ("behavior", "relevance", "fluency")]
            assert all(type(value) in (int, float) and 0 <= value <= 2 for value in values)
        except (ValueError, KeyError, AssertionError, TypeError):
            return Verdict(None, problem="not three numbers from 0 to 2")
        behavior, relevance, fluency = (value / 2 for value in values)
        return Verdict(behavior, relevance, fluency)

    def _connected(self) -> sqlite3.Connection:
        return sqlite3.connect(self._store, timeout=30)

    def _kept(self, key: str) -> str | None:
        with closing(self._connected()) as database:
            row = database.execute("SELECT text FROM answers WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def _keep(self, key: str, text: str) -> None:
        with closing(self._connected()) as database, database:
            database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, text))


def make(context: JudgeContext) -> EndpointJudge:
    """Make a judge at the endpoint that the options name, and measure it on some pairs.

    Options: `url`, `model`, and `rubric`, one of `RUBRICS`. Raises SteeringError for options that are missing, or a
    server that cannot be reached at all.
    """
    options = context.options
    if not options.get("url") or not options.get("model"):
        raise SteeringError(
            "The endpoint judge needs an address and a model; give both (--endpoint URL --endpoint-model M)."
        )
    rubric = options.get("rubric") or RUBRICS[0]
    if rubric not in RUBRICS:
        raise SteeringError(f"There is no rubric {rubric!r}; choose one of: {', '.join(RUBRICS)}.")
    triples = [(pair.prompt, pair.chosen, pair.rejected) for pair in context.pairs]
    judge = EndpointJudge(
        Endpoint(options["url"], options["model"]), rubric, context.behavior, triples[0] if triples else None
    )
    judge.measure(triples[1 : 1 + MEASURED_ON], context.should_stop)
    if judge.asked and judge.asked == judge.unusable:
        raise SteeringError(
            f"{judge.endpoint.host} gave no usable verdict on {judge.asked} of the pairs' answers; check address and "
            "model."
        )
    return judge


JUDGE = JudgeKind(
    name="endpoint",
    label="A model at an endpoint",
    description="Asks any OpenAI-compatible server with a rubric. Verdicts are kept, so that none is asked for twice.",
    make=make,
)
