"""Training speed: the authors' way, our plain path and our fast path, on the same model and pairs, in one run.

    python -m tests.benchmarks.training [PAIRS] [--count 32] [--layer 14] [--batch-size 4] [--json]

One epoch each, same order, same signs; the results are asserted equal (every loss within 1e-3, cosine of the vectors at
least 0.9999) before any time is told. The fast path's first epoch also fills its cache; a second shows the step that
all later epochs take, as a share of this machine's measured matrix-multiply peak, counting necessary operations only.
"""

import argparse
import copy
import json
import platform
import time

import torch

from steering import load_model, paths, read_pairs
from steering.encoding import encode_pairs
from steering.pairs import Pairs
from steering.scoring import PairScorer
from steering.training import training_run
from steering.training.bipo import step_loss
from tests.authors_way import authors_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="?", default=paths.shipped("assets") / "examples" / "power-seeking.csv")
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--layer", type=int, default=14)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    model, pairs = load_model(), read_pairs(options.pairs)[: options.count]
    settings = {"seed": 0, "batch_size": options.batch_size, "epochs": 1, "learning_rate": 0.03, "beta": 0.1}

    policy, reference = copy.deepcopy(model.network), copy.deepcopy(model.network)
    began = time.perf_counter()
    wanted, steps = authors_run(
        policy,
        reference,
        policy.get_submodule(model.blocks_path)[options.layer],
        model.tokenizer,
        pairs,
        hidden_size=model.hidden_size,
        end_of_turn=model.prompts.end_of_turn,
        warmup_steps=1,
        **settings,
    )
    seconds = {"the authors' way": (time.perf_counter() - began) / len(steps)}
    del policy, reference
    for name, fast in (("our plain path", False), ("our fast path, first epoch", True)):
        began = time.perf_counter()
        *reports, done = training_run(
            model, pairs, Pairs.of([]), layer=options.layer, warmup_steps=1, fast=fast, keep_best=False, **settings
        )
        seconds[name] = (time.perf_counter() - began) / len(steps)
        losses = [report.loss for report in reports if report.loss is not None]
        worst = max(abs(ours - theirs) for ours, (theirs, *_) in zip(losses, steps, strict=True))
        cosine = float(torch.cosine_similarity(done.vector.directions[options.layer], wanted, dim=0))
        assert worst < 1e-3 and cosine > 0.9999, (name, worst, cosine)
    seconds["our fast path, later epochs"], flops = warm_step(model, pairs, options.layer, options.batch_size)
    peak = matrix_multiply_peak()

    ratios = {name: seconds["the authors' way"] / value for name, value in seconds.items()}
    share = flops / seconds["our fast path, later epochs"] / peak
    if options.json:
        print(json.dumps({"seconds_per_step": seconds, "ratios": ratios, "peak_gflops": peak / 1e9, "share": share}))
        return
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{len(pairs)} pairs, batches of {options.batch_size}, layer {options.layer} of {model.num_layers}")
    for name, value in seconds.items():
        print(f"{name:30} {value:6.2f} s a step   {ratios[name]:5.1f} x")
    print(f"matrix-multiply peak {peak / 1e9:.0f} GFLOP/s; a later-epoch step reaches {100 * share:.0f} % of it")


def warm_step(model, pairs, layer, batch_size) -> tuple[float, float]:
    """Seconds of one step with everything cached, and its necessary operations."""
    _, encoded = encode_pairs(model, pairs)
    scorer = PairScorer(model, encoded, layer)
    batches = [range(i, min(i + batch_size, len(pairs))) for i in range(0, len(pairs), batch_size)]
    for batch in batches:
        scorer.reference(batch)
    v = torch.full((model.hidden_size,), 0.1, requires_grad=True)
    step_loss(scorer, batches[0], {layer: v}, 1.0, 0.1)[0].backward()
    began = time.perf_counter()
    for batch in batches:
        step_loss(scorer, batch, {layer: v}, 1.0, 0.1)[0].backward()
    seconds = (time.perf_counter() - began) / len(batches)

    blocks = sum(p.numel() for b in model.blocks[layer + 1 :] for p in b.parameters() if p.dim() == 2)
    head = model.network.get_output_embeddings().weight.numel()
    own = sum(len(e.prompt) - len(scorer.prefix) + len(e.chosen) + len(e.rejected) - 2 for e in encoded)
    tokens = own + len(scorer.prefix) * len(batches)
    answers = sum(len(e.chosen) + len(e.rejected) - 1 for e in encoded)
    operations = 2 * 2 * (tokens * blocks + answers * head)  # forward, and backward to the activations
    return seconds, operations / len(batches)


def matrix_multiply_peak(seconds: float = 3.0) -> float:
    """Operations a second of a large float32 matrix product on this machine, the best of several."""
    a, b = torch.randn(1536, 1536), torch.randn(1536, 1536)
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * 1536**3 / best


if __name__ == "__main__":
    main()
