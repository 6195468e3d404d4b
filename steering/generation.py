"""Answers side by side: all columns are decoded as one batch, each row under its own setting, streamed together."""

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from steering.errors import SteeringError
from steering.intervention import Additions, Setting, additions_for, placed, steered
from steering.models import LanguageModel
from steering.prompts import DEFAULT_SYSTEM_PROMPT, Conversation, conversation
from steering.vectors import TOKEN_SCOPES

MAX_COLUMNS = 8
MAX_NEW_TOKENS = 4096


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        max_new_tokens: most tokens an answer may have.
        temperature: 0 takes the most probable token always (greedy); above it, draws.
        top_p, top_k: when drawing, keep only the most probable tokens (1.0 and 0 keep all).
        repetition_penalty: above 1 makes tokens that occurred less probable.
        seed: of the random numbers; the same ones serve every column, so that what differs is the steering.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0

    def check(self) -> None:
        """Raise SteeringError for a value out of range."""
        bounds = {
            "max_new_tokens": (1, MAX_NEW_TOKENS),
            "temperature": (0, 10),
            "top_p": (0.01, 1),
            "top_k": (0, 100_000),
            "repetition_penalty": (0.5, 5),
            "seed": (0, 2**63 - 1),
        }
        for name, (low, high) in bounds.items():
            value, kind = getattr(self, name), Integral if isinstance(getattr(Sampling, name), int) else Real
            if not isinstance(value, kind) or not low <= value <= high:  # nan fails too
                number = "whole number" if kind is Integral else "number"
                raise SteeringError(f"{name.replace('_', ' ')} is {value}; give a {number} from {low} to {high}.")

    def processors(self) -> LogitsProcessorList:
        """transformers' own processors, in the order its `generate` uses."""
        chain = LogitsProcessorList()
        if self.repetition_penalty != 1:
            chain.append(RepetitionPenaltyLogitsProcessor(self.repetition_penalty))
        if self.temperature > 0:
            chain.append(TemperatureLogitsWarper(float(self.temperature)))
            if self.top_k > 0:
                chain.append(TopKLogitsWarper(self.top_k))
            if self.top_p < 1:
                chain.append(TopPLogitsWarper(self.top_p))
        return chain


@dataclass(frozen=True)
class Column:
    """One setting's answer so far.

    Attributes:
        setting: vector -> multiplier; empty for the baseline.
        text: the answer; `tokens`: how many tokens it has, the end-of-turn token counted.
        finished: whether the answer has ended (by itself, or at max_new_tokens).
        seconds: from the start of the run to this column's latest token.
    """

    setting: Setting
    text: str = ""
    tokens: int = 0
    finished: bool = False
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def title(self) -> str:
        return setting_title(self.setting)


def setting_title(setting: Setting) -> str:
    """`baseline`, or the vectors with their multipliers: `cheerful +1.5, formal -1`."""
    parts = [f"{vector.name or 'unnamed'} {multiplier:+g}" for vector, multiplier in setting.items() if multiplier]
    return ", ".join(parts) or "baseline"


def generate(model: LanguageModel, prompt: str, columns: Sequence[Setting] = ({},), **options: object) -> list[Column]:
    """The finished columns; takes what `stream` takes."""
    last: list[Column] = []
    for last in stream(model, prompt, columns, **options):  # noqa: B007 - the last snapshot is the result
        pass
    return last


def stream(
    model: LanguageModel,
    prompt: str,
    columns: Sequence[Setting] = ({},),
    *,
    system: str = DEFAULT_SYSTEM_PROMPT,
    before: Conversation = (),
    sampling: Sampling | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    **sampling_options: float,
) -> Iterator[list[Column]]:
    """Decode the answer to one prompt under every setting at once; yields all columns after each token.

    Sampling comes as a `Sampling`, or as its fields (`max_new_tokens=64`). Nothing is held between two yields, no hook
    and no lock: a consumer may stop at any token by closing the generator, or through `should_stop`.

    Raises SteeringError for an empty prompt, one longer than the context, or an unsound setting.
    """
    sampling = sampling or Sampling(**sampling_options)
    sampling.check()
    if not 1 <= len(columns) <= MAX_COLUMNS:
        raise SteeringError(f"{len(columns)} columns were asked for; give 1 to {MAX_COLUMNS}.")
    if not prompt.strip():
        raise SteeringError("The prompt is empty; write something for the model to answer.")
    additions = {scope: additions_for(model, columns, [scope]) for scope in TOKEN_SCOPES}
    ids = model.prompts.prompt_ids(conversation(prompt.strip(), system=system, before=before))
    room = (model.context_length or len(ids) + MAX_NEW_TOKENS) - len(ids)
    if room < 1:
        raise SteeringError(
            f"The prompt is {len(ids)} tokens long and {model.name} reads at most {model.context_length}; shorten it."
        )
    return _decode(model, ids, columns, additions, sampling, min(sampling.max_new_tokens, room), should_stop)


