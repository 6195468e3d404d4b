"""Answers side by side: all columns are decoded as one batch, each row under its own setting, streamed together."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steering.decoding import Batch, Decoder, decoder_of
from steering.errors import SteeringError
from steering.intervention import Additions, Setting, additions_for
from steering.models import LanguageModel
from steering.prompts import DEFAULT_SYSTEM_PROMPT, Conversation, conversation
from steering.sampling import MAX_NEW_TOKENS, Sampling, SharedNoise
from steering.vectors import TOKEN_SCOPES

MAX_COLUMNS = 8


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
    weights: str = "full",
    **sampling_options: float,
) -> Iterator[list[Column]]:
    """Decode the answer to one prompt under every setting at once; yields all columns after each token.

    Sampling comes as a `Sampling`, or as its fields (`max_new_tokens=64`). Nothing is held between two yields, no hook
    and no lock: a consumer may stop at any token by closing the generator, or through `should_stop`. On a CPU,
    `weights="float16"` writes about twice as fast with half a model's memory more (see `decoding.decoder_of`).

    Raises SteeringError for an empty prompt, one longer than the context, an unsound setting or unknown weights.
    """
    run = Run(model, prompt, columns, system, before, sampling or Sampling(**sampling_options))
    return _decode(run, decoder_of(model, weights), should_stop)


def _decode(run: "Run", decoder: Decoder, should_stop: Callable[[], bool]) -> Iterator[list[Column]]:
    run.start()
    batch = Batch(decoder, run.ids, run.additions, len(run.columns))

    def step() -> Tensor:
        return run.choose(batch.tokens, batch.logits())

    while batch.rows and not should_stop():
        chosen = step() if batch.reads_prompt else decoder.on_step_cores(step)
        batch.advance(chosen, run.record(batch.rows, chosen))
        yield list(run.columns)


class Run:
    """One visitor's request: checked when made, then what is written of it so far.

    Attributes:
        ids: the prompt as tokens; `additions`: token scope -> layer -> float32 [columns, hidden_size].
        columns: the answers so far.

    Raises SteeringError for what `stream` raises it for.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompt: str,
        settings: Sequence[Setting],
        system: str,
        before: Conversation,
        sampling: Sampling,
    ) -> None:
        sampling.check()
        if not 1 <= len(settings) <= MAX_COLUMNS:
            raise SteeringError(f"{len(settings)} columns were asked for; give 1 to {MAX_COLUMNS}.")
        self.additions: dict[str, Additions] = {
            scope: additions_for(model, settings, [scope]) for scope in TOKEN_SCOPES
        }
        self.ids = prompt_ids(model, prompt, system=system, before=before)
        room = (model.context_length or len(self.ids) + MAX_NEW_TOKENS) - len(self.ids)
        self.max_new_tokens = min(sampling.max_new_tokens, room)
        self.columns = [Column(setting) for setting in settings]
        self._written: list[list[int]] = [[] for _ in settings]
        self._tokenizer, self._stop_tokens = model.tokenizer, model.stop_tokens
        self._noise = SharedNoise(sampling.seed) if sampling.temperature > 0 else None
        self._processors = sampling.processors()
        self.start()

    def start(self) -> None:
        """Count seconds from now."""
        self._began = time.perf_counter()

    @torch.inference_mode()
    def choose(self, tokens: Tensor, logits: Tensor) -> Tensor:
        """int64 [rows]: the next token of each row, after `tokens` [rows, positions]."""
        scores = self._processors(tokens, logits)
        if self._noise is not None:
            scores = scores + self._noise.next(scores.shape[-1]).to(scores.device)
        return scores.argmax(dim=-1)

    def record(self, rows: Sequence[int], chosen: Tensor) -> list[int]:
        """Write down each row's token; returns the places of the rows that go on."""
        seconds = time.perf_counter() - self._began
        going = []
        for place, (row, token) in enumerate(zip(rows, chosen.tolist(), strict=True)):
            written = self._written[row]
            written.append(token)
            finished = token in self._stop_tokens or len(written) == self.max_new_tokens
            text = self._tokenizer.decode(written, skip_special_tokens=True)
            if not finished:
                text = text.rstrip("\ufffd")  # half a character; the next token completes it
                going.append(place)
            self.columns[row] = Column(self.columns[row].setting, text, len(written), finished, seconds)
        return going


def prompt_ids(model: LanguageModel, prompt: str, *, system: str, before: Conversation = ()) -> list[int]:
    """Token ids of the conversation up to where the answer begins.

    Raises SteeringError for an empty prompt, or one that leaves no room for an answer.
    """
    if not prompt.strip():
        raise SteeringError("The prompt is empty; write something for the model to answer.")
    ids = model.prompts.prompt_ids(conversation(prompt.strip(), system=system, before=before))
    if model.context_length and len(ids) >= model.context_length:
        raise SteeringError(
            f"The prompt is {len(ids)} tokens long and {model.name} reads at most {model.context_length}; shorten it."
        )
    return ids
