"""The losses of preference objectives, from the log-probabilities of a pair's two answers.

For a direction d of a step, let f be the favored answer (chosen for d = +1, rejected for d = -1), o the other, lp the
log-probability of an answer under the steered model summed over its tokens, lp0 that of the untouched model, n its
number of tokens, w the setting `length_weight`, CE = -lp / n. The loss of a pair is the sum of

    reference   -log sigmoid(beta [(lp_f - lp0_f) / n_f^w - (lp_o - lp0_o) / n_o^w])
                BiPO (Cao et al., arXiv 2406.00045, equation 3), DPO (Rafailov et al., arXiv 2305.18290)
    free        -log sigmoid(beta [b lp_f / n_f^w - lp_o / n_o^w] - target_margin)
                SimPO (Meng et al., arXiv 2405.14734) for b = 1; with `lift` b = max(lp0_o - lp0_f, 1)
                RePS (Wu et al., arXiv 2505.20809)
    anchor      anchor CE_f + anchor_other CE_o
    hinge       hinge max(0, hinge_margin - (CE_o - CE_f))      both as in SPLIT (arXiv 2602.02343)
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from steering.evaluation.preference import log_ratio
from steering.intervention.operators import bounded, row_of
from steering.training.objective_config import ObjectiveConfig


def pair_losses(logps: Tensor, reference_logps: Tensor, lengths: Tensor, d: float, terms: ObjectiveConfig) -> Tensor:
    """Return the loss of each pair, [n], in one direction.

    Args:
        logps: [n, 2], steered log-probabilities of chosen and rejected answers, in nats.
        reference_logps: [n, 2], those of the untouched model.
        lengths: [n, 2], tokens of the answers.
        d: +1 or -1, which answer is favored.
    """
    if terms.compare == "reference":
        moved = (logps - reference_logps) / lengths**terms.length_weight
        loss = bipo_loss(log_ratio(moved), d, terms.beta)
    else:
        loss = torch.zeros_like(logps[:, 0])
    steered, untouched, tokens = (part if d > 0 else part.flip(-1) for part in (logps, reference_logps, lengths))
    if terms.compare == "free":
        favored, other = (steered / tokens**terms.length_weight).unbind(-1)
        lift = (untouched[:, 1] - untouched[:, 0]).clamp(min=1) if terms.lift else 1.0
        loss = -F.logsigmoid(terms.beta * (lift * favored - other) - terms.target_margin)
    if terms.anchor or terms.anchor_other or terms.hinge:
        of_favored, of_other = (-steered / tokens).unbind(-1)
        loss = loss + terms.anchor * of_favored + terms.anchor_other * of_other
        loss = loss + terms.hinge * (terms.hinge_margin - (of_other - of_favored)).clamp(min=0)
    return loss


def bipo_loss(delta: Tensor, d: float, beta: float) -> Tensor:
    """Return -log sigmoid(d * beta * Delta) of each pair (Cao et al., arXiv 2406.00045, equation 3).

    Args:
        delta: [n], the steered minus the reference log-ratio of chosen to rejected, in nats.
        d: +1 or -1, the direction in which the vector was added.
        beta: sharpness, as in DPO.
    """
    return -F.logsigmoid(d * beta * delta)


def steering_rows(v: Tensor, d: float, multiplier: float, opposite: str) -> Tensor:
    """Make what a step steers with, as `Additions` have it; differentiable in v, [hidden_size].

    That is d * multiplier * v. On the side d = -1 of an objective whose `opposite` is `project`, the hidden state loses
    what it has along v instead: h - max(h.u, 0) u with u = v / |v|, RePS's negative side (its offset left out).
    """
    if d > 0 or opposite == "subtract":
        return d * multiplier * v
    return row_of(torch.zeros_like(v), False, [bounded(v, high=0.0)])