def _decode(
    model: LanguageModel,
    ids: list[int],
    settings: Sequence[Setting],
    additions: dict[str, Additions],
    sampling: Sampling,
    max_new_tokens: int,
    should_stop: Callable[[], bool],
) -> Iterator[list[Column]]:
    began = time.perf_counter()
    columns = [Column(setting) for setting in settings]
    written: list[list[int]] = [[] for _ in settings]
    batch = _Batch(model, ids, additions, len(settings))
    noise = SharedNoise(sampling.seed)
    processors = sampling.processors()
    for _ in range(max_new_tokens):
        if should_stop() or not batch.rows:
            return
        logits = batch.logits()
        with torch.inference_mode():
            scores = processors(batch.tokens, logits)
            if sampling.temperature > 0:
                scores = scores + noise.next(scores.shape[-1]).to(scores.device)
            chosen = scores.argmax(dim=-1)
        seconds = time.perf_counter() - began
        going = []
        for place, (row, token) in enumerate(zip(batch.rows, chosen.tolist(), strict=True)):
            written[row].append(token)
            ended = token in model.stop_tokens
            finished = ended or len(written[row]) == max_new_tokens
            text = model.tokenizer.decode(written[row], skip_special_tokens=True)
            if not finished:
                text = text.rstrip("\ufffd")  # half a character; the next token completes it
            columns[row] = Column(settings[row], text, len(written[row]), finished, seconds)
            if not finished:
                going.append(place)
        batch.advance(chosen, going)
        yield list(columns)


class _Batch:
    """The rows still being written: their tokens, key-value cache and additions. A finished row leaves all three."""

    def __init__(self, model: LanguageModel, ids: list[int], additions: dict[str, Additions], count: int) -> None:
        self.model = model
        self.rows = list(range(count))
        self.tokens = torch.tensor([ids] * count, device=model.device)  # one prompt for all: no padding
        self._fresh = self.tokens
        self._prompt_length = len(ids)
        self._additions = additions
        self._cache = None
        parameters = inspect.signature(model.network.forward).parameters
        self._head_once = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}

    @torch.inference_mode()
    def logits(self) -> Tensor:
        """float32 [rows, vocabulary] for the next token of every row."""
        length = self._fresh.shape[1]
        first = self._prompt_length - 1 - (self.tokens.shape[1] - length)
        with steered(self.model.blocks, placed(self._additions["all"], self._additions["answer"], length, first)):
            output = self.model.network(
                input_ids=self._fresh,
                attention_mask=torch.ones_like(self.tokens),
                past_key_values=self._cache,
                use_cache=True,
                **self._head_once,
            )
        self._cache = getattr(output, "past_key_values", None)  # a recurrent model may have none
        return output.logits[:, -1].float()

    def advance(self, chosen: Tensor, going: list[int]) -> None:
        """Append each row's token; keep only the rows at the places `going`."""
        self.tokens = torch.cat([self.tokens, chosen[:, None]], dim=1)
        self._fresh = self.tokens if self._cache is None else chosen[:, None]
        if len(going) == len(self.rows):
            return
        self.rows = [self.rows[place] for place in going]
        if not going:
            return
        keep = torch.tensor(going, device=self.tokens.device)
        self.tokens, self._fresh = self.tokens[keep], self._fresh[keep]
        self._additions = {
            scope: {layer: rows[keep] for layer, rows in additions.items()}
            for scope, additions in self._additions.items()
        }
        if self._cache is not None:
            self._cache.reorder_cache(keep)  # keeps these rows; unlike batch_select_indices, every kind of cache has it


@dataclass
class SharedNoise:
    """Gumbel noise over the vocabulary, one draw a step for all columns.

    The token with the largest log-probability plus Gumbel noise is an exact draw from the distribution (the Gumbel-max
    trick). With one draw shared by the columns, two columns pick different tokens only where steering moved the
    distribution, and a column's draws do not depend on how many others there are.
    """

    seed: int
    _generator: torch.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)

    def next(self, vocabulary: int) -> Tensor:
        uniform = torch.rand(vocabulary, generator=self._generator, dtype=torch.float64)
        return -torch.log(-torch.log(uniform.clamp_min(1e-300))).float()
