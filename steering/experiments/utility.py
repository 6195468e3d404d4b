"""Utility: what steering costs in knowledge, for every shipped behavior.

Cao et al., arXiv 2406.00045, table 11 (MMLU at -1, 0 and +1).
"""

from collections.abc import Generator

from steering.evaluation.multiple_choice import questions, utility
from steering.evaluation.preference import wilson_interval
from steering.experiments.bench import Bench
from steering.experiments.registry import Experiment
from steering.experiments.result import Result
from steering.training.starter_drafts import starters

MULTIPLIERS = (-1.0, 0.0, 1.0)
MOST_POINTS = 1.2
"""By which the paper's scores differ from the untouched model's at most."""
COLUMNS = ("vector", "right at -1", "right untouched", "right at +1", "greatest change, points")


def run(bench: Bench) -> Generator[str | Result, None, None]:
    """Ask the multiple-choice questions under each vector."""
    asked, rows = questions(), []
    for name in bench.vectors or [starter.key for starter in starters()]:
        subject = yield from bench.subject(name)
        yield f"asking {len(asked)} questions under {name}"
        low, plain, high = utility(bench.model, subject.vector, MULTIPLIERS, asked)
        bench.check_stop()
        worst = 100 * max((low - plain, high - plain), key=abs)
        rows.append((name, low, plain, high, worst))
        yield Result(COLUMNS, tuple(rows))
    within = sum(abs(row[-1]) <= MOST_POINTS + 1e-9 for row in rows)
    low, high = wilson_interval(rows[0][2], len(asked))
    verdict = (
        f"{within} of {len(rows)} vectors stay within {MOST_POINTS} points of the untouched model at -1 and +1; the "
        f"greatest change is {max((row[-1] for row in rows), key=abs):+.1f} points."
    )
    notes = (
        f"One question is {100 / len(asked):.1f} points. The share of right answers itself is known to within "
        f"{50 * (high - low):.0f} points, the changes better, as the questions are the same.",
    )
    yield Result(COLUMNS, tuple(rows), verdict, notes, None, within == len(rows))


EXPERIMENT = Experiment(
    name="utility",
    title="What it costs in knowledge",
    question="Does the model still answer multiple-choice questions as well when it is steered?",
    paper="Table 11: MMLU stays within 1.2 points of the untouched model's 57.3 % at -1 and +1 for four behaviors "
    "(Mistral-7B-Instruct; 30 questions of each of 57 subjects).",
    run=run,
    minutes=6.0,
)
