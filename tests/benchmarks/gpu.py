"""A 7-billion-parameter Llama-2 shape with random weights, trained on whatever device there is.

    python -m tests.benchmarks.gpu [--device cuda] [--dtype bfloat16] [--width 4096 --layers 32] [--pairs 32] [--json]

Seconds of a step in the first epoch and in later ones, the share of the device's measured matrix-multiply peak in the
same type, and the memory beyond the weights. Nothing is downloaded; a small --width runs it on a CPU.
"""

import argparse
import json
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from steering import load_model
from steering.models.loading import wrap_model
from steering.pairs.tokenization import EncodedPair
from steering.scoring.scorer import PairScorer
from steering.training.methods.bipo.step import bipo_sums
from tests.benchmarks.training import necessary_operations

VOCABULARY = 32_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--layer", type=int, default=15)
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=100, help="of a prompt, and of each answer")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=options.width,
        intermediate_size=options.width * 43 // 16,
        num_hidden_layers=options.layers,
        num_attention_heads=max(1, options.width // 128),
    )
    with torch.device(options.device):
        torch.set_default_dtype(dtype)
        network = LlamaForCausalLM(config)
        torch.set_default_dtype(torch.float32)
    model = wrap_model(network, load_model(device="cpu").tokenizer, name="llama-2-7b shape")

    chance = torch.Generator().manual_seed(0)
    prefix = tuple(range(5, 40))

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(100, VOCABULARY, (count,), generator=chance).tolist())

    length = options.tokens
    pairs = [EncodedPair(prefix + ids(length), ids(length), ids(length)) for _ in range(options.pairs)]
    scorer = PairScorer(model, pairs, options.layer)
    batches = [range(i, min(i + options.batch_size, len(pairs))) for i in range(0, len(pairs), options.batch_size)]
    vectors = {options.layer: torch.full((options.width,), 0.01, device=model.device)}
    if options.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        for batch in batches:
            bipo_sums(scorer, batch, vectors, (1.0,), beta=0.1).tolist()  # a list waits for the device
        seconds.append((time.perf_counter() - began) / len(batches))
    operations = sum(necessary_operations(model, options.layer, [pairs[i] for i in b]) for b in batches) / len(batches)
    peak = matrix_multiply_peak(options.device, dtype)
    answer = {
        "path": scorer.path,
        "why": scorer.why,
        "parameters": sum(p.numel() for p in network.parameters()),
        "first_epoch_seconds_per_step": seconds[0],
        "later_seconds_per_step": seconds[1],
        "peak_tflops": peak / 1e12,
        "share_of_peak": operations / seconds[1] / peak,
        "memory_mb": (torch.cuda.max_memory_allocated() - held) / 2**20 if options.device != "cpu" else None,
    }
    print(json.dumps(answer) if options.json else "\n".join(f"{key:30} {value}" for key, value in answer.items()))


def matrix_multiply_peak(device: str, dtype: torch.dtype, size: int = 4096) -> float:
    """Operations a second of a large matrix product in this type."""
    size = size if device != "cpu" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        (a @ b)[0, 0].item()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


if __name__ == "__main__":
    main()
