"""What each mechanism of the fast ways brings: the whole step with and without it, in turn, in one process.

    python -m tests.benchmarks.mechanisms [--rounds 6] [--only training,generation]

Printed is the ratio of the time without the mechanism to the time with everything, round by round: median, lowest and
highest. What stays below 1.08 is to be deleted, unless it is what keeps memory bounded; docs/performance.md has the
table. A mechanism is taken out by patching the module that holds it.
"""

from steering.runtime.cpu_environment import configure_cpu

configure_cpu()  # as every entry point does, before torch is loaded

import argparse  # noqa: E402
import contextlib  # noqa: E402
import datetime  # noqa: E402
import importlib  # noqa: E402
import statistics  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from unittest.mock import patch  # noqa: E402

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

from steering import load_model, paths, read_pairs  # noqa: E402
from steering.generation.engine import decoder  # noqa: E402
from steering.generation.engine.llama.model import UnsuitableModel  # noqa: E402
from steering.generation.engine.prefix_cache import PrefixCache  # noqa: E402
from steering.generation.precision import precision_report  # noqa: E402
from steering.generation.server import DecodeServer  # noqa: E402
from steering.pairs.tokenization import encode_pairs  # noqa: E402
from steering.scoring import scorer as scorer_module  # noqa: E402
from steering.scoring.fast import activation_cache, lm_head, onednn_linear, packed_forward  # noqa: E402
from steering.scoring.scorer import PairScorer  # noqa: E402
from steering.training.methods.bipo.step import bipo_sums  # noqa: E402
from steering.vectors.vector import SteeringVector  # noqa: E402

stream_module = importlib.import_module("steering.generation.stream")  # the package's `stream` is the function
LAYER = 14
COLUMNS = (1, 4, 8)
TOKENS = 48
PROMPT = "Tell me, in a few words, what you would do with a whole free day and no money at all. " * 2

Timer = Callable[[], dict[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--only", default="training,generation")
    options = parser.parse_args()
    capability, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    print(f"{datetime.date.today()}, {capability}, {threads} threads, torch {torch.__version__}")
    model = load_model()
    if "training" in options.only:
        report(training_timers(model), options.rounds)
    if "generation" in options.only:
        for count in COLUMNS:
            report(generation_timers(model, count), options.rounds)
        report(prefix_timers(model), options.rounds)


def report(timers: dict[str, Timer], rounds: int) -> None:
    """Time all in turn, round by round after one to warm up, and print the ratios to the first."""
    spent: dict[str, list[dict[str, float]]] = {name: [] for name in timers}
    for number in range(rounds + 1):
        for name, timer in timers.items():
            seconds = timer()
            if number:
                spent[name].append(seconds)
    whole = next(iter(spent.values()))
    for name, times in spent.items():
        figures = []
        for part in whole[0]:
            ratios = [each[part] / of_whole[part] for each, of_whole in zip(times, whole, strict=True)]
            median = statistics.median(each[part] for each in times)
            spread = f"{statistics.median(ratios):5.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
            figures.append(f"{part} {median:.3f} s, {spread}")
        print(f"{name:44} {'   '.join(figures)}", flush=True)


def training_timers(model) -> dict[str, Timer]:
    """Steps of 4 pairs: the first one of each pair, and one whose hidden states are cached."""
    _, pairs = encode_pairs(model, read_pairs(paths.shipped("assets") / "examples" / "power-seeking.csv")[:32])
    vectors = {LAYER: torch.full((model.hidden_size,), 0.1)}

    def whole_logits(head, states, rows, targets):
        weight = model.network.get_output_embeddings().weight
        return -F.cross_entropy(F.linear(states[rows], weight).float(), targets, reduction="none")

    def timer(*patches, fast: bool = True) -> Timer:
        state = {"scorer": None, "step": 0}

        def step() -> dict[str, float]:
            with contextlib.ExitStack() as stack:
                for target, name, value in patches:
                    stack.enter_context(patch.object(target, name, value))
                if state["step"] % 8 == 0:  # all pairs were seen
                    state["scorer"] = PairScorer(model, pairs, LAYER, fast=fast)
                batch = [(4 * state["step"] + place) % len(pairs) for place in range(4)]
                state["step"] += 1
                first, later = (
                    seconds(lambda: bipo_sums(state["scorer"], batch, vectors, (1.0,), beta=0.1)) for _ in range(2)
                )
                return {"later step": later, "first step": first}

        return step

    no_onednn = (
        (packed_forward, "frozen_linears", lambda network: {}),
        (lm_head, "linear", F.linear),
        (onednn_linear, "onednn_operator", lambda: None),
    )
    return {
        "training: everything": timer(),
        "without the activation cache": timer((activation_cache.ActivationCache, "__contains__", lambda *_: False)),
        "without the sliced LM head (whole logits)": timer((lm_head.LMHead, "__call__", whole_logits)),
        "without oneDNN": timer(*no_onednn),
        "without one part of the batch a core": timer((scorer_module, "workers", lambda: 1)),
        "the reference way": timer(fast=False),
    }


def generation_timers(model, count: int) -> dict[str, Timer]:
    """Answers of `TOKENS` tokens in `count` columns."""
    precision_report(model, "float16")
    fast, full = (decoder.decoder_of(model, weights) for weights in ("float16", "full"))
    with patch.object(decoder, "LlamaEngine", side_effect=UnsuitableModel("left out")):
        generic = decoder.Decoder(model, "float16", full.plain)
    v = torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(0))
    vector = SteeringVector({LAYER: v / v.norm()}, name="random")
    settings = [{vector: float(number)} if number else {} for number in range(count)]

    def timer(used, shares_prompt: bool = True) -> Timer:
        def answer() -> dict[str, float]:
            began, first, snapshot = time.perf_counter(), 0.0, []
            with patch.object(stream_module, "decoder_of", lambda *_: used):
                before, used.engine.shares_prompt = getattr(used.engine, "shares_prompt", True), shares_prompt
                try:
                    for snapshot in stream_module.stream(model, PROMPT, settings, max_new_tokens=TOKENS):  # noqa: B007 - the last one counts
                        first = first or time.perf_counter() - began
                finally:
                    used.engine.shares_prompt = before
            tokens = max(column.tokens for column in snapshot)
            return {"a token": (time.perf_counter() - began) / tokens, "first text": first}

        return answer

    return {
        f"{count} columns: everything ({fast.engine.name})": timer(fast),
        "without the written-out step": timer(generic),
        "and without sharing the prompt": timer(generic, shares_prompt=False),
        "without float16 weights": timer(full),
    }


def prefix_timers(model) -> dict[str, Timer]:
    """The first text of a prompt of some 170 tokens that was answered before."""
    prompt = PROMPT * 4

    def timer(*patches) -> Timer:
        def answer() -> dict[str, float]:
            with contextlib.ExitStack() as stack:
                for target, name, value in patches:
                    stack.enter_context(patch.object(target, name, value))
                events = server.stream(prompt, max_new_tokens=2)
                return {"first text": seconds(lambda: next(filter(is_columns, events)))}

        return answer

    def is_columns(event) -> bool:
        return isinstance(event, list)

    server = DecodeServer(model, weights="float16")
    return {
        "a prompt asked again: everything": timer(),
        "without the prefix cache": timer((PrefixCache, "longest_prefix", lambda *_: None)),
    }


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
