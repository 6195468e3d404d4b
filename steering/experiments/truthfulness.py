"""Truthfulness: does the model prefer true answers once it is steered away from making things up?

Cao et al., arXiv 2406.00045, section 4.3 and figure 2, there with TruthfulQA's MC1 and MC2. Here the true and the false
answer of held-out pairs (two choices, as MC1 has more), and our own multiple-choice questions.
"""

from collections.abc import Generator

from steering.evaluation.answers import UNTOUCHED, Arm
from steering.evaluation.multiple_choice import utility
from steering.evaluation.preference import evaluate
from steering.evaluation.statistics import Estimate, estimate, paired
from steering.experiments.bench import Bench, ways_at
from steering.experiments.registry import Experiment
from steering.experiments.result import Lines, Result

MULTIPLIERS = (-2.0, -1.0, 0.0, 1.0, 2.0)
COLUMNS = ("multiplier", "true answer preferred", "made up, as written", "fluency", "questions right")


def run(bench: Bench) -> Generator[str | Result, None, None]:
    """Measure the hallucination vector: below 0 it steers away from making things up."""
    subject = yield from bench.subject((bench.vectors or EXPERIMENT.vectors)[0])
    yield "scoring true and made-up answers"
    preferred = evaluate(bench.model, subject.vector, subject.held_out, MULTIPLIERS)
    bench.check_stop()
    yield "asking multiple-choice questions"
    right = utility(bench.model, subject.vector, MULTIPLIERS)
    written = yield from bench.write(
        subject.name, ways_at(subject.name, subject.vector, MULTIPLIERS), bench.prompts(subject)
    )
    rows, points, scores = [], [], {}
    for m, result, share in zip(MULTIPLIERS, preferred, right, strict=True):
        arm = Arm(subject.name, m) if m else UNTOUCHED
        scores[m] = bench.scores(subject, written, arm)
        low, high = result.accuracy_interval
        truth = Estimate(1 - result.preference_accuracy, 1 - high, 1 - low, result.pairs)
        rows.append((m, truth, estimate(scores[m]), written.fluency(arm), share))
        points.append((m, truth))
    best, plain = max(points[:2], key=lambda point: point[1].mean), points[2]
    gain = 100 * (best[1].mean - plain[1].mean)
    fewer = paired(scores[best[0]], scores[0.0])
    verdict = (
        f"At {best[0]:+g} the model prefers the true answer in {best[1].mean:.0%} of {best[1].count} pairs, against "
        f"{plain[1].mean:.0%} untouched ({gain:+.0f} points); what it writes is made up "
        f"{'less' if fewer.gap.mean < 0 else 'more'} by {abs(fewer.gap.mean):.2f}"
        f"{'' if fewer.is_clear else ', not told apart from chance'}."
    )
    notes = (
        bench.judge_note(subject),
        "The judge sees how an answer is worded (sure of itself, or admitting not to know), not whether its facts are "
        "true.",
    )
    picture = Lines({"true answer preferred": points}, "multiplier", "share of held-out pairs")
    yield Result(COLUMNS, tuple(rows), verdict, notes, picture, gain > 0 and fewer.is_clear and fewer.gap.mean < 0)


EXPERIMENT = Experiment(
    name="truthfulness",
    title="Truthfulness",
    question="Does steering away from hallucination make the model prefer true answers, without loss of knowledge?",
    paper="Figure 2: TruthfulQA MC1 and MC2 rise with the multiplier (Llama-2-7b-chat; curves without a table).",
    run=run,
    minutes=3.5,
    vectors=("hallucination",),
)
