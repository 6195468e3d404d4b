"""The run of every extraction method: collect the activations of chosen and rejected answers, make a direction of them.

A method brings `fit`, which makes a layer's direction from the activations there; see `extraction_method.py`.
"""

import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch
from torch import Tensor

from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs
from steering.pairs.tokenization import EncodedPair, encode_pairs
from steering.training.activations import PAIRS_A_BATCH, AnswerActivations, answer_activations
from steering.training.config import one_or_all, steered_layers
from steering.training.extraction_config import ExtractionConfig, Prepare
from steering.training.progress import Progress
from steering.training.provenance import trained_vector
from steering.training.registry import RunContext

SAMPLED_PAIRS = 200
"""Pairs whose tokens are counted for an estimate; the others are taken to be like them. Tokenising 200 pairs of the
example sets takes less than a tenth of a second."""


def extract(
    name: str,
    fit: Callable[[Tensor, Tensor], Tensor],
    model: LanguageModel,
    pairs: Pairs,
    held_out: Pairs,
    config: ExtractionConfig,
    context: RunContext,
    *,
    prepare: Prepare | None = None,
) -> Generator[Progress, None, None]:
    """Run the model over all pairs, then fit each layer's direction; stopped early, to the pairs so far.

    A report's `step` counts pairs. On several processes each does all of the work: it takes seconds.

    Args:
        name: the method's, for the vector file.
        fit: (chosen, rejected) -> direction [hidden_size]; the activations of one layer, float32 [pairs, hidden_size].
        prepare: as `extraction_method` takes it.

    Raises SteeringError for a layer that the model does not have, or pairs of which it can read none.
    """
    began = time.monotonic()
    layers = steered_layers(model, config.layer)
    pairs, encoded = _encoded(model, pairs, config, prepare)
    if held_out:
        held_out, _ = encode_pairs(model, held_out)
    settings = {"name": name, **config.model_copy(update={"layer": one_or_all(tuple(layers))}).as_json()}
    total = len(encoded)

    def report(stage: Any, **figures: Any) -> Progress:
        seconds = time.monotonic() - began
        left = seconds / done * (total - done) if done else None
        return Progress(stage, done, total, done / total, seconds=seconds, seconds_left=left, unit="pairs", **figures)

    done, stopped = 0, False
    batches: list[AnswerActivations] = []
    yield report("preparing", settings=settings)
    for batch in answer_activations(model, encoded, layers, config.position):
        stopped = context.stopped()
        if stopped:
            break
        batches.append(batch)
        done += len(batch)
        yield report("training")
    if not batches:
        yield report("done", stopped="asked")
        return
    directions = {
        k: fit(torch.cat([b.chosen[k] for b in batches]), torch.cat([b.rejected[k] for b in batches])) for k in layers
    }
    vector = trained_vector(directions, model, pairs[:done], held_out, settings, token_scope=config.token_scope)
    yield report("done", norm=vector.norm, vector=vector, stopped="asked" if stopped else "")


def _encoded(
    model: LanguageModel, pairs: Pairs, config: ExtractionConfig, prepare: Prepare | None
) -> tuple[Pairs, list[EncodedPair]]:
    """Tokenise what the model reads. Returns the pairs that it can read, as they were brought, and their token ids."""
    return encode_pairs(model, pairs, prepare(pairs, config) if prepare else None)


def estimate(model: LanguageModel, pairs: Pairs, config: ExtractionConfig, *, prepare: Prepare | None = None) -> float:
    """Predict the seconds of `extract` on this machine, by running one batch of pairs of about median length.

    Raises SteeringError for a layer that the model does not have, or pairs of which it can read none.
    """
    layers = steered_layers(model, config.layer)
    encoded = sorted(_encoded(model, pairs[:SAMPLED_PAIRS], config, prepare)[1], key=len)
    start = max(0, (len(encoded) - PAIRS_A_BATCH) // 2)
    sample = encoded[start : start + PAIRS_A_BATCH]

    def seconds() -> float:
        began = time.perf_counter()
        list(answer_activations(model, sample, layers))
        return time.perf_counter() - began

    seconds()  # the first pass of a process is slower than those that follow
    return seconds() / _tokens(sample) * _tokens(encoded) / len(encoded) * len(pairs)


def _tokens(pairs: Sequence[EncodedPair]) -> int:
    return sum(2 * len(pair.prompt) + len(pair.chosen) + len(pair.rejected) for pair in pairs)
