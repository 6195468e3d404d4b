"""Answers side by side: all columns are decoded as one batch, each row under its own setting, streamed together."""

import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from steering.errors import SteeringError
from steering.generation.engine.batching import rows_for
from steering.generation.engine.decoder import Batch, Decoder, decoder_of, read_prompts
from steering.generation.engine.prefix_cache import PrefixCache
from steering.generation.results import Column, TokenChance
from steering.generation.sampling import MAX_NEW_TOKENS, Sampling, SharedNoise
from steering.intervention.additions import Setting, additions_for
from steering.models.chat_template import DEFAULT_SYSTEM_PROMPT, Conversation, conversation
from steering.models.loading import LanguageModel
from steering.vectors.vector import TOKEN_SCOPES

MAX_COLUMNS = 16


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
    histories: Sequence[Conversation] | None = None,
    sampling: Sampling | None = None,
    trace: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    weights: str = "full",
    **sampling_options: float,
) -> Iterator[list[Column]]:
    """Decode the answer to one prompt under every setting at once; yields all columns after each token.

    Sampling comes as a `Sampling`, or as its fields (`max_new_tokens=64`). Nothing is held between two yields, no hook
    and no lock: a consumer may stop at any token by closing the generator, or through `should_stop`. On a CPU,
    `weights="float16"` writes several times as fast with half a model's memory more (see `decoding.decoder_of`).

    Args:
        before: the turns before the prompt; `histories`: one conversation for each column, in its place.
        trace: also tell each token's probability in the untouched model, which reads along (a row more for each
            steered column).

    Raises SteeringError for an empty prompt, one longer than the context, an unsound setting or unknown weights.
    """
    run = Run(
        model,
        prompt,
        columns,
        system=system,
        before=before,
        histories=histories,
        sampling=sampling or Sampling(**sampling_options),
        trace=trace,
    )
    return _decode(run, decoder_of(model, weights), should_stop)


def _decode(run: "Run", decoder: Decoder, should_stop: Callable[[], bool]) -> Iterator[list[Column]]:
    run.start()
    batches = run.batches(decoder)
    if should_stop():
        return
    chosen, going = run.write(batches, read_prompts(batches))
    yield list(run.columns)
    rows = rows_for(decoder, len(batches))
    for batch, tokens, places in zip(batches, chosen, going, strict=True):
        batch.advance(tokens, places)
        if places:
            rows.join(batch)

    def step() -> tuple[list[Tensor], list[list[int]]]:
        return run.write(rows.members, rows.logits())

    while rows.members and not should_stop():
        rows.advance(*decoder.on_step_cores(step))
        yield list(run.columns)


