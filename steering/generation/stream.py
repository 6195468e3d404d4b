"""Answers side by side: all columns are decoded as one batch, each row under its own setting, streamed together."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor

from steering.generation.engine.batching import ActiveRows
from steering.generation.engine.decoder import Decoder, decoder_of
from steering.generation.prompt_batch import PromptBatch
from steering.generation.request import MAX_COLUMNS, Request, prompt_ids
from steering.generation.results import Column
from steering.generation.sampling import Sampling
from steering.intervention.additions import Setting
from steering.models.chat_template import DEFAULT_SYSTEM_PROMPT, Conversation
from steering.models.loading import LanguageModel

__all__ = ["MAX_COLUMNS", "generate", "prompt_ids", "stream"]


def generate(model: LanguageModel, prompt: str, columns: Sequence[Setting] = ({},), **options: Any) -> list[Column]:
    """Return the finished columns; takes what `stream` takes.

    Example: `generate(model, "Who are you?", [{}, {vector: 1.5}], max_new_tokens=64)[1].text`
    """
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
    **sampling_options: Any,
) -> Iterator[list[Column]]:
    """Decode the answer to one prompt under every setting at once; yield all columns after each token.

    Sampling comes as a `Sampling`, or as its fields (`max_new_tokens=64`). Nothing is held between two yields, no hook
    and no lock: a consumer may stop at any token by closing the generator, or through `should_stop`. On a CPU,
    `weights="float16"` generates several times as fast with half a model's memory more (see
    `generation.precision.precision_report`).

    Args:
        before: the turns before the prompt; `histories`: one conversation for each column, in its place.
        trace: also give each token's probability in the untouched model, which runs along (a row more for each
            steered column).

    Raises SteeringError for an empty prompt, one longer than the context, an unsound setting or unknown weights.
    """
    request = Request(
        model,
        prompt,
        columns,
        system=system,
        before=before,
        histories=histories,
        sampling=sampling or Sampling(**sampling_options),
        trace=trace,
    )
    return _decode(request, decoder_of(model, weights), should_stop)


def _prefilled(decoder: Decoder, batch: PromptBatch) -> Tensor:
    return decoder.run(lambda engine: engine.prefill(batch))


def _decode(request: Request, decoder: Decoder, should_stop: Callable[[], bool]) -> Iterator[list[Column]]:
    request.start_clock()
    batches = request.prompt_batches(decoder)
    if should_stop():
        return
    chosen, continuing = request.choose_tokens(batches, [_prefilled(decoder, batch) for batch in batches])
    yield list(request.columns)
    rows = ActiveRows(decoder)
    for batch, tokens, places in zip(batches, chosen, continuing, strict=True):
        rows.add_prefilled(batch, tokens, places)

    while rows.members and not should_stop():
        rows.append(*request.choose_tokens(rows.members, rows.logits()))
        yield list(request.columns)
