"""The next token while a slider moves: its probabilities untouched and steered, from one short pass.

The prompt's hidden states at the first steered layer are kept, so that moving a slider runs the later blocks only, and
the head on the last position only. The model's own forward runs them, on a twin in which a block up to that layer hands
the kept states on; whether that gives what the plain pass gives is found out once, when the preview is made.
"""

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steering.generation.engine.decoder import decoder_of, probe_ids
from steering.generation.results import TokenChance
from steering.generation.stream import prompt_ids
from steering.intervention.additions import Additions, Setting, additions_for, placed
from steering.intervention.hooks import observed, steered
from steering.models.blocks import with_hidden
from steering.models.chat_template import DEFAULT_SYSTEM_PROMPT, Conversation
from steering.models.loading import LanguageModel
from steering.runtime.module_proxy import ModuleProxy, copy_sharing_weights
from steering.vectors.vector import TOKEN_SCOPES

KEPT_PROMPTS = 8
AT_ONCE = 2
"""Passes that run at a time, so that many visitors who drag do not hold up those who read answers."""


@dataclass(frozen=True)
class NextToken:
    """What the model would write first.

    Attributes:
        baseline: the most probable tokens of the untouched model, best first; `steered`: those of the steered one.
        kl: KL divergence of the steered distribution from the untouched one, in nats: how far the setting moves it.
        seconds: of computing it.
    """

    baseline: tuple[TokenChance, ...]
    steered: tuple[TokenChance, ...]
    kl: float
    seconds: float


class Preview:
    """Next tokens of one model under any setting. Several threads may ask at once.

    Args:
        model: the model; it is not changed.
        weights: what the passes run with, `full` or `float16` (see `decoding.decoder_of`); the faster on a CPU.

    Attributes:
        resumes: whether a pass begins at the first steered layer; False runs the whole model each time.
    """

    def __init__(self, model: LanguageModel, weights: str = "full") -> None:
        self.model = model
        self._decoder = decoder_of(model, weights)
        self._start = _Start()
        self._kept: OrderedDict[tuple[tuple[int, ...], int], tuple[Tensor, object]] = OrderedDict()
        self._lock = threading.Lock()
        self._turns = threading.BoundedSemaphore(AT_ONCE)
        self.resumes = True
        try:
            self._later, self._blocks = self._twin()
            self.resumes = self._resumes_exactly()
        except Exception:  # whatever way an architecture has to refuse, the whole model remains
            self.resumes = False

    def next_token(
        self,
        prompt: str,
        setting: Setting,
        *,
        system: str = DEFAULT_SYSTEM_PROMPT,
        before: Conversation = (),
        top: int = 10,
    ) -> NextToken:
        """The `top` most probable next tokens after a prompt, untouched and under a setting.

        Raises SteeringError for an empty prompt, one that fills the context, or an unsound setting.
        """
        began = time.perf_counter()
        additions = {scope: additions_for(self.model, [setting], [scope]) for scope in TOKEN_SCOPES}
        ids = prompt_ids(self.model, prompt, system=system, before=before)
        whole = placed(additions["all"], additions["answer"], len(ids), len(ids) - 1)
        with self._turns:
            untouched, moved = self._both(ids, whole)
        lists = [self._best(scores, untouched, moved, top) for scores in (untouched, moved)]
        kl = float((moved.exp() * (moved - untouched)).sum().clamp_min(0))
        return NextToken(*lists, kl, time.perf_counter() - began)

    @torch.inference_mode()
    def _both(self, ids: list[int], additions: Additions) -> tuple[Tensor, Tensor]:
        """float32 [vocabulary] log-probabilities of the next token, untouched and steered."""
        first = min(additions, default=self.model.num_layers - 1)
        untouched, output = self._untouched(tuple(ids), first)
        if not additions:
            return untouched, untouched
        tokens = torch.tensor([ids], device=self.model.device)
        if not self.resumes:
            return untouched, self._run(self._decoder.network, self._decoder.blocks, tokens, additions)
        with self._start.at(first, output):
            return untouched, self._run(self._later, self._blocks, tokens, additions)

    def _untouched(self, ids: tuple[int, ...], layer: int) -> tuple[Tensor, object]:
        """Log-probabilities of the next token, and what the layer's block gave; kept."""
        with self._lock:
            if (ids, layer) in self._kept:
                self._kept.move_to_end((ids, layer))
                return self._kept[ids, layer]
        tokens = torch.tensor([ids], device=self.model.device)
        with observed(self._decoder.blocks[layer]) as outputs:
            scores = self._run(self._decoder.network, self._decoder.blocks, tokens, {})
        found = scores, outputs[0]
        with self._lock:
            self._kept[ids, layer] = found
            while len(self._kept) > KEPT_PROMPTS:
                self._kept.popitem(last=False)
        return found

    def _run(self, network: nn.Module, blocks: nn.ModuleList, tokens: Tensor, additions: Additions) -> Tensor:
        with steered(blocks, additions):
            output = network(input_ids=tokens, use_cache=False, **self._decoder.head_once)
        return output.logits[0, -1].float().log_softmax(-1)

    def _best(self, by: Tensor, untouched: Tensor, moved: Tensor, top: int) -> tuple[TokenChance, ...]:
        places = by.topk(min(top, len(by))).indices.tolist()
        decode = self.model.tokenizer.decode
        return tuple(TokenChance(decode([i]), float(untouched[i].exp()), float(moved[i].exp())) for i in places)

    def _twin(self) -> tuple[nn.Module, nn.ModuleList]:
        gates = {block: _Gate(block, layer, self._start) for layer, block in enumerate(self._decoder.blocks)}
        later = copy_sharing_weights(self._decoder.network, gates)
        return later, later.get_submodule(self.model.blocks_path)

    @torch.inference_mode()
    def _resumes_exactly(self) -> bool:
        """Whether a pass from the middle layer on gives what the whole model gives, on a few tokens."""
        ids, layer = probe_ids(self.model.network), self.model.num_layers // 2
        generator = torch.Generator().manual_seed(0)
        additions = {layer: torch.randn(1, self.model.hidden_size, generator=generator).to(self.model.device)}
        _, got = self._both(ids, additions)
        tokens = torch.tensor([ids], device=self.model.device)
        want = self._run(self._decoder.network, self._decoder.blocks, tokens, additions)
        tolerance = 1e-3 if self.model.network.dtype == torch.float32 else 5e-2
        return bool((got - want).abs().max() <= tolerance * want.std())


class _Start(threading.local):
    """Where a pass begins, on this thread: the layer, and what its block gave. Without it, at the beginning."""

    layer, output = -1, None

    @contextlib.contextmanager
    def at(self, layer: int, output: object) -> Iterator[None]:
        self.layer, self.output = layer, output
        try:
            yield
        finally:
            self.layer, self.output = -1, None


class _Gate(ModuleProxy):
    """Stands in for a block: runs it, or, up to the layer where the pass begins, hands on what is there."""

    def __init__(self, block: nn.Module, layer: int, start: _Start) -> None:
        super().__init__(block)
        self._layer, self._start = layer, start

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> object:
        if self._layer > self._start.layer:
            return self._original(hidden_states, *args, **kwargs)
        kept = self._start.output
        return kept if self._layer == self._start.layer else with_hidden(kept, hidden_states)
