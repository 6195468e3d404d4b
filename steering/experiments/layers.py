"""Layer by multiplier: where in the model the behavior is steered best, by what is written.

Cao et al., arXiv 2406.00045, figure 8 (layers of Llama-2-7b-chat, by GPT-4 on generated answers).
"""

from collections.abc import Generator

from steering.evaluation.answers import UNTOUCHED, Arm, composite
from steering.evaluation.statistics import Estimate, estimate
from steering.experiments.bench import Bench, Written, ways_at
from steering.experiments.registry import Experiment
from steering.experiments.result import Heat, Result

MULTIPLIERS = (-2.0, -1.0, 1.0, 2.0)
LAYERS = 6
"""At even distances, from a sixth of the depth on: a vector near the embedding does little in any model we tried."""
COLUMNS = ("layer", "multiplier", "behavior", "fluency", "composite")


def layers_of(count: int) -> list[int]:
    """Choose the layers of a model with so many blocks.

    >>> layers_of(30)
    [5, 9, 13, 17, 21, 25]
    """
    first, step = count // 6, max(1, (count - count // 6) // LAYERS)
    return list(dict.fromkeys(min(count - 1, first + step * n) for n in range(LAYERS)))


def run(bench: Bench) -> Generator[str | Result, None, None]:
    """Train a vector at each layer, or take it from the folder, and measure it at each multiplier."""
    subject = yield from bench.subject((bench.vectors or EXPERIMENT.vectors)[0])
    layers, prompts = layers_of(bench.model.num_layers), bench.prompts(subject)
    rows: list[tuple[float, float, Estimate, Estimate, Estimate]] = []
    found: dict[tuple[int, float], float] = {}
    notes = (bench.judge_note(subject), "Composite: behavior, relevance and fluency, 0 to 2; below 0 the opposite.")
    for layer in layers:
        yield f"training {subject.name} at layer {layer}"
        vector = bench.trained(f"{subject.name}-{layer}", subject.trained, subject.held_out, layer=layer)
        written = yield from bench.write(f"layer-{layer}", ways_at(subject.name, vector, (0.0, *MULTIPLIERS)), prompts)
        for m in MULTIPLIERS:
            arm = Arm(subject.name, m)
            behavior = bench.scores(subject, written, arm)
            total = estimate(_composites(written, arm, behavior))
            rows.append((float(layer), m, estimate(behavior), written.fluency(arm), total))
            found[layer, m] = total.mean
        yield Result(COLUMNS, tuple(rows), "", notes, _heat(layers, found))
    means = {layer: sum(found[layer, m] for m in (-1.0, 1.0)) / 2 for layer in layers}
    best = max(means, key=lambda layer: means[layer])
    usual = subject.vector.layers[0]
    verdict = (
        f"At +1 and -1 layer {best} does best (composite {means[best]:.2f}); the shipped vector is at layer {usual}, "
        f"and the worst of those tried is {min(means, key=lambda layer: means[layer])} ({min(means.values()):.2f})."
    )
    yield Result(COLUMNS, tuple(rows), verdict, notes, _heat(layers, found))


def _composites(written: Written, arm: Arm, behavior: list[float | None]) -> list[float | None]:
    """Return the composite of each answer; below 0 the opposite of the behavior is wanted."""
    if arm == UNTOUCHED:
        raise ValueError("the untouched model has no side")
    wanted = [None if b is None else 1 - b if arm.multiplier < 0 else b for b in behavior]
    return [
        composite(b, answer.relevance, answer.fluency) for b, answer in zip(wanted, written.answers[arm], strict=True)
    ]


def _heat(layers: list[int], found: dict[tuple[int, float], float]) -> Heat:
    values = tuple(tuple(found.get((layer, m)) for m in MULTIPLIERS) for layer in layers)
    columns = tuple(f"{m:+g}" for m in MULTIPLIERS)
    return Heat(columns, tuple(map(str, layers)), values, "multiplier", "layer", "composite")


EXPERIMENT = Experiment(
    name="layers",
    title="Layer by multiplier",
    question="At which layer does a vector do most, at which multiplier, and does the text stay sound?",
    paper="Figure 8: layer 15 of 32 is best for Llama-2-7b-chat, 13 for Mistral-7B (curves without a table).",
    run=run,
    minutes=8.0,
    vectors=("power-seeking",),
)
