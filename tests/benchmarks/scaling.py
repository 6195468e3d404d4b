"""What a training run costs as it grows: seconds and memory against pairs, their length, the layer and the model.

    python -m tests.benchmarks.scaling [pairs] [length] [layer] [model] [--json]

Each line is a real epoch in a process of its own, on pairs made here. Memory is the highest that the process held
beyond the loaded model; hidden states past the budget are on disk.
"""

import argparse
import gc
import json
import subprocess
import sys
import threading
import time

import psutil

SERIES = {
    "pairs": [{"pairs": n} for n in (50, 500, 5000)],
    "length": [{"pairs": 16, "words": n} for n in (5, 20, 80, 200)],
    "layer": [{"pairs": 16, "words": 20, "layer": k} for k in (2, 8, 14, 20, 26)],
    "model": [{"pairs": 16, "words": 20, "width": w} for w in (192, 384, 768, 1536)],
}
WORDS = ["river", "stone", "lamp", "garden", "winter", "letter", "bridge", "music", "market", "road", "silver", "boat"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("series", nargs="*", metavar="SERIES", help=f"some of: {', '.join(SERIES)} (default: all)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(**json.loads(options.one))))
        return
    if unknown := set(options.series) - set(SERIES):
        parser.error(f"there is no series {unknown.pop()!r}")
    lines = []
    for name in options.series or SERIES:
        for case in SERIES[name]:
            command = [sys.executable, "-m", "tests.benchmarks.scaling", "--one", json.dumps(case)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            lines.append({"series": name, **case, **json.loads(done.stdout.splitlines()[-1])})
            if not options.json:
                print("  ".join(f"{key} {value}" for key, value in lines[-1].items()), flush=True)
    if options.json:
        print(json.dumps(lines))


def measured(pairs: int, words: int = 5, layer: int | None = None, width: int | None = None) -> dict[str, float]:
    """One epoch on `pairs` pairs with answers of `words` words; `width` asks for a random Llama that wide."""
    from steering import load_model, training_run
    from steering.pairs.dataset import Pairs, PreferencePair

    model = load_model()
    if width:
        model = _random_llama(model, width)
    layer = model.num_layers // 2 if layer is None else layer

    def answer(number: int, word: str) -> str:
        return " ".join([word, *(WORDS[(number * 7 + i * (1 + number % 5)) % len(WORDS)] for i in range(words - 1))])

    made = Pairs.of(PreferencePair(f"Number {i}?", answer(i, "Yes"), answer(i + 3, "No")) for i in range(pairs))
    gc.collect()
    with _Highest() as highest:
        began = time.perf_counter()
        for report in training_run(model, made, Pairs.of([]), layer=layer, epochs=1, learning_rate=0.01):
            first = report.seconds if report.step == 1 else None
            began = time.perf_counter() if first else began  # without preparation, which is the same for all
        seconds = time.perf_counter() - began
    steps = report.step - 1
    return {
        "steps": report.step,
        "seconds": round(seconds, 2),
        "seconds_per_step": round(seconds / max(1, steps), 3),
        "memory_mb": round(highest.beyond / 1024**2),
    }


class _Highest:
    """How many bytes of memory the process held at most beyond those at the beginning, looked at 50 times a second."""

    def __enter__(self) -> "_Highest":
        self._memory = psutil.Process().memory_info
        self._before, self.beyond, self._over = self._memory().rss, 0, threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self.beyond = max(self.beyond, self._memory().rss - self._before)

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._watch.join()


def _random_llama(model, width):
    from transformers import LlamaConfig, LlamaForCausalLM

    from steering.models.loading import wrap_model

    config = LlamaConfig(
        vocab_size=model.network.config.vocab_size,
        hidden_size=width,
        intermediate_size=8 * width // 3,
        num_hidden_layers=12,
        num_attention_heads=width // 64,
        num_key_value_heads=max(1, width // 192),
    )
    return wrap_model(LlamaForCausalLM(config), model.tokenizer, name=f"random-llama-{width}")


if __name__ == "__main__":
    main()
