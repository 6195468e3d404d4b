"""Speed of writing: our columns in one batch, and peers that write one column after another, on the same prompt.

    python -m tests.benchmarks.generation [--tokens 96] [--only full,preview] [--gguf FILE] [--json]

Peers run if they are installed; none is a dependency. Put them where this Python finds them, outside the project's
environment, so that they drag nothing into it:

    pip install --no-deps --target ../peers repeng steering-vectors scikit-learn scipy \\
        joblib threadpoolctl narwhals cloudpickle
    pip install --target ../peers llama-cpp-python        # compiles for some minutes
    PYTHONPATH=.:../peers python -m tests.benchmarks.generation

Every column writes exactly so many tokens, greedy; the vector is a random direction at the middle layer, weak enough
that the model goes on writing. The memory-bandwidth limit is the time to read all weights once for each token.
"""

import argparse
import ctypes
import importlib.util
import json
import platform
import statistics
import threading
import time
from datetime import date

import numpy as np
import torch

from steering import load_model
from steering.generation.next_token import Preview
from steering.generation.precision import precision_report
from steering.generation.server import DecodeServer
from steering.generation.stream import prompt_ids, stream
from steering.models.chat_template import DEFAULT_SYSTEM_PROMPT
from steering.vectors.vector import SteeringVector

