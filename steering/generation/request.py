"""A request for answers to one prompt under several settings: checked when made, then filled with what is decoded."""

import time
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from steering.errors import SteeringError
from steering.generation.engine.decoder import Decoder
from steering.generation.engine.prefix_cache import PrefixCache
from steering.generation.prompt_batch import PromptBatch
from steering.generation.results import Column, TokenChance
from steering.generation.sampling import MAX_NEW_TOKENS, Sampling, SharedNoise
from steering.intervention.additions import Setting, additions_for
from steering.limits import NO_LIMITS, Limits
from steering.models.chat_template import DEFAULT_SYSTEM_PROMPT, Conversation, conversation
from steering.models.loading import LanguageModel
from steering.vectors.action import TOKEN_SCOPES

MAX_COLUMNS = 16


class Request:
    """One request and its answers so far.

    Its rows are the columns and, of a traced request, one more for each steered column: a row under the empty setting
    that is made to continue with the column's tokens, so that its logits tell how probable the untouched model finds
    them.

    Args:
        settings: one for each column.
        system, before, histories, trace: as in `stream`.
        sampling: how tokens are chosen.
        limits: what the caller may ask for.

    Attributes:
        columns: the answers so far.
        rows: how many rows are decoded at first.
        max_new_tokens: most tokens an answer may have: as asked for, or what the context leaves room for.

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
        limits: Limits = NO_LIMITS,
    ) -> None:
        sampling.check()
        if not 1 <= len(settings) <= MAX_COLUMNS:
            raise SteeringError(f"{len(settings)} columns were asked for; give 1 to {MAX_COLUMNS}.")
        befores = [before] * len(settings) if histories is None else list(histories)
        if len(befores) != len(settings):
            raise SteeringError(f"{len(befores)} histories were given for {len(settings)} columns; give one for each.")
        for each in befores:
            limits.check_request(len(settings), sampling.max_new_tokens, prompt, system, (text for _, text in each))
        self.columns = [Column(setting) for setting in settings]
        self._trace = trace
        steered = [column for column, setting in enumerate(settings) if trace and any(setting.values())]
        self._untouched_rows = {column: len(settings) + place for place, column in enumerate(steered)}
        self.rows = len(settings) + len(steered)
        all_settings = [*settings, *({} for _ in steered)]
        self._additions = {scope: additions_for(model, all_settings, [scope]) for scope in TOKEN_SCOPES}
        self._rows_of_prompt: dict[tuple[int, ...], list[int]] = {}  # rows that answer the same prompt are one batch
        for row, before_row in enumerate([*befores, *(befores[column] for column in steered)]):
            ids = prompt_ids(model, prompt, system=system, before=before_row)
            self._rows_of_prompt.setdefault(tuple(ids), []).append(row)
        longest = max(map(len, self._rows_of_prompt))
        room = (model.context_length or longest + MAX_NEW_TOKENS) - longest
        self.max_new_tokens = min(sampling.max_new_tokens, room)
        self._answers: list[list[int]] = [[] for _ in settings]
        self._tokenizer, self._stop_tokens = model.tokenizer, model.stop_tokens
        self._noise = SharedNoise(sampling.seed) if sampling.temperature > 0 else None
        self._processors = sampling.processors()
        self.start_clock()

    def start_clock(self) -> None:
        """Count the columns' seconds from now."""
        self._began = time.perf_counter()

    def prompt_batches(self, decoder: Decoder, prefix_cache: PrefixCache | None = None) -> list[PromptBatch]:
        """Return the rows, one batch for each different prompt, before the prefill."""
        return [
            PromptBatch(
                ids,
                {
                    scope: {layer: additions[rows] for layer, additions in of_scope.items() if additions[rows].any()}
                    for scope, of_scope in self._additions.items()
                },
                rows,
                decoder.device,
                prefix_cache,
            )
            for ids, rows in self._rows_of_prompt.items()
        ]

    @torch.inference_mode()
    def choose_tokens(
        self, batches: Sequence[PromptBatch], logits: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[list[int]]]:
        """Choose every row's next token from logits [rows, vocabulary] of each batch; append them to the columns.

        Returns for each batch its rows' tokens, int64 [rows], and the places of the rows that continue.
        """
        noise = None if self._noise is None else self._noise.next(logits[0].shape[-1]).to(logits[0].device)
        token_of: dict[int, int] = {}  # row -> token
        for batch, rows in zip(batches, logits, strict=True):
            scores = self._processors(cast(torch.LongTensor, batch.tokens), cast(torch.FloatTensor, rows))
            scores = scores if noise is None else scores + noise
            token_of.update(zip(batch.rows, scores.argmax(dim=-1).tolist(), strict=True))
        token_of.update({row: token_of[column] for column, row in self._untouched_rows.items() if column in token_of})
        chosen = [logits[0].new_tensor([token_of[row] for row in batch.rows], dtype=torch.long) for batch in batches]
        chances: dict[int, float] = {}  # row -> probability of its token
        if self._trace:
            for batch, rows, tokens in zip(batches, logits, chosen, strict=True):
                log_probabilities = rows.gather(-1, tokens[:, None])[:, 0] - rows.logsumexp(-1)
                chances.update(zip(batch.rows, log_probabilities.exp().tolist(), strict=True))
        divergences = self._divergences(batches, logits) if self._trace else {}
        seconds = time.perf_counter() - self._began
        finished = set()
        for row in range(len(self.columns)):
            if row in token_of and self._append(row, token_of[row], chances, divergences.get(row, 0.0), seconds):
                finished |= {row, self._untouched_rows.get(row, row)}
        continuing = [[place for place, row in enumerate(batch.rows) if row not in finished] for batch in batches]
        return chosen, continuing

    def _divergences(self, batches: Sequence[PromptBatch], logits: Sequence[Tensor]) -> dict[int, float]:
        """Compute KL(steered || untouched) of the next token in nats for each column that has an untouched row."""
        row_logits = {row: rows[i] for b, rows in zip(batches, logits, strict=True) for i, row in enumerate(b.rows)}
        pairs = [(column, row) for column, row in self._untouched_rows.items() if column in row_logits]
        if not pairs:
            return {}
        steered, untouched = (
            torch.stack([row_logits[pair[side]] for pair in pairs]).log_softmax(dim=-1) for side in (0, 1)
        )
        divergences = (steered.exp() * (steered - untouched)).sum(dim=-1).clamp(min=0)
        return {column: kl for (column, _), kl in zip(pairs, divergences.tolist(), strict=True)}

    def _append(self, row: int, token: int, chances: dict[int, float], divergence: float, seconds: float) -> bool:
        """Append a token to a column; return whether the column is finished."""
        column, answer = self.columns[row], self._answers[row]
        answer.append(token)
        finished = token in self._stop_tokens or len(answer) == self.max_new_tokens
        text = str(self._tokenizer.decode(answer, skip_special_tokens=True))
        text = text.rstrip("\ufffd")  # half a character: the next token completes it, or the answer was cut there
        trace = column.trace
        if self._trace:
            untouched = chances[self._untouched_rows.get(row, row)]
            trace = (*trace, TokenChance(text[len(column.text) :], untouched, chances[row], divergence))
        self.columns[row] = Column(column.setting, text, len(answer), finished, seconds, trace)
        return finished


def prompt_ids(model: LanguageModel, prompt: str, *, system: str, before: Conversation = ()) -> list[int]:
    """Return the token ids of the conversation up to where the answer begins.

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
