"""Training speed: the authors' way, our reference way and our fast way, on the same model and pairs, in one run.

    python -m tests.benchmarks.training [PAIRS] [--count 32] [--rounds 5] [--layer 14] [--batch-size 4]
                                        [--lean-authors] [--json]

One epoch each, same order, same signs. A round is one step: the four take it in turn, so that a machine that is now
faster and now slower is so for all of them; the authors' way has a process of its own, where nothing of ours is in its
way. The fast way's first epoch also fills its cache; its later epochs are its step with everything cached. Where an
epoch has fewer steps than rounds are asked for, all of it is repeated.

Ratios are taken round by round; printed are their median, lowest and highest. No figure is printed unless the results
are equal (every loss within 1e-3, the vectors within 1 % of their norm). The share of this machine's matrix-multiply
peak counts necessary operations only; the peak is measured between the steps.
"""

from steering.runtime.cpu_environment import configure_cpu

configure_cpu()  # as every entry point does, before torch is loaded

import argparse  # noqa: E402
import copy  # noqa: E402
import datetime  # noqa: E402
import json  # noqa: E402
import multiprocessing  # noqa: E402
import platform  # noqa: E402
import statistics  # noqa: E402
import time  # noqa: E402
from collections import defaultdict  # noqa: E402
from functools import partial  # noqa: E402

import torch  # noqa: E402

from steering import load_model, paths, read_pairs  # noqa: E402
from steering.pairs.dataset import Pairs  # noqa: E402
from steering.pairs.tokenization import encode_pairs, shared_prefix  # noqa: E402
from steering.scoring.scorer import PairScorer  # noqa: E402
from steering.training import training_run  # noqa: E402
from steering.training.methods.bipo.step import bipo_sums  # noqa: E402
from tests.authors_way import authors_run  # noqa: E402

AUTHORS, REFERENCE, FIRST, LATER = (
    "the authors' way",
    "our reference way",
    "our fast way, first epoch",
    "our fast way, later epochs",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="?", default=paths.shipped("assets") / "examples" / "power-seeking.csv")
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5, help="at least so many steps are timed")
    parser.add_argument("--layer", type=int, default=14)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--lean-authors", action="store_true", help="without the loss their code leaves unused")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    model, pairs = load_model(), read_pairs(options.pairs)[: options.count]
    spent, operations, peaks = defaultdict(list), [], []
    while len(peaks) < options.rounds:
        epoch(model, pairs, options.layer, options.batch_size, not options.lean_authors, spent, operations, peaks)

    seconds = {name: statistics.median(times) for name, times in spent.items()}
    ratios = {name: spread(spent[AUTHORS], times) for name, times in spent.items()}
    peak = statistics.median(peaks)
    share = statistics.fmean(operations) / seconds[LATER] / peak
    machine = {
        "date": datetime.date.today().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rounds": len(peaks),
    }
    if options.json:
        figures = {"seconds_per_step": seconds, "ratios": ratios, "peak_gflops": peak / 1e9, "share": share}
        print(json.dumps(machine | figures))
        return
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    print(f"{len(pairs)} pairs, batches of {options.batch_size}, layer {options.layer} of {model.num_layers}")
    for name, value in seconds.items():
        median, low, high = (ratios[name][key] for key in ("median", "lowest", "highest"))
        print(f"{name:30} {value:6.2f} s a step   {median:5.2f} x ({low:.2f} to {high:.2f})")
    print(f"matrix-multiply peak {peak / 1e9:.0f} GFLOP/s; a later-epoch step reaches {100 * share:.0f} % of it")


def spread(baseline: list[float], seconds: list[float]) -> dict[str, float]:
    """How many times as fast as the baseline, round by round: median, lowest and highest."""
    ratios = [before / now for before, now in zip(baseline, seconds, strict=True)]
    return {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}


def epoch(model, pairs, layer, batch_size, unused_loss, spent, operations, peaks) -> None:
    """Run an epoch of each way, step by step in turn; a step adds its seconds, a later step's operations, the peak."""
    settings = {"seed": 0, "batch_size": batch_size, "epochs": 1, "learning_rate": 0.03, "beta": 0.1, "warmup_steps": 1}
    authors = authors_apart(pairs, layer, {**settings, "unused_loss": unused_loss})
    ours = {
        name: training_run(model, pairs, Pairs.of([]), layer=layer, fast=fast, keep_best=False, **settings)
        for name, fast in ((REFERENCE, False), (FIRST, True))
    }
    _, encoded = encode_pairs(model, pairs)
    scorer = PairScorer(model, encoded, layer)
    assert scorer.path == "fast", scorer.why
    vectors = {layer: torch.full((model.hidden_size,), 0.1)}

    def later_step(batch) -> None:
        bipo_sums(scorer, batch, vectors, (1.0,), beta=0.1)

    later_step(range(min(batch_size, len(pairs))))  # whatever is made once
    worst = 0.0

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
        scorer.reference_logps(theirs.batch)
        timed(LATER, partial(later_step, theirs.batch))
        peaks.append(matrix_multiply_peak())
        operations.append(necessary_operations(model, layer, [encoded[i] for i in theirs.batch]))
    for name, run in ours.items():
        *_, done = run
        distance = float((done.vector.directions[layer] - theirs.vector).norm())
        assert worst < 1e-3 and distance <= 0.01 * theirs.vector.norm(), (name, worst, distance)


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
