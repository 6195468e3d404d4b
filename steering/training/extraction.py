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
from steering.training.extraction_config import ChooseLayer, ExtractionConfig, Prepare
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
    choose_layer: ChooseLayer | None = None,
) -> Generator[Progress, None, None]:
    """Run the model over all pairs, then fit each layer's direction; stopped early, to the pairs so far.

    A report's `step` counts pairs. On several processes each does all of the work: it takes seconds.

    Args:
        name: the method's, for the vector file.
        fit: (chosen, rejected) -> direction [hidden_size]; the activations of one layer, float32 [pairs, hidden_size].
        prepare, choose_layer: as `extraction_method` takes them.

    Raises SteeringError for a layer that the model does not have, or pairs of which it can read none.
    """
    began = time.monotonic()
    looked_at = _looked_at(model, config, choose_layer)
    pairs, encoded = _encoded(model, pairs, config, prepare)
    if held_out:
        held_out, _ = encode_pairs(model, held_out)
    total = len(encoded)

    def report(stage: Any, **figures: Any) -> Progress:
        seconds = time.monotonic() - began
        left = seconds / done * (total - done) if done else None
        return Progress(stage, done, total, done / total, seconds=seconds, seconds_left=left, unit="pairs", **figures)

    done, stopped = 0, False
    batches: list[AnswerActivations] = []
    yield report("preparing", settings=_settings(name, config, looked_at if len(looked_at) == 1 else config.layer))
    for batch in answer_activations(model, encoded, looked_at, config.position):
        stopped = context.stopped()
        if stopped:
            break
        batches.append(batch)
        done += len(batch)
        yield report("training")
    if not batches:
        yield report("done", stopped="asked")
        return
    chosen, rejected = (
        {k: torch.cat([getattr(batch, side)[k] for batch in batches]) for k in looked_at}
        for side in ("chosen", "rejected")
    )
    layers = looked_at
    if choose_layer and config.layer is None:
        layers = [choose_layer(chosen, rejected)]
    directions = {k: fit(chosen[k], rejected[k]) for k in layers}
    settings = _settings(name, config, layers)
    vector = trained_vector(directions, model, pairs[:done], held_out, settings, token_scope=config.token_scope)
    yield report("done", norm=vector.norm, vector=vector, stopped="asked" if stopped else "")


def _looked_at(model: LanguageModel, config: ExtractionConfig, choose_layer: ChooseLayer | None) -> list[int]:
    """List the layers whose activations are collected: those steered, or those to choose among."""
    if choose_layer and config.layer is None:
        return list(range(model.num_layers // 2 + 1))
    return steered_layers(model, config.layer)


def _encoded(
    model: LanguageModel, pairs: Pairs, config: ExtractionConfig, prepare: Prepare | None
) -> tuple[Pairs, list[EncodedPair]]:
    """Tokenise what the model reads. Returns the pairs that it can read, as they were brought, and their token ids."""
    return encode_pairs(model, pairs, prepare(pairs, config) if prepare else None)


def _settings(name: str, config: ExtractionConfig, layers: Any) -> dict[str, Any]:
    """Describe the run for the vector file."""
    layer = one_or_all(tuple(layers)) if isinstance(layers, list) else layers
    return {"name": name, **config.model_copy(update={"layer": layer}).as_json()}


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
