"""Speed of an evaluation's writing: ours, judged and with KL divergences, against steering-vectors writing the same
texts.

    python -m tests.benchmarks.evaluation [--prompts 6] [--rounds 5]

steering-vectors runs if it is installed, see `tests/benchmarks/generation.py`: it answers one prompt at one multiplier
after another by transformers' `generate`, in turn with ours. Both write up to 40 tokens an answer, greedy with the same
repetition penalty; ours also reads each text again, has it judged, and runs the untouched model along for fluency and
KL.
"""

import argparse
import statistics
import time

import torch

from steering import load_model, paths, read_pairs
from steering.evaluation.answers import UNTOUCHED, Arm
from steering.evaluation.baselines import Way
from steering.evaluation.judges import judge_named
from steering.evaluation.judges.judge import JudgeContext
from steering.evaluation.prompts import open_prompts
from steering.evaluation.settings import COARSE, EvaluationSettings
from steering.evaluation.writer import Writer
from steering.generation.request import prompt_ids
from steering.vectors.vector import SteeringVector


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    model = load_model()
    vector = SteeringVector.load(paths.shipped("vectors") / "cheerful.safetensors")
    pairs = read_pairs(paths.shipped("assets") / "examples" / "cheerful.csv")
    settings = EvaluationSettings(tuple(open_prompts()[: options.prompts]), finer=(), baselines=())
    judge = judge_named("offline").make(JudgeContext(model, pairs, vector.behavior, settings.max_new_tokens))
    ours, theirs = [], []
    for number in range(options.rounds + 1):
        seconds = (write(model, vector, settings, judge), peer(model, vector, settings))
        if number:  # the first round warms up
            ours.append(seconds[0])
            theirs.append(seconds[1])
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    spread = f"[{min(ratios):.1f}, {max(ratios):.1f}]"
    print(f"ours {statistics.median(ours):.1f} s, steering-vectors {statistics.median(theirs):.1f} s")
    print(f"{statistics.median(ratios):.1f} x {spread}, {len(ratios)} rounds")


def write(model, vector, settings, judge) -> float:
    """Write and judge the answers at 0 and at each multiplier; return the seconds."""
    began = time.perf_counter()
    writer = Writer(model, settings, judge, None, lambda: False)
    prompts = range(len(settings.prompts))
    writer.write([Way(UNTOUCHED), Way(Arm("v", COARSE[0]), vector)], prompts)
    for start in range(1, len(COARSE), 2):
        writer.write([Way(Arm("v", m), vector) for m in COARSE[start : start + 2]], prompts)
    return time.perf_counter() - began


def peer(model, vector, settings) -> float:
    """Write the same answers with steering-vectors; return the seconds."""
    from steering_vectors import SteeringVector as Theirs

    began = time.perf_counter()
    for multiplier in (0.0, *COARSE):
        handle = Theirs(dict(vector.directions)).patch_activations(model.network, multiplier=multiplier)
        for prompt in settings.prompts:
            ids = torch.tensor([prompt_ids(model, prompt, system=settings.system)])
            model.network.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=settings.max_new_tokens,
                do_sample=False,
                repetition_penalty=settings.repetition_penalty,
                pad_token_id=0,
            )
        handle.remove()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