COLUMNS = (1, 2, 4, 8)
IN_TURN = 4
PARTS = (
    "full",
    "float16",
    "transformers",
    "repeng",
    "steering-vectors",
    "llama.cpp",
    "preview",
    "visitors",
    "conversation",
    "bandwidth",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--prompt-tokens", type=int, default=60)
    parser.add_argument("--visitors", type=int, default=8)
    parser.add_argument("--gguf", help="the model's GGUF file, for llama.cpp")
    parser.add_argument("--only", help=f"some of {','.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=5, help="each thing is measured so often in turn")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    bench = Bench(options.tokens, options.prompt_tokens, options.visitors, options.gguf)
    parts = options.only.split(",") if options.only else PARTS
    rounds = []
    for _ in range(options.rounds):
        bench.found = {}
        for part in parts:
            getattr(bench, part.replace("-", "_").replace(".", "_"))()
        rounds.append(bench.found)
    medians = {
        name: {figure: statistics.median(found[name][figure] for found in rounds) for figure in figures}
        for name, figures in rounds[0].items()
    }
    if options.json:
        print(json.dumps(medians))
        return
    print(
        f"{date.today()}, {platform.processor() or platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}; {precision_report(bench.model).way}"
    )
    print(f"{options.prompt_tokens} prompt tokens, {options.tokens} new ones a column; medians of {len(rounds)} rounds")
    for name, found in medians.items():
        figures = "  ".join(f"{key.replace('_', ' ')} {value:.4g}" for key, value in found.items())
        print(f"{name:28} {figures}")
    speeds = {name: [found[name].get("tokens_per_second") for found in rounds] for name in medians}
    for ours in (name for name in speeds if name.startswith("ours") and speeds[name][0]):
        for peer in (name for name in speeds if "in turn" in name):
            ratios = [a / b for a, b in zip(speeds[ours], speeds[peer], strict=True)]
            spread = f"[{min(ratios):.1f}-{max(ratios):.1f}]"
            print(f"{ours:28} {statistics.median(ratios):5.1f} x {spread:12} {peer}")


class Bench:
    """What is measured, by name; `found` holds the figures."""

    def __init__(self, tokens: int, prompt_tokens: int, visitors: int, gguf: str | None) -> None:
        self.tokens, self.visitor_count, self.gguf, self.found = tokens, visitors, gguf, {}
        self.model = load_model()
        self.model.prompts = _Endless(self.model.prompts)
        self.model.network.generation_config.eos_token_id = None
        self.model.tokenizer.eos_token = None
        self.layer = self.model.num_layers // 2 - 1
        direction = torch.randn(self.model.hidden_size, generator=torch.Generator().manual_seed(0))
        self.vector = SteeringVector({self.layer: direction / direction.norm()}, name="random")
        self.prompt = "word"
        while len(self.ids()) < prompt_tokens:
            self.prompt += " word"

    def ids(self) -> list[int]:
        return prompt_ids(self.model, self.prompt, system=DEFAULT_SYSTEM_PROMPT)

    def settings(self, count: int) -> list[dict]:
        return [{self.vector: float(number)} if number else {} for number in range(count)]

    def full(self) -> None:
        self._ours("full")

    def float16(self) -> None:
        self._ours("float16")
        self.found["ours, float16, mean KL"] = {"nats": precision_report(self.model, "float16").kl}

    def _ours(self, weights: str) -> None:
        precision_report(self.model, weights)  # the trial passes are not measured
        for count in COLUMNS:
            began, first = time.perf_counter(), 0.0
            options = {"max_new_tokens": self.tokens, "weights": weights}
            for _ in stream(self.model, self.prompt, self.settings(count), **options):
                first = first or time.perf_counter() - began
            self._report(f"ours, {weights}, {count} columns", began, count, first_text_s=first)

    def transformers(self) -> None:
        self._generate("transformers in turn", self.model.network, lambda number: None)

    def repeng(self) -> None:
        if not importlib.util.find_spec("repeng"):
            return
        np.float_ = np.float64  # repeng 0.4 still asks numpy for it
        from repeng import ControlModel, ControlVector

        control = ControlVector(model_type="llama", directions={self.layer: self.vector.directions[self.layer].numpy()})
        wrapped = ControlModel(self.model.network, [self.layer])
        try:
            self._generate("repeng in turn", wrapped, lambda number: wrapped.set_control(control, float(number)))
        finally:
            wrapped.reset()
            wrapped.unwrap()

    def steering_vectors(self) -> None:
        if not importlib.util.find_spec("steering_vectors"):
            return
        from steering_vectors import SteeringVector as Theirs

        theirs, handles = Theirs({self.layer: self.vector.directions[self.layer]}), []

        def steer(number: int) -> None:
            while handles:
                handles.pop().remove()
            handles.append(theirs.patch_activations(self.model.network, multiplier=float(number)))

        self._generate("steering-vectors in turn", self.model.network, steer)
        handles.pop().remove()

    def llama_cpp(self) -> None:
        if not self.gguf or not importlib.util.find_spec("llama_cpp"):
            return
        from llama_cpp import Llama, llama_set_adapter_cvec

        llama = Llama(self.gguf, n_ctx=512, n_threads=torch.get_num_threads(), verbose=False)
        layers, width = self.model.num_layers, self.model.hidden_size
        control = torch.zeros(layers - 1, width)  # llama.cpp's layers begin at 1
        began = time.perf_counter()
        for number in range(IN_TURN):
            control[self.layer - 1] = number * self.vector.directions[self.layer]
            data = (ctypes.c_float * control.numel()).from_buffer_copy(control.numpy().tobytes())
            assert llama_set_adapter_cvec(llama.ctx, data, control.numel(), width, 1, layers) == 0
            for count, _ in enumerate(llama.generate(self.ids(), temp=0.0, reset=True), 1):
                if count == self.tokens:
                    break
            llama.reset()
        self._report("llama.cpp in turn", began, IN_TURN)

    def preview(self) -> None:
        for weights in ("full", "float16"):
            preview = Preview(self.model, weights)
            asked = [preview.next_token(self.prompt, {self.vector: n / 10}).seconds * 1e3 for n in range(1, 32)]
            first, *later = asked
            worst = statistics.quantiles(later, n=20)[-1]
            figures = {"first_ms": first, "median_ms": statistics.median(later), "p95_ms": worst}
            self.found[f"preview, {weights}"] = figures

    def visitors(self) -> None:
        many, same = self.visitor_count, [self.prompt] * self.visitor_count
        own = [f"{number} {self.prompt.removesuffix(' word')}" for number in range(many)]
        for name, prompts in (("1 visitor", own[:1]), (f"{many} visitors", own), (f"{many} with one prompt", same)):
            server = DecodeServer(self.model, weights="float16")
            began = time.perf_counter()
            threads = [threading.Thread(target=self._visit, args=(server, prompt)) for prompt in prompts]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self._report(f"server, {name}", began, 2 * len(prompts))

    def conversation(self) -> None:
        """Three columns, each with an answer of its own to go on from, traced as the page does."""
        server, figures = DecodeServer(self.model, weights="float16"), {}
        histories: list[list[tuple[str, str]]] = [[], [], []]
        for turn in range(3):
            began, first, last = time.perf_counter(), 0.0, []
            options = {"max_new_tokens": self.tokens, "histories": histories, "trace": True}
            for news in server.stream(self.prompt, self.settings(3), **options):
                if not isinstance(news, int):
                    first, last = first or time.perf_counter() - began, news
            figures[f"turn_{turn + 1}_first_text_s"] = first
            for history, column in zip(histories, last, strict=True):
                history += [("user", self.prompt), ("assistant", column.text)]
        self.found["conversation, 3 columns"] = figures

    def bandwidth(self) -> None:
        weights = sum(parameter.numel() for parameter in self.model.network.parameters())
        block = torch.randn(2**26)
        block.sum()
        began = time.perf_counter()
        for _ in range(8):
            block.sum()
        rate = 8 * 4 * block.numel() / (time.perf_counter() - began)
        limits = {name: rate / (size * weights) for name, size in (("full", 4), ("float16", 2))}
        self.found["memory bandwidth"] = {"GB_per_second": rate / 1e9} | {
            f"{name}_steps_per_second": limit for name, limit in limits.items()
        }

    def _visit(self, server: DecodeServer, prompt: str) -> None:
        for _ in server.stream(prompt, self.settings(2), max_new_tokens=self.tokens):
            pass

    def _generate(self, name: str, network, steer) -> None:
        """One column after another with transformers' own `generate`."""
        ids = torch.tensor([self.ids()])
        options = {"max_new_tokens": self.tokens, "do_sample": False, "pad_token_id": 0}
        began = time.perf_counter()
        for number in range(IN_TURN):
            steer(number)
            new = network.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
            assert new.shape[1] == ids.shape[1] + self.tokens
        self._report(name, began, IN_TURN)

    def _report(self, name: str, began: float, columns: int, **more: float) -> None:
        seconds = time.perf_counter() - began
        self.found[name] = {"seconds": seconds, "tokens_per_second": columns * self.tokens / seconds, **more}


class _Endless:
    """The model's prompt format without a token that ends an answer, so that all write the same length."""

    end_of_turn = None

    def __init__(self, prompts) -> None:
        self.prompt_ids = prompts.prompt_ids


if __name__ == "__main__":
    main()
