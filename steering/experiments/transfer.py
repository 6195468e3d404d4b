"""Transfer: does a vector work on a LoRA-tuned copy of its model, and on another checkpoint of the same width?

Cao et al., arXiv 2406.00045, section 4.5 and figure 3 (to Vicuna and Llama2-Chinese, and to LoRA models).
"""

from collections import deque
from collections.abc import Generator

import numpy as np

from steering.errors import SteeringError
from steering.evaluation.answers import UNTOUCHED, Arm
from steering.evaluation.statistics import LEVEL, RESAMPLES, Estimate, estimate
from steering.experiments.bench import Bench, Subject, Written, ways_at
from steering.experiments.lora_copy import lora_copies
from steering.experiments.registry import Experiment
from steering.experiments.result import Result
from steering.models.loading import LanguageModel, load_model

MULTIPLIERS = (-1.0, 0.0, 1.0)
KEPT = 0.8
"""Share of the effect that counts as transferred (asked for in this project)."""
COLUMNS = ("model", "behavior at -1", "behavior untouched", "behavior at +1", "effect", "effect kept", "fluency at +1")
Scores = dict[float, list[float | None]]


def run(bench: Bench) -> Generator[str | Result, None, None]:
    """Measure the vector on its own model, on a tuned copy, and on another checkpoint if one is named."""
    names = (*bench.vectors, *EXPERIMENT.vectors)[:2]
    subject = yield from bench.subject(names[0])
    tuned_on = yield from bench.subject(names[1])
    prompts, rows, kept = bench.prompts(subject), [], None
    own, written = yield from _measured(bench, subject, bench.model, "own", prompts)
    rows.append(_row(bench.model.name, own, written, subject, None))
    yield Result(COLUMNS, tuple(rows))
    before = estimate(bench.scores(tuned_on, written, UNTOUCHED))
    yield f"tuning a copy on {tuned_on.name} with LoRA"
    file = bench.folder and bench.folder / "vectors" / f"lora-{tuned_on.name}-{bench.seed}.pt"
    copies = lora_copies(bench.model, tuned_on.trained, seed=bench.seed, file=file, should_stop=bench.should_stop)
    last = deque(copies, maxlen=1)  # each is as large as the model
    bench.check_stop()
    (copy,) = last
    theirs, written = yield from _measured(bench, subject, copy, "lora", prompts)
    kept = share_kept(theirs, own, bench.seed)
    rows.append(_row(copy.name, theirs, written, subject, kept))
    after = estimate(bench.scores(tuned_on, written, UNTOUCHED))
    notes = [
        bench.judge_note(subject),
        f"The copy was tuned on {len(tuned_on.trained)} answers of {tuned_on.name}: its untouched answers score "
        f"{after.mean:.2f} for that, the model's own {before.mean:.2f}.",
    ]
    if bench.other_model:
        yield f"loading {bench.other_model}"
        other = load_model(bench.other_model)
        try:
            subject.vector.check_fits(other.hidden_size, other.num_layers, other.name)
        except SteeringError as error:
            raise SteeringError(f"The vector cannot be transferred: {error}") from error
        theirs, written = yield from _measured(bench, subject, other, "other", prompts)
        rows.append(_row(other.name, theirs, written, subject, share_kept(theirs, own, bench.seed)))
    else:
        notes.append("Name another checkpoint of the same width with --other-model to measure that, too.")
    holds = kept.mean >= KEPT if kept.count else None
    verdict = f"{subject.name} has no effect on its own model, so there is nothing to transfer."
    if kept.count:
        verdict = (
            f"On the LoRA-tuned copy {subject.name} keeps {kept.mean:.0%} [{kept.low:.0%}, {kept.high:.0%}] of its "
            f"effect{'' if holds else f', less than {KEPT:.0%}'}."
        )
    yield Result(COLUMNS, tuple(rows), verdict, tuple(notes), None, holds)


def _measured(
    bench: Bench, subject: Subject, model: LanguageModel, part: str, prompts: list[str]
) -> Generator[str, None, tuple[Scores, Written]]:
    written = yield from bench.write(part, ways_at(subject.name, subject.vector, MULTIPLIERS), prompts, model=model)
    arms = {m: Arm(subject.name, m) if m else UNTOUCHED for m in MULTIPLIERS}
    return {m: bench.scores(subject, written, arm) for m, arm in arms.items()}, written


def _row(name: str, scores: Scores, written: Written, subject: Subject, kept: Estimate | None) -> tuple:
    means = [estimate(scores[m]) for m in MULTIPLIERS]
    effect = means[2].mean - means[0].mean
    return (name, *means, effect, kept, written.fluency(Arm(subject.name, 1.0)))


def share_kept(theirs: Scores, own: Scores, seed: int = 0) -> Estimate:
    """Estimate the effect from -1 to +1 as a share of that on the vector's own model, prompts resampled together.

    Without values (`count` 0) if there is no effect on its own model.
    """
    gaps = [
        [np.nan if a is None or b is None else b - a for a, b in zip(scores[-1.0], scores[1.0], strict=True)]
        for scores in (theirs, own)
    ]
    both = np.array(gaps)[:, ~np.isnan(gaps).any(axis=0)]
    if not both.size or not both[1].mean():
        return estimate([])
    drawn = np.random.default_rng(seed).integers(both.shape[1], size=(RESAMPLES, both.shape[1]))
    means = both[:, drawn].mean(axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = np.nanquantile(means[0] / means[1], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(both[0].mean() / both[1].mean()), float(low), float(high), both.shape[1])


EXPERIMENT = Experiment(
    name="transfer",
    title="Transfer to other models",
    question="Does a vector still work on a LoRA-tuned copy of its model, and on another checkpoint of the same width?",
    paper="Figure 3: vectors of Llama-2-7b-chat steer Vicuna-7b, Llama2-Chinese-7b and LoRA models (curves without a "
    "table).",
    run=run,
    minutes=4.0,
    vectors=("power-seeking", "formal"),
)
