"""Comparisons, before a way of decoding is used, with a plainer way that computes the same thing.

The reference is transformers' forward of the model's own weights, one row of the prefill for each row, one pass for
each prompt. Where a comparison fails, the plainer way is taken and a log line says why.
"""

import logging

import torch
from torch import Tensor

from steering.generation.engine.protocol import DecodingEngine
from steering.generation.engine.row_group import RowGroup
from steering.generation.prompt_batch import PromptBatch
from steering.generation.transformers_engine import TransformersEngine
from steering.models.precision import logits_agree
from steering.models.probe import probe_ids

logger = logging.getLogger(__name__)

STEPS = 3
"""Decode steps of a comparison: the first attends to the prefill's keys, the next ones to the step's own."""
FLOAT16_ERROR = 5e-3
"""Largest error of float16 logits (see `float16_error`): the bundled model's is 2.2e-3, the tiny ones' up to 1.5e-3; a
head that is wrong by 1e-2 has 1e-2."""
MAX_KL = 1e-3
"""Mean KL divergence in nats above which float16 is not used: bfloat16, which everyone accepts, has 7e-4 with the
bundled model; float16 has 2e-6."""
PROBE_TEXT = "The quick brown fox jumps over the lazy dog, and then it sits down by the river to think about its day."
KL_STEPS = 10
"""Tokens of the probe text that are read by decode steps, the others by a prefill."""


def trial_logits(engine: DecodingEngine, model: TransformersEngine, hidden_size: int, *, ragged: bool) -> list[Tensor]:
    """Prefill two steered prompts of different lengths, two rows each, and decode some tokens.

    Args:
        engine: what runs them; `model`: names the vocabulary and the device.
        ragged: decode both prompts in one batch.

    Returns float32 [rows, vocabulary] after each prompt and after each step of each prompt.
    """
    ids = probe_ids(model.network, 6)
    push = torch.randn(4, hidden_size, generator=torch.Generator().manual_seed(0)).to(model.device)
    layers = len(model.blocks)
    batches = [
        PromptBatch(ids, {"all": {layers // 2: push[:2]}, "answer": {}}, range(2), model.device),
        PromptBatch(ids[2:5], {"all": {layers - 1: push[2:]}, "answer": {0: push[1:3]}}, range(2), model.device),
    ]
    results = [engine.prefill(batch) for batch in batches]
    first = RowGroup(engine)
    groups = [first, first if ragged else RowGroup(engine)]
    for batch, group in zip(batches, groups, strict=True):
        batch.append(torch.tensor(ids[:2], device=model.device))
        group.join(batch)
    for token in ids[1 : 1 + STEPS]:
        for group in dict.fromkeys(groups):
            results = results + group.logits()
        for batch in batches:
            batch.append(torch.tensor([token, token + 1], device=model.device))
    return results


def finds_same_logits(engine: TransformersEngine, hidden_size: int, *, ragged: bool = False) -> bool:
    """Tell whether an engine's shared prefill (with `ragged`, its padded batch) leaves the logits as they are."""
    what = "one padded batch for several prompts" if ragged else "one prefill for all rows"
    shares_prompt = engine.shares_prompt
    try:
        engine.shares_prompt = False
        want = trial_logits(engine, engine, hidden_size, ragged=False)
        engine.shares_prompt = not ragged
        got = trial_logits(engine, engine, hidden_size, ragged=ragged)
        same = all(logits_agree(*each, engine.network.dtype) for each in zip(got, want, strict=True))
        reason: object = "the logits differ"
    except Exception as error:  # noqa: BLE001 - an architecture may refuse in any way
        same, reason = False, repr(error)
    finally:
        engine.shares_prompt = shares_prompt
    if not same:
        logger.info("%s: not with %s: %s", what, type(engine.network).__name__, reason)
    return same


def float16_error(engine: DecodingEngine, plain: TransformersEngine, hidden_size: int) -> float:
    """Compare an engine's logits with the plain engine's, in units of the logits' standard deviation over a row.

    Returns the larger of two errors: the root mean square error of a row after taking out its mean, in the worst row;
    and the mean error over all rows (a shift of one row's logits moves no probability, that of all is a defect).
    """
    got = torch.cat(trial_logits(engine, plain, hidden_size, ragged=bool(engine.supports_ragged_batch)))
    want = torch.cat(trial_logits(plain, plain, hidden_size, ragged=False))
    errors = (got - want) / want.std(-1, keepdim=True)
    shifts = errors.mean(-1, keepdim=True)
    worst = torch.stack([(errors - shifts).square().mean(-1).sqrt().max(), shifts.mean().abs()])
    return float(worst.nan_to_num(nan=torch.inf).max())


@torch.inference_mode()
def mean_kl(engine: DecodingEngine, plain: TransformersEngine, ids: list[int]) -> float:
    """Measure the mean KL divergence in nats of an engine's next tokens from the model's, over the end of a text."""
    start = max(1, len(ids) - KL_STEPS)
    batch = PromptBatch(ids[:start], {"all": {}, "answer": {}}, [0], plain.device)
    logits, group = [engine.prefill(batch)], RowGroup(engine)
    for place, token in enumerate(ids[start:]):
        batch.append(torch.tensor([token], device=plain.device))
        if not place:
            group.join(batch)
        logits += group.logits()
    got = torch.cat(logits).log_softmax(-1)
    whole = plain.network(input_ids=torch.tensor([ids], device=plain.device), use_cache=False).logits[0]
    want = whole[-len(got) :].float().log_softmax(-1)
    return float((want.exp() * (want - got)).sum(-1).mean().clamp_min(0))
