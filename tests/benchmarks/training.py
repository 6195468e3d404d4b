"""Training speed: the authors' way, our plain path and our fast path, on the same model and pairs, in one run.

    python -m tests.benchmarks.training [PAIRS] [--count 32] [--layer 14] [--batch-size 4] [--lean-authors] [--json]

One epoch each, same order, same signs. The four take every step in turn, so that a machine that is now faster and now
slower is so for all of them; the authors' way has a process of its own, where nothing of ours is in its way. The fast
path's first epoch also fills its cache; its later epochs are its step with everything cached. No figure is told unless
the results are equal (every loss within 1e-3, cosine of the vectors at least 0.9999). The share of this machine's
matrix-multiply peak counts necessary operations only; the peak is measured between the steps.
"""

import argparse
import copy
import json
import multiprocessing
import platform
import statistics
import time
from collections import defaultdict
from functools import partial

import torch

from steering import load_model, paths, read_pairs
from steering.pairs.dataset import Pairs
from steering.pairs.tokenization import encode_pairs, shared_prefix
from steering.scoring.scorer import PairScorer
from steering.training import training_run
from steering.training.methods.bipo.step import summed_gradient
from tests.authors_way import authors_run

AUTHORS, PLAIN, FIRST, LATER = (
    "the authors' way",
    "our plain path",
    "our fast path, first epoch",
    "our fast path, later epochs",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="?", default=paths.shipped("assets") / "examples" / "power-seeking.csv")
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--layer", type=int, default=14)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--lean-authors", action="store_true", help="without the loss their code leaves unused")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    model, pairs = load_model(), read_pairs(options.pairs)[: options.count]
    seconds, flops, peak = measured(model, pairs, options.layer, options.batch_size, not options.lean_authors)

    ratios = {name: seconds[AUTHORS] / value for name, value in seconds.items()}
    share = flops / seconds[LATER] / peak
    if options.json:
        print(json.dumps({"seconds_per_step": seconds, "ratios": ratios, "peak_gflops": peak / 1e9, "share": share}))
        return
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{len(pairs)} pairs, batches of {options.batch_size}, layer {options.layer} of {model.num_layers}")
    for name, value in seconds.items():
        print(f"{name:30} {value:6.2f} s a step   {ratios[name]:5.1f} x")
    print(f"matrix-multiply peak {peak / 1e9:.0f} GFLOP/s; a later-epoch step reaches {100 * share:.0f} % of it")


def measured(model, pairs, layer, batch_size, unused_loss) -> tuple[dict[str, float], float, float]:
    """Seconds a step of each way; a later step's necessary operations; and the matrix-multiply peak meanwhile."""
    settings = {"seed": 0, "batch_size": batch_size, "epochs": 1, "learning_rate": 0.03, "beta": 0.1, "warmup_steps": 1}
    authors = authors_apart(pairs, layer, {**settings, "unused_loss": unused_loss})
    ours = {
        name: training_run(model, pairs, Pairs.of([]), layer=layer, fast=fast, keep_best=False, **settings)
        for name, fast in ((PLAIN, False), (FIRST, True))
    }
    _, encoded = encode_pairs(model, pairs)
    scorer = PairScorer(model, encoded, layer)
    scorer.arrange_weights()
    vectors = {layer: torch.full((model.hidden_size,), 0.1)}

    def later_step(batch) -> None:
        summed_gradient(scorer, batch, vectors, (1.0,), beta=0.1)

    later_step(range(min(batch_size, len(pairs))))  # whatever is made once

    spent, peaks, operations, worst = defaultdict(list), [], [], 0.0

    def timed(name, work):
        began = time.perf_counter()
        result = work()
        spent[name].append(time.perf_counter() - began)
        return result

    def next_step(run):
        return next(report for report in run if report.loss is not None)

    for theirs, seconds in authors:
        spent[AUTHORS].append(seconds)
        for name, run in ours.items():
            report = timed(name, partial(next_step, run))
            worst = max(worst, abs(report.loss - theirs.loss))
        scorer.reference(theirs.batch)
        timed(LATER, partial(later_step, theirs.batch))
        peaks.append(matrix_multiply_peak())
        operations.append(necessary_operations(model, layer, [encoded[i] for i in theirs.batch]))
    for name, run in ours.items():
        *_, done = run
        cosine = float(torch.cosine_similarity(done.vector.directions[layer], theirs.vector, dim=0))
        assert worst < 1e-3 and cosine > 0.9999, (name, worst, cosine)
    means = {name: statistics.fmean(times) for name, times in spent.items()}
    return means, statistics.fmean(operations), statistics.median(peaks)


def authors_apart(pairs, layer, settings):
    """Every step the authors' way and its seconds, taken in another process when asked for."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_take_steps, args=(there, pairs, layer, settings), daemon=True
    )
    process.start()
    there.close()
    while True:
        here.send("next")
        result = here.recv()
        if result is None:
            break
        yield result
    process.join()


def _take_steps(connection, pairs, layer, settings) -> None:
    model = load_model()
    policy, reference = model.network, copy.deepcopy(model.network)
    block, sizes = policy.get_submodule(model.blocks_path)[layer], {"hidden_size": model.hidden_size}
    sizes["end_of_turn"] = model.prompts.end_of_turn
    run = authors_run(policy, reference, block, model.tokenizer, pairs, **sizes, **settings)
    while connection.recv():
        began = time.perf_counter()
        step = next(run, None)
        connection.send(step and (step, time.perf_counter() - began))
        if step is None:
            break


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
