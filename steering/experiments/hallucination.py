"""Hallucination: how much is made up at multipliers -1, 0 and +1, on the paper's scale from 1 to 4.

Cao et al., arXiv 2406.00045, table 6 (row hallucination, its own vector).
"""

from collections.abc import Generator

from steering.evaluation.answers import UNTOUCHED, Arm
from steering.evaluation.baselines import SYSTEM_PROMPT, prompting
from steering.evaluation.statistics import Estimate, estimate, paired
from steering.experiments.bench import Bench, ways_at
from steering.experiments.registry import Experiment
from steering.experiments.result import Result

MULTIPLIERS = (-1.0, 0.0, 1.0)
PAPER = (1.17, 1.37, 2.64)
"""Mean score of GPT-4 at the multipliers above."""
COLUMNS = ("multiplier", "paper, 1 to 4", "ours, 1 to 4", "asked in the system prompt", "fluency")


def on_scale(value: Estimate) -> Estimate:
    """Move a behavior score from 0 to 1 to the paper's scale from 1 to 4."""
    return Estimate(1 + 3 * value.mean, 1 + 3 * value.low, 1 + 3 * value.high, value.count)


def run(bench: Bench) -> Generator[str | Result, None, None]:
    """Measure the vector, and asking for the same in the system prompt."""
    subject = yield from bench.subject((bench.vectors or EXPERIMENT.vectors)[0])
    ways = [*ways_at(subject.name, subject.vector, MULTIPLIERS), *prompting(subject.vector.behavior)]
    written = yield from bench.write(subject.name, ways, bench.prompts(subject))
    scores = {way.arm: bench.scores(subject, written, way.arm) for way in ways}
    rows = []
    for m, theirs in zip(MULTIPLIERS, PAPER, strict=True):
        arm, asked = Arm(subject.name, m) if m else UNTOUCHED, Arm(SYSTEM_PROMPT, m)
        prompted = on_scale(estimate(scores[asked])) if asked in scores else None
        rows.append((m, theirs, on_scale(estimate(scores[arm])), prompted, written.fluency(arm)))
    up, down = (paired(scores[Arm(subject.name, m)], scores[UNTOUCHED]) for m in (1.0, -1.0))
    holds = up.is_clear and down.is_clear and up.gap.mean > 0 > down.gap.mean
    verdict = (
        f"From -1 to +1 our score goes from {rows[0][2].mean:.2f} over {rows[1][2].mean:.2f} to {rows[2][2].mean:.2f}, "
        f"the paper's from {PAPER[0]} over {PAPER[1]} to {PAPER[2]}: "
        f"{'the same order, both steps clear' if holds else 'not both steps are clear'}."
    )
    notes = (
        bench.judge_note(subject),
        "Another model, other prompts and another judge than the paper's: compare the order and not the figures.",
    )
    yield Result(COLUMNS, tuple(rows), verdict, notes, None, holds)


EXPERIMENT = Experiment(
    name="hallucination",
    title="Hallucination",
    question="Does the vector make the model invent more at +1 and less at -1?",
    paper="Table 6: 1.17 at -1, 1.37 untouched, 2.64 at +1 (Llama-2-7b-chat, GPT-4 as judge, scale 1 to 4).",
    run=run,
    minutes=0.7,
    vectors=("hallucination",),
)
