"""Training speed: the authors' way, our plain path and our fast path, on the same model and pairs, in one run.

    python -m tests.benchmarks.training [PAIRS] [--count 32] [--layer 14] [--batch-size 4] [--json]

One epoch each, same order, same signs; the results are asserted equal (every loss within 1e-3, cosine of the vectors at
least 0.9999) before any time is told. The fast path's first epoch also fills its cache; later epochs are run on it. The
share of this machine's matrix-multiply peak counts necessary operations only, and the peak is measured between the
steps, because a shared machine is now faster and now slower.
"""

import argparse
import copy
import json
import platform
import statistics
import time

import torch

from steering import load_model, paths, read_pairs
from steering.encoding import encode_pairs, shared_prefix
from steering.pairs import Pairs
from steering.scoring import PairScorer
from steering.training import training_run
from steering.training.steps import summed_gradient
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
    seconds["our fast path, later epochs"], flops, peak = later_epoch(model, pairs, options.layer, options.batch_size)

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


def later_epoch(model, pairs, layer, batch_size) -> tuple[float, float, float]:
    """Of a step with everything cached: seconds and necessary operations; and the matrix-multiply peak meanwhile."""
    _, encoded = encode_pairs(model, pairs)
    scorer = PairScorer(model, encoded, layer)
    batches = [range(i, min(i + batch_size, len(pairs))) for i in range(0, len(pairs), batch_size)]
    vectors = {layer: torch.full((model.hidden_size,), 0.1)}
    for batch in batches:
        scorer.reference(batch)
    summed_gradient(scorer, batches[0], vectors, (1.0,), beta=0.1)
    spent, peaks = 0.0, []
    for batch in batches:
        peaks.append(matrix_multiply_peak())
        began = time.perf_counter()
        summed_gradient(scorer, batch, vectors, (1.0,), beta=0.1)
        spent += time.perf_counter() - began
    operations = sum(necessary_operations(model, layer, [encoded[i] for i in batch]) for batch in batches)
    return spent / len(batches), operations / len(batches), statistics.median(peaks)


def necessary_operations(model, layer, pairs) -> float:
    """Forward, and backward to the activations, of one batch through the blocks after `layer` and the head.

    Every token of the tree once; attention only to a token's own ancestors; in the last block, whose prompt tokens
    nobody reads but attention, their keys and values only. No weight has a gradient.
    """
    prefix = len(shared_prefix(pair.prompt[:-1] for pair in pairs))
    answers = sum(len(p.chosen) + len(p.rejected) - 1 for p in pairs)  # the prompt's last token serves both
    tokens = prefix + sum(len(p.prompt) - prefix + len(p.chosen) + len(p.rejected) - 2 for p in pairs)
    looks = prefix * (prefix + 1) / 2  # pairs of (token, ancestor or itself)
    for p in pairs:
        own = len(p.prompt) - prefix
        looks += own * prefix + own * (own + 1) / 2
        looks += sum(n * len(p.prompt) + n * (n + 1) / 2 for n in (len(p.chosen) - 1, len(p.rejected) - 1))
    blocks = model.blocks[layer + 1 :]
    weights = [sum(p.numel() for p in block.parameters() if p.dim() == 2) for block in blocks]
    attention = blocks[-1].self_attn
    keys_and_values = attention.k_proj.weight.numel() + attention.v_proj.weight.numel()
    linear = sum(weights[:-1]) * tokens + weights[-1] * answers + keys_and_values * (tokens - answers)
    head = model.network.get_output_embeddings().weight.numel() * answers
    products = 2 * looks * model.hidden_size * len(blocks)  # queries with keys, shares with values
    return 2 * 2 * (linear + head) + 2 * 3 * products


def matrix_multiply_peak(times: int = 2) -> float:
    """Operations a second of a large float32 matrix product on this machine, now."""
    a, b = torch.randn(1536, 1536), torch.randn(1536, 1536)
    best = float("inf")
    for _ in range(times):
        began = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - began)
    return 2 * 1536**3 / best


if __name__ == "__main__":
    main()
