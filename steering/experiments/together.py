"""Several vectors at once: does each keep its effect, do they help or hinder one another?

Cao et al., arXiv 2406.00045, table 6: the sum of two vectors at one layer moves both behaviors.
"""

from collections.abc import Generator, Mapping, Sequence

from steering.evaluation.answers import UNTOUCHED, Arm
from steering.evaluation.baselines import Way
from steering.evaluation.statistics import Difference, estimate, paired
from steering.experiments.bench import Bench, cosine
from steering.experiments.registry import Experiment
from steering.experiments.result import Heat, Result
from steering.vectors.vector import SteeringVector

MULTIPLIERS = (-1.0, 0.0, 1.0)
Scores = Mapping[tuple[float, float], Sequence[float | None]]
"""(multiplier of the first, of the second) -> behavior, prompt by prompt."""


def run(bench: Bench) -> Generator[str | Result, None, None]:
    """Write at each pair of multipliers; judge each text for both behaviors."""
    names = (*bench.vectors, *EXPERIMENT.vectors)[:2]
    first = yield from bench.subject(names[0])
    second = yield from bench.subject(names[1])
    grid = [(a, b) for b in MULTIPLIERS for a in MULTIPLIERS]
    ways = [way_of_sum(first.vector, a, second.vector, b) for a, b in grid]
    half = max(1, bench.prompt_count // 2)
    prompts = [*bench.prompts(first)[:half], *bench.prompts(second)[: bench.prompt_count - half]]
    written = yield from bench.write("grid", ways, prompts)
    scores: list[Scores] = [
        {place: bench.scores(subject, written, way.arm) for place, way in zip(grid, ways, strict=True)}
        for subject in (first, second)
    ]
    rows = tuple(
        (a, b, estimate(scores[0][a, b]), estimate(scores[1][a, b]), written.fluency(way.arm))
        for (a, b), way in zip(grid, ways, strict=True)
    )
    labels = tuple(f"{m:+g}" if m else "0" for m in MULTIPLIERS)
    values = tuple(tuple(_both(scores, a, b) for a in MULTIPLIERS) for b in MULTIPLIERS)
    picture = Heat(labels, labels, values, first.name, second.name, "mean of both behaviors (judge)")
    helped = [paired(scores[0][1.0, 1.0], scores[0][1.0, 0.0]), paired(scores[1][1.0, 1.0], scores[1][0.0, 1.0])]
    kept = [_kept(scores[0], 0), _kept(scores[1], 1)]
    verdict = (
        f"With both at +1, {first.name} {_words(helped[0])} and {second.name} {_words(helped[1])} against each alone; "
        f"beside the other, {first.name} keeps {kept[0]:.0%} and {second.name} {kept[1]:.0%} of its effect."
    )
    notes = (
        bench.judge_note(first),
        bench.judge_note(second),
        f"Cosine of the two vectors: {cosine(first.vector, second.vector):+.2f}.",
    )
    holds = all(not (each.is_clear and each.gap.mean < 0) for each in helped) and min(kept) > 0.5
    columns = (first.name, second.name, f"behavior {first.name}", f"behavior {second.name}", "fluency")
    yield Result(columns, rows, verdict, notes, picture, holds)


def way_of_sum(first: SteeringVector, a: float, second: SteeringVector, b: float) -> Way:
    """Steer by the sum of two vectors at their multipliers."""
    if not a and not b:
        return Way(UNTOUCHED)
    parts = [vector * m for vector, m in ((first, a), (second, b)) if m]
    vector = parts[0] if len(parts) == 1 else parts[0] + parts[1]
    return Way(Arm(f"{a:+g} and {b:+g}", 1.0), vector)


def _both(scores: Sequence[Scores], a: float, b: float) -> float | None:
    means = [estimate(each[a, b]).mean for each in scores]
    return sum(means) / 2 if all(mean == mean for mean in means) else None


def _kept(scores: Scores, axis: int) -> float:
    """Return a vector's effect from -1 to +1 with the other at +1, as a share of that with the other at 0."""
    effects = []
    for other in (0.0, 1.0):
        ends = [(m, other) if axis == 0 else (other, m) for m in (-1.0, 1.0)]
        effects.append(paired(scores[ends[1]], scores[ends[0]]).gap.mean)
    return effects[1] / effects[0] if effects[0] else float("nan")


def _words(helped: Difference) -> str:
    if not helped.is_clear:
        return f"is as strong ({helped.gap.mean:+.2f}, not told apart)"
    return f"is {'stronger' if helped.gap.mean > 0 else 'weaker'} ({helped.gap.mean:+.2f})"


EXPERIMENT = Experiment(
    name="together",
    title="Two vectors together",
    question="What do two vectors do alone and together: does one strengthen the other, or get in its way?",
    paper="Table 6: power-seeking at +1 scores 2.38 with its own vector and 2.67 with the wealth-seeking one added "
    "(hallucination 2.64 and 3.24): related vectors strengthen one another (scale 1 to 4, GPT-4 as judge).",
    run=run,
    minutes=3.0,
    vectors=("power-seeking", "cheerful"),
)
