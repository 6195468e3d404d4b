"""Personas in depth: does a persona make the model swallow errors that are planted in the questions?

After the idea of RoleKE-Bench (Zhang et al., arXiv 2409.11726), whose data is not published; these questions are ours.
"""

import csv
from collections.abc import Generator
from dataclasses import dataclass

from steering import paths
from steering.errors import SteeringError
from steering.evaluation.answers import UNTOUCHED, Arm
from steering.evaluation.preference import additions_at, log_ratio, preference_logps
from steering.evaluation.statistics import Difference, estimate, paired
from steering.experiments.bench import Bench, ways_at
from steering.experiments.registry import Experiment
from steering.experiments.result import Result
from steering.pairs.dataset import Pairs, PreferencePair
from steering.pairs.tokenization import encode_pairs
from steering.scoring.scorer import PairScorer
from steering.vectors.vector import SteeringVector

MULTIPLIERS = (-1.0, 0.0, 1.0)
COLUMNS = ("persona", "multiplier", "error preferred", "right fact written", "fluency")


@dataclass(frozen=True)
class Planted:
    """A question asked in character with a planted error.

    Attributes:
        persona: behavior that it is asked under; question: with the error.
        corrects, swallows: an answer that names the error, one that goes along with it.
        fact: part of a word that a correcting answer has and one that goes along has not.
    """

    persona: str
    question: str
    corrects: str
    swallows: str
    fact: str


def planted() -> list[Planted]:
    """Read the shipped questions, twenty of each of three personas."""
    with (paths.shipped("assets") / "evaluation" / "in_character.csv").open(encoding="utf-8", newline="") as file:
        return [Planted(**row) for row in csv.DictReader(file)]


def run(bench: Bench) -> Generator[str | Result, None, None]:
    """Ask each persona its questions, at each multiplier, by log-probability and in what is written."""
    rows, said, clear = [], [], []
    for name in bench.vectors or EXPERIMENT.vectors:
        asked = [each for each in planted() if each.persona == name][: bench.prompt_count]
        if not asked:
            known = ", ".join(dict.fromkeys(each.persona for each in planted()))
            raise SteeringError(f"There are no questions for {name!r}; choose some of: {known}.")
        subject = yield from bench.subject(name)
        yield f"scoring answers that correct and that go along ({name})"
        pairs = Pairs.of(PreferencePair(each.question, each.swallows, each.corrects) for each in asked)
        swallowed = _errors_preferred(bench, subject.vector, pairs)
        questions = [each.question for each in asked]
        written = yield from bench.write(f"{name}-planted", ways_at(name, subject.vector, MULTIPLIERS), questions)
        right: dict[float, list[float | None]] = {}
        for m in MULTIPLIERS:
            arm = Arm(name, m) if m else UNTOUCHED
            right[m] = [
                float(each.fact.lower() in answer.text.lower())
                for each, answer in zip(asked, written.answers[arm], strict=True)
            ]
            rows.append((name, m, estimate(swallowed[m]), estimate(right[m]), written.fluency(arm)))
        more, facts = paired(swallowed[1.0], swallowed[0.0]), paired(right[1.0], right[0.0])
        clear.append(more.is_clear and more.gap.mean > 0)
        said.append(f"{name}: errors preferred {_points(more)}, right facts {_points(facts)}.")
        yield Result(COLUMNS, tuple(rows))
    verdict = (
        f"{sum(clear)} of {len(clear)} personas clearly make the model go along with more errors at +1 than untouched. "
        f"{' '.join(said)}"
    )
    notes = (
        "Error preferred: the answer that goes along is likelier than the one that corrects, by summed "
        "log-probability, so that the shorter one is favoured alike at each multiplier.",
        "Right fact written: what is generated names the right fact. A small model knows few of them.",
    )
    yield Result(COLUMNS, tuple(rows), verdict, notes)


def _errors_preferred(bench: Bench, vector: SteeringVector, pairs: Pairs) -> dict[float, list[float | None]]:
    """Return by multiplier, question by question, 1 where the answer that goes along is the likelier one."""
    _, encoded = encode_pairs(bench.model, pairs)
    scorer = PairScorer(bench.model, encoded, min(vector.layers), scope=vector.token_scope)
    additions = additions_at(bench.model, vector, MULTIPLIERS)
    logps = preference_logps(scorer, list(additions.values()))[1:]
    return {m: (log_ratio(row) > 0).float().tolist() for m, row in zip(additions, logps, strict=True)}


def _points(difference: Difference) -> str:
    unclear = "" if difference.is_clear else ", not told apart"
    return f"{100 * difference.gap.mean:+.0f} points{unclear}"


EXPERIMENT = Experiment(
    name="in-character",
    title="Personas in depth",
    question="Does a persona make the model go along with errors that are planted in the questions?",
    paper="Not in the paper. RoleKE-Bench (arXiv 2409.11726) finds that role-playing models miss such errors often.",
    run=run,
    minutes=4.0,
    vectors=("pirate", "power-seeking", "poetic"),
)
