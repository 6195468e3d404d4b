"""Which vector of a run is best: the one with the lowest held-out loss, or the one that writes best?

    python -m tests.benchmarks.selection [BEHAVIOR ...]

Trains BiPO on each example set once, keeping the vector of each half epoch. Both ways of choosing see the same held-out
pairs; what they chose is then measured on other prompts by a judge fitted on those prompts' pairs, on answers of 40
tokens at -1 and +1: behavior in the wanted direction times fluency, with the paired difference.
"""

import sys
import time
from dataclasses import replace

import numpy as np

import steering
from steering import paths
from steering.evaluation.answers import Arm
from steering.evaluation.baselines import Way
from steering.evaluation.judges import judge_named
from steering.evaluation.judges.judge import JudgeContext
from steering.evaluation.prompts import distinct_prompts
from steering.evaluation.settings import EvaluationSettings
from steering.evaluation.statistics import paired
from steering.evaluation.writer import Writer
from steering.pairs.dataset import read_pairs
from steering.training.methods.bipo.train import BiPOConfig, BiPORun
from steering.training.registry import RunContext
from steering.training.written_effect import WrittenEffect

BEHAVIORS = ("cheerful", "formal", "hallucination", "pirate", "poetic", "power-seeking")
LAYER, EPOCHS, A_RUN = 14, 4, 8
"""Layer and epochs of the shipped vectors; measurements of a run."""


def main() -> None:
    """Measure, and print a line a behavior and the sums."""
    model = steering.load_model()
    gaps: list[float] = []
    for name in sys.argv[1:] or BEHAVIORS:
        pairs = read_pairs(paths.shipped("assets") / "examples" / f"{name}.csv")
        rest, test = pairs.split(0.25, 1)
        training, held_out = rest.split(0.2, 0)
        began = time.monotonic()
        run = BiPORun(model, training, held_out, BiPOConfig(layer=LAYER, epochs=EPOCHS, keep_best=False), RunContext())
        for _ in run.prepare():
            pass
        judge, found = WrittenEffect(model, training, held_out), []
        every = max(1, run.total_steps // A_RUN)
        seconds = 0.0
        for progress in run.steps():
            if progress.step % every == 0:
                _, loss = run.trainer.measure()
                vector = run.vector()
                at = time.monotonic()
                found.append((progress.step, loss, judge.score(vector) or 0.0, vector))
                seconds += time.monotonic() - at
        whole = time.monotonic() - began
        by_loss, by_text = min(found, key=lambda f: f[1]), max(found, key=lambda f: f[2])
        scores = written(model, test, {"loss": by_loss[3], "text": by_text[3], "last": found[-1][3]})
        difference = paired(scores["text"], scores["loss"])
        gaps += [a - b for a, b in zip(scores["text"], scores["loss"], strict=True)]
        means = {key: float(np.mean(values)) for key, values in scores.items()}
        print(
            f"{name:14} by loss: step {by_loss[0]:3} {means['loss']:.3f}; by text: step {by_text[0]:3} "
            f"{means['text']:.3f}; last {means['last']:.3f}; text less loss {difference.gap.mean:+.3f} "
            f"[{difference.gap.low:+.3f}, {difference.gap.high:+.3f}], p {difference.p_value:.2f}; measuring text "
            f"{seconds:.0f} s of {whole:.0f} s",
            flush=True,
        )
        print("   ", [(step, round(loss, 3), round(score, 3)) for step, loss, score, _ in found], flush=True)
    together = paired(gaps, [0.0] * len(gaps))
    print(
        f"all: {together.gap.mean:+.3f} [{together.gap.low:+.3f}, {together.gap.high:+.3f}], p {together.p_value:.3f}"
    )


def written(model, pairs, vectors) -> dict[str, list[float]]:  # type: ignore[no-untyped-def]
    """Measure what vectors write to prompts that no choice has seen: behavior times fluency, an answer each."""
    settings = EvaluationSettings(tuple(distinct_prompts(pairs)), (), (), 40, baselines=())
    judge = judge_named("offline").make(JudgeContext(model, pairs, "", 40))
    writer = Writer(model, settings, judge, None, lambda: False)
    scores = {}
    for name, vector in vectors.items():
        arms = [Arm(name, sign) for sign in (1.0, -1.0)]
        writer.write([Way(arm, replace(vector, name=name)) for arm in arms], range(len(settings.prompts)))
        scores[name] = [
            (a.behavior if a.arm.multiplier > 0 else 1 - a.behavior) * (a.fluency or 0.0)
            for arm in arms
            for a in writer.of(arm)
        ]
    return scores


if __name__ == "__main__":
    main()
