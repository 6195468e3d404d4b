"""Timeline: how a vector grows from epoch to epoch, and how it fares while the model itself is being tuned.

After the idea of representation plasticity (Kannan, arXiv 2410.06225); only measured, nothing is trained its way.
"""

from collections.abc import Generator

from steering.evaluation.answers import Arm
from steering.evaluation.preference import evaluate
from steering.evaluation.statistics import Estimate, paired
from steering.experiments.bench import Bench, Subject, cosine, ways_at
from steering.experiments.lora_copy import lora_copies
from steering.experiments.registry import Experiment
from steering.experiments.result import Cell, Lines, Result
from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs
from steering.training.pipeline import train, training_run
from steering.vectors.vector import SteeringVector

EPOCHS = 4
TUNED_ON = "formal"
TUNING_EPOCHS = 2
COLUMNS = ("step", "norm", "cosine with the last", "margin at +1, nats", "effect, as written", "fluency at +1")


def run(bench: Bench) -> Generator[str | Result, None, None]:
    """Measure the vector after each epoch, then one vector on each checkpoint of a fine-tune."""
    subject = yield from bench.subject((bench.vectors or EXPERIMENT.vectors)[0])
    yield f"training {subject.name}, keeping every epoch"
    vectors = _by_epoch(bench, subject)
    prompts, rows, points = bench.prompts(subject), [], []
    for epoch, vector in enumerate(vectors, start=1):
        effect, fluency = yield from _effect(bench, subject, vector, bench.model, f"epoch-{epoch}", prompts)
        (result,) = evaluate(bench.model, vector, subject.held_out, [1.0])
        rows.append(
            (f"epoch {epoch}", vector.norm, cosine(vector, vectors[-1]), result.preference_margin, effect, fluency)
        )
        points.append((float(epoch), effect))
        yield Result(COLUMNS, tuple(rows))
    plain = [_mean_difference(bench.model, subject)]
    yield f"tuning a copy on {TUNED_ON} with LoRA"
    tuned_on = yield from bench.subject(TUNED_ON)
    tuned: list[tuple[float, Estimate]] = [(0.0, points[-1][1])]
    last = vectors[-1]
    file = bench.folder and bench.folder / "vectors" / f"lora-{TUNED_ON}-{bench.seed}.pt"
    copies = lora_copies(
        bench.model, tuned_on.trained, epochs=TUNING_EPOCHS, seed=bench.seed, file=file, should_stop=bench.should_stop
    )
    for epoch, model in enumerate(copies, start=1):
        plain.append(_mean_difference(model, subject))
        effect, fluency = yield from _effect(bench, subject, last, model, f"tuned-{epoch}", prompts)
        (result,) = evaluate(model, last, subject.held_out, [1.0])
        name = f"last vector, model tuned {epoch} epoch{'s' if epoch > 1 else ''}"
        cells: tuple[Cell, ...] = (
            name, last.norm, cosine(plain[-1], plain[0]), result.preference_margin, effect, fluency
        )  # fmt: skip
        rows.append(cells)  # type: ignore[arg-type]
        tuned.append((float(epoch), effect))
        yield Result(COLUMNS, tuple(rows))
    bench.check_stop()
    first = next((n for n, (_, e) in enumerate(points, start=1) if e.mean >= 0.9 * points[-1][1].mean), len(points))
    kept = tuned[-1][1].mean / points[-1][1].mean if points[-1][1].mean else float("nan")
    verdict = (
        f"Nine tenths of the last effect are there after epoch {first} of {len(points)}; the direction then turns no "
        f"more than to a cosine of {rows[first - 1][2]:.2f} with the last. After {TUNING_EPOCHS} epochs of tuning the "
        f"model on {TUNED_ON} the vector keeps {kept:.0%} of its effect."
    )
    notes = (
        bench.judge_note(subject),
        "On the tuned models the cosine is that of the pairs' mean difference there with the one on the untouched "
        "model: how far the behavior's own direction has moved.",
    )
    picture = Lines({"trained": points, "model tuned": tuned}, "epoch", "effect from -1 to +1 (judge)")
    yield Result(COLUMNS, tuple(rows), verdict, notes, picture)


def _by_epoch(bench: Bench, subject: Subject) -> list[SteeringVector]:
    """Train once and return the vector after each epoch; as many as were trained."""
    epochs, vectors = bench.epochs or EPOCHS, []
    reports = training_run(
        bench.model,
        subject.trained,
        subject.held_out,
        should_stop=bench.should_stop,
        epochs=epochs,
        keep_best=False,
        seed=bench.seed,
        layer=subject.vector.layers[0],
    )
    for progress in reports:
        whole = abs(progress.epoch - round(progress.epoch)) < 1e-9
        if progress.stage == "training" and progress.vector is not None and whole:
            vectors.append(progress.vector)
    bench.check_stop()
    return vectors


def _effect(
    bench: Bench, subject: Subject, vector: SteeringVector, model: LanguageModel, part: str, prompts: list[str]
) -> Generator[str, None, tuple[Estimate, Estimate]]:
    """Return the behavior at +1 less that at -1, and the fluency at +1."""
    written = yield from bench.write(part, ways_at(part, vector, (-1.0, 1.0)), prompts, model=model)
    low, high = (bench.scores(subject, written, Arm(part, m)) for m in (-1.0, 1.0))
    return paired(high, low).gap, written.fluency(Arm(part, 1.0))


def _mean_difference(model: LanguageModel, subject: Subject) -> SteeringVector:
    return train(model, subject.trained, "caa", held_out=Pairs.of([]), layer=subject.vector.layers[0])


EXPERIMENT = Experiment(
    name="timeline",
    title="Timeline",
    question="When in training does a vector get its effect, and does it keep it while the model is tuned further?",
    paper="Figure 8: the effect stabilises with the epochs (curves without a table). Of tuned models the paper says "
    "nothing; the idea is Kannan's (arXiv 2410.06225).",
    run=run,
    minutes=9.0,
    vectors=("power-seeking",),
)
