"""Whether the fast way of scoring gives what the reference gives: compared for each scorer that is made."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from steering.models.loading import LanguageModel
from steering.models.probe import probe_ids
from steering.pairs.tokenization import EncodedPair
from steering.scoring.fast.packed_scorer import PackedScorer, why_not_packed
from steering.scoring.reference import LOGITS_BYTES, ReferenceScorer, logits_bytes

logger = logging.getLogger(__name__)

CHECKED_TOKENS = 1024
"""Longest pair that is compared; a longer one would cost each scorer that is made several seconds."""
TOLERANCES = {torch.float32: (5e-5, 5e-5, 1e-3)}
HALF_PRECISION_TOLERANCES = (1e-2, 5e-2, 0.2)
"""Relative and absolute tolerance of log-probabilities in nats, and relative tolerance of a gradient's L2 norm.

In float32 the two ways differ by some 1e-6 of a sum over an answer's tokens, where a mistake in a mask, a position or
the LM head shows from 1e-3 on. In bfloat16 and float16 each number is rounded to 3 digits."""


def checked_packed_scorer(
    model: LanguageModel, pairs: Sequence[EncodedPair], layer: int, scope: str
) -> tuple[PackedScorer | None, str]:
    """Return (the fast way, "") if it is exact, else (None, why not).

    Compared are two small pairs: log-probabilities untouched and steered, and the gradient; and the longest of `pairs`,
    for what goes wrong only past some length: log-probabilities steered.
    """
    name = type(model.network).__name__
    if why := why_not_packed(model, pairs):
        return None, why
    try:
        fast = PackedScorer(model, pairs, layer, scope)
        samples = _sample_pairs(probe_ids(model.network, 30))
        small = fast.for_pairs(samples), ReferenceScorer(model, samples, scope)
        difference = _difference(model, layer, *small, indices=(0, 1), thorough=True)
        if pairs and not difference:
            ways = fast, ReferenceScorer(model, pairs, scope)
            longest = _longest_checked(model, pairs)
            difference = _difference(model, layer, *ways, indices=(longest,), thorough=False)
    except Exception as error:  # an architecture, or a private operator of torch's, may fail in any way
        kind = type(error).__name__
        logger.warning("%s cannot be packed (%s: %s); it is scored the reference, slower way.", name, kind, error)
        logger.debug("The error in full:", exc_info=error)
        return None, f"{name} cannot be packed ({kind})"
    if difference:
        logger.warning("%s gives other %s when packed; it is scored the reference, slower way.", name, difference)
        return None, f"{name} gives other results when packed"
    return fast, ""


@torch.no_grad()
def _difference(
    model: LanguageModel,
    layer: int,
    fast: PackedScorer,
    reference: ReferenceScorer,
    *,
    indices: Sequence[int],
    thorough: bool,
) -> str:
    """Compare the two ways on some pairs under a random vector as long as the residual norm.

    thorough: compare the untouched log-probabilities and the gradient, too.

    Returns what differs, in words; empty where nothing does.
    """
    ways: tuple[PackedScorer | ReferenceScorer, ...] = (fast, reference)
    rtol, atol, gradient_rtol = TOLERANCES.get(model.network.dtype, HALF_PRECISION_TOLERANCES)

    def differ(got: Tensor, wanted: Tensor) -> bool:
        return not torch.allclose(got, wanted.to(got.device), rtol=rtol, atol=atol)

    untouched = fast.untouched_logps(indices)
    if thorough and differ(untouched, reference.untouched_logps(indices)):
        return "log-probabilities of the untouched model"
    push = torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(0)).to(model.device)
    push *= fast.residual_norm(indices) / push.norm()
    if not thorough:
        additions = {layer: push}
        got, wanted = (way.steered_logps(indices, additions) for way in ways)
        return "log-probabilities of a long pair" if differ(got, wanted) else ""
    with torch.enable_grad():
        leaves = push.clone().requires_grad_(), push.clone().requires_grad_()
        got, wanted = (way.steered_logps(indices, {layer: leaf}) for way, leaf in zip(ways, leaves, strict=True))
        if differ(got, wanted):
            return "log-probabilities under steering"
        weights = torch.linspace(-1, 1, got.numel(), device=got.device).view_as(got)
        gradients = [
            torch.autograd.grad((weights.to(logps.device) * logps).sum(), leaf)[0]
            for logps, leaf in zip((got, wanted), leaves, strict=True)
        ]
    error = (gradients[0] - gradients[1]).norm()
    return "" if error <= gradient_rtol * gradients[1].norm() else "gradients"


def _longest_checked(model: LanguageModel, pairs: Sequence[EncodedPair]) -> int:
    """Return the index of the longest pair of at most `CHECKED_TOKENS` and `LOGITS_BYTES`, or of the shortest."""
    lengths = {i: len(pair) for i, pair in enumerate(pairs)}
    short = [i for i in lengths if lengths[i] <= CHECKED_TOKENS and logits_bytes(model, [pairs[i]]) <= LOGITS_BYTES]
    return max(short, key=lengths.__getitem__) if short else min(lengths, key=lengths.__getitem__)


def _sample_pairs(ids: list[int]) -> list[EncodedPair]:
    """Make two small pairs with a shared beginning and unequal lengths out of 30 token ids or more."""
    head = ids[:3]
    return [
        EncodedPair(tuple(head + ids[3:9]), tuple(ids[9:14]), tuple(ids[14:17])),
        EncodedPair(tuple(head + ids[17:21]), tuple(ids[21:23]), tuple(ids[23:30])),
    ]
