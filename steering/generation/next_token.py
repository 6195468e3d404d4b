"""The next token while a slider moves: its probabilities untouched and steered, from one short pass.

A prompt's token ids and the untouched model's answer are cached. Where the written-out Llama step is in use, so is
what the first steered block returned, and moving a slider runs the later blocks only; other models run all of theirs.
"""

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from steering.generation.engine.decoder import decoder_of
from steering.generation.engine.protocol import DecodingEngine
from steering.generation.request import prompt_ids
from steering.generation.results import TokenChance
from steering.intervention.additions import Additions, Setting, additions_for, placed
from steering.limits import NO_LIMITS, Limits
from steering.models.chat_template import DEFAULT_SYSTEM_PROMPT, Conversation
from steering.models.loading import LanguageModel
from steering.vectors.action import TOKEN_SCOPES

CACHED_PROMPTS = 8
"""Prompts whose token ids and block output are cached: 2 MB each for 1,000 tokens of the bundled model."""
PASSES_AT_ONCE = 2
"""Passes that run at a time, so that many visitors who drag do not hold up those who read answers."""
PART_OF_A_CHARACTER = "part of a character"
"""Stands in the list for a token that is some bytes of a character: emoji and many scripts are written in several."""


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

    Example: `Preview(model).next_token("Who are you?", {vector: 1.5}).steered[0].text`

    Args:
        model: the model; it is not changed.
        weights: `full` or `float16`, as for `generation.stream`; the latter is faster on a CPU.
        limits: what one question may ask for.
    """

    def __init__(self, model: LanguageModel, weights: str = "full", limits: Limits = NO_LIMITS) -> None:
        self.model, self.limits = model, limits
        self._decoder = decoder_of(model, weights)
        self._cached: OrderedDict[tuple[Any, int, tuple[int, ...]], tuple[Tensor, Any]] = OrderedDict()
        self._prompt_ids = lru_cache(CACHED_PROMPTS)(partial(prompt_ids, model))
        self._lock = threading.Lock()
        self._passes = threading.BoundedSemaphore(PASSES_AT_ONCE)

    @property
    def cached_prompts(self) -> int:
        """How many prompts' block outputs are cached."""
        return len(self._cached)

    def next_token(
        self,
        prompt: str,
        setting: Setting,
        *,
        system: str = DEFAULT_SYSTEM_PROMPT,
        before: Conversation = (),
        top: int = 10,
    ) -> NextToken:
        """Return the `top` most probable next tokens after a prompt, untouched and under a setting.

        Raises SteeringError for an empty prompt, one that fills the context, or an unsound setting.
        """
        began = time.perf_counter()
        additions = {scope: additions_for(self.model, [setting], [scope]) for scope in TOKEN_SCOPES}
        turns = tuple((role, content) for role, content in before)  # hashable
        self.limits.check_request(1, 1, prompt, system, (content for _, content in turns))
        ids = self._prompt_ids(prompt, system=system, before=turns)
        in_prompt = placed(additions["all"], additions["answer"], len(ids), len(ids) - 1)
        with self._passes:
            untouched, steered = self._decoder.run(lambda engine: self._log_probabilities(engine, ids, in_prompt))
        baseline, moved = (self._best(by, untouched, steered, top) for by in (untouched, steered))
        kl = float((steered.exp() * (steered - untouched)).sum().clamp_min(0))
        return NextToken(baseline, moved, kl, time.perf_counter() - began)

    def _log_probabilities(self, engine: DecodingEngine, ids: list[int], additions: Additions) -> tuple[Tensor, Tensor]:
        """Return float32 [vocabulary] log-probabilities of the next token, untouched and steered."""
        layer = min(additions, default=self.model.num_layers - 1)
        tokens, key = torch.tensor([ids], device=self.model.device), (engine, layer, tuple(ids))
        with self._lock:
            cached = self._cached.get(key)
        untouched, output = cached or engine.next_token_logits(tokens, layer)
        with self._lock:
            self._cached[key] = untouched, output
            self._cached.move_to_end(key)
            while len(self._cached) > CACHED_PROMPTS:
                self._cached.popitem(last=False)
        steered = engine.resume_from(layer, output, tokens, additions) if additions else untouched
        return untouched.log_softmax(-1), steered.log_softmax(-1)

    def _best(self, by: Tensor, untouched: Tensor, steered: Tensor, top: int) -> tuple[TokenChance, ...]:
        ids = by.topk(min(top, len(by))).indices.tolist()
        return tuple(TokenChance(self._name(i), float(untouched[i].exp()), float(steered[i].exp())) for i in ids)

    def _name(self, token: int) -> str:
        """Decode a token; one that is only part of a character, which no font can show, is said to be that."""
        text = str(self.model.tokenizer.decode([token]))
        return PART_OF_A_CHARACTER if "\ufffd" in text else text
