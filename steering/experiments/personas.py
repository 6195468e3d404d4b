"""Personas over a range of intensities: does the behavior follow the multiplier, further than a mean difference's?

Cao et al., arXiv 2406.00045, section 4.2 and figure 1.
"""

from collections.abc import Generator
from dataclasses import replace

from steering.evaluation.answers import UNTOUCHED, Arm
from steering.evaluation.statistics import Estimate, estimate, paired
from steering.experiments.bench import Bench, ways_at
from steering.experiments.registry import Experiment
from steering.experiments.result import Lines, Result
from steering.pairs.dataset import Pairs
from steering.training.config import one_or_all

MULTIPLIERS = (-2.0, -1.0, 0.0, 1.0, 2.0)
"""Those of the paper's figure."""
MEAN_DIFFERENCE = "mean difference"
COLUMNS = ("persona", "multiplier", "behavior", "fluency", "behavior, mean difference", "fluency, mean difference")
ROOM = 0.02
"""By which a score may fall from one multiplier to the next and still count as rising: less is seen by nobody."""


def run(bench: Bench) -> Generator[str | Result, None, None]:
    """Measure each persona at each multiplier, beside its mean difference at the same norm."""
    rows: list[tuple[str, float, Estimate, Estimate, Estimate, Estimate]] = []
    lines: dict[str, list[tuple[float, Estimate]]] = {}
    said, notes, holds = [], [], []
    for name in bench.vectors or EXPERIMENT.vectors:
        subject = yield from bench.subject(name)
        layers = list(subject.vector.layers)
        yield f"making the mean difference of {name}"
        plain = bench.trained(
            f"{name}-caa", subject.trained, Pairs.of([]), method="caa", layer=one_or_all(tuple(layers))
        )
        plain = plain * (subject.vector.norm / max(plain.norm, 1e-12))
        ways = [
            *ways_at(name, subject.vector, MULTIPLIERS),
            *ways_at(MEAN_DIFFERENCE, replace(plain, name=MEAN_DIFFERENCE), [m for m in MULTIPLIERS if m]),
        ]
        written = yield from bench.write(name, ways, bench.prompts(subject))
        scores = {way.arm: bench.scores(subject, written, way.arm) for way in ways}
        for m in MULTIPLIERS:
            both = [Arm(who, m) if m else UNTOUCHED for who in (name, MEAN_DIFFERENCE)]
            found = [part for arm in both for part in (estimate(scores[arm]), written.fluency(arm))]
            rows.append((name, m, *found))  # type: ignore[arg-type]
            lines.setdefault(name, []).append((m, found[0]))
            lines.setdefault(f"{name}, {MEAN_DIFFERENCE}", []).append((m, found[2]))
        means = [point.mean for _, point in lines[name]]
        rises = all(b >= a - ROOM for a, b in zip(means, means[1:], strict=False))
        spans = [_spans(scores, who) for who in (name, MEAN_DIFFERENCE)]
        wider = paired(spans[0], spans[1])
        what = "wider than" if wider.gap.mean > 0 else "narrower than"
        clear = what if wider.is_clear else "not told apart from"
        said.append(
            f"{name}: the behavior {'rises with the multiplier' if rises else 'does not rise all the way'}, and its "
            f"range of {estimate(spans[0]).mean:.2f} is {clear} that of the mean difference "
            f"({estimate(spans[1]).mean:.2f})."
        )
        holds.append(rises and wider.is_clear and wider.gap.mean > 0)
        notes.append(bench.judge_note(subject))
        yield Result(COLUMNS, tuple(rows), "", tuple(notes), Lines(lines, "multiplier", "behavior (judge)"))
    picture = Lines(lines, "multiplier", "behavior (judge)")
    yield Result(COLUMNS, tuple(rows), " ".join(said), tuple(notes), picture, all(holds))


def _spans(scores: dict[Arm, list[float | None]], who: str) -> list[float | None]:
    """Return, prompt by prompt, the behavior at the highest multiplier less that at the lowest."""
    low, high = (scores[Arm(who, end)] for end in (MULTIPLIERS[0], MULTIPLIERS[-1]))
    return [None if a is None or b is None else b - a for a, b in zip(low, high, strict=True)]


EXPERIMENT = Experiment(
    name="personas",
    title="Personas, weaker and stronger",
    question="Does a persona follow the multiplier both ways, and over a wider range than the mean difference (CAA)?",
    paper="Figure 1: from -2 to +2 BiPO's scores rise with the multiplier, over a wider range than CAA's and "
    "Freeform's (Llama-2-7b-chat, GPT-4 as judge; curves without a table).",
    run=run,
    minutes=3.0,
    vectors=("power-seeking", "pirate"),
)