class Run:
    """One visitor's request: checked when made, then what is written of it so far.

    Its rows are the columns and, of a traced run, a shadow for each steered column: a row under the empty setting that
    is made to write the column's tokens, so that its logits tell what the untouched model thinks of them.

    Attributes:
        columns: the answers so far; `rows`: how many rows are written at first.

    Raises SteeringError for what `stream` raises it for.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompt: str,
        settings: Sequence[Setting],
        *,
        system: str = DEFAULT_SYSTEM_PROMPT,
        before: Conversation = (),
        histories: Sequence[Conversation] | None = None,
        sampling: Sampling,
        trace: bool = False,
    ) -> None:
        sampling.check()
        if not 1 <= len(settings) <= MAX_COLUMNS:
            raise SteeringError(f"{len(settings)} columns were asked for; give 1 to {MAX_COLUMNS}.")
        befores = [before] * len(settings) if histories is None else list(histories)
        if len(befores) != len(settings):
            raise SteeringError(f"{len(befores)} histories were given for {len(settings)} columns; give one for each.")
        self.columns = [Column(setting) for setting in settings]
        self._trace = trace
        steered = [column for column, setting in enumerate(settings) if trace and any(setting.values())]
        self._shadows = {column: len(settings) + place for place, column in enumerate(steered)}
        self.rows = len(settings) + len(steered)
        all_settings = [*settings, *({} for _ in steered)]
        self._additions = {scope: additions_for(model, all_settings, [scope]) for scope in TOKEN_SCOPES}
        self._prompts: dict[tuple[int, ...], list[int]] = {}  # rows that answer the same prompt are one batch
        for row, before_row in enumerate([*befores, *(befores[column] for column in steered)]):
            ids = prompt_ids(model, prompt, system=system, before=before_row)
            self._prompts.setdefault(tuple(ids), []).append(row)
        longest = max(map(len, self._prompts))
        room = (model.context_length or longest + MAX_NEW_TOKENS) - longest
        self.max_new_tokens = min(sampling.max_new_tokens, room)
        self._written: list[list[int]] = [[] for _ in settings]
        self._tokenizer, self._stop_tokens = model.tokenizer, model.stop_tokens
        self._noise = SharedNoise(sampling.seed) if sampling.temperature > 0 else None
        self._processors = sampling.processors()
        self.start()

    def start(self) -> None:
        """Count seconds from now."""
        self._began = time.perf_counter()

    def batches(self, decoder: Decoder, prefixes: PrefixCache | None = None) -> list[Batch]:
        """The run's rows, before their prompts are read; batches have the rows' numbers."""
        return [
            Batch(
                decoder,
                list(ids),
                {
                    scope: {layer: additions[rows] for layer, additions in of_scope.items() if additions[rows].any()}
                    for scope, of_scope in self._additions.items()
                },
                rows,
                prefixes,
            )
            for ids, rows in self._prompts.items()
        ]

    @torch.inference_mode()
    def write(self, batches: Sequence[Batch], logits: Sequence[Tensor]) -> tuple[list[Tensor], list[list[int]]]:
        """Choose and write down the next token of every row, from logits [rows, vocabulary] for each of the batches.

        Returns for each batch its rows' tokens, int64 [rows], and the places of the rows that go on.
        """
        noise = None if self._noise is None else self._noise.next(logits[0].shape[-1]).to(logits[0].device)
        picked: dict[int, int] = {}
        for batch, rows in zip(batches, logits, strict=True):
            scores = self._processors(batch.tokens, rows)
            scores = scores if noise is None else scores + noise
            picked.update(zip(batch.rows, scores.argmax(dim=-1).tolist(), strict=True))
        picked.update({shadow: picked[column] for column, shadow in self._shadows.items() if column in picked})
        chosen = [logits[0].new_tensor([picked[row] for row in batch.rows], dtype=torch.long) for batch in batches]
        chances: dict[int, float] = {}
        if self._trace:
            for batch, rows, tokens in zip(batches, logits, chosen, strict=True):
                log_probabilities = rows.gather(-1, tokens[:, None])[:, 0] - rows.logsumexp(-1)
                chances.update(zip(batch.rows, log_probabilities.exp().tolist(), strict=True))
        seconds = time.perf_counter() - self._began
        ended = set()
        for row in range(len(self.columns)):
            if row in picked and self._record(row, picked[row], chances, seconds):
                ended |= {row, self._shadows.get(row, row)}
        going = [[place for place, row in enumerate(batch.rows) if row not in ended] for batch in batches]
        return chosen, going

    def _record(self, row: int, token: int, chances: dict[int, float], seconds: float) -> bool:
        """Write down a column's token; whether the column has ended."""
        before, written = self.columns[row], self._written[row]
        written.append(token)
        finished = token in self._stop_tokens or len(written) == self.max_new_tokens
        text = self._tokenizer.decode(written, skip_special_tokens=True)
        if not finished:
            text = text.rstrip("\ufffd")  # half a character; the next token completes it
        trace = before.trace
        if self._trace:
            told = TokenChance(text[len(before.text) :], chances[self._shadows.get(row, row)], chances[row])
            trace = (*trace, told)
        self.columns[row] = Column(before.setting, text, len(written), finished, seconds, trace)
        return finished


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
