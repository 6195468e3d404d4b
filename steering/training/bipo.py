"""BiPO: bi-directional preference optimization.

Cao et al., "Personalized Steering of Large Language Models: Versatile Steering Vectors Through Bi-directional
Preference Optimization", NeurIPS 2024, arXiv 2406.00045, equation 3, as the authors' code runs it.

For each batch one sign d is drawn from {-1, +1}. With the vector v added d times to the output of decoder block k at
every position, log p summed over the answer's tokens including the end of turn,

    Delta = [log p_dv(chosen) - log p_dv(rejected)] - [log p_0(chosen) - log p_0(rejected)]
    loss  = mean over the batch of -log sigmoid(d * beta * Delta)

v starts at zero and is the only thing trained: AdamW without weight decay (the authors declare 0.05 and never pass it
on), gradient clipping at 1, cosine schedule with warm-up.
"""

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from numbers import Integral, Real

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import get_cosine_schedule_with_warmup

from steering.encoding import encode_pairs
from steering.errors import SteeringError
from steering.evaluation.preference import preference_gaps, results
from steering.intervention import Additions
from steering.models import LanguageModel
from steering.pairs import Pairs
from steering.scoring import PairScorer
from steering.training.progress import Progress
from steering.vectors import SteeringVector

TRAVEL = 0.25
"""Default learning rate: steps all in one direction would carry the vector to this share of the residual norm."""
FEWEST_STEPS = 40
"""A shorter run keeps the learning rate of this many steps: larger strides than that overshoot."""
CURVE_PAIRS = 32
"""At most this many held-out pairs are measured while training, to draw the curve and pick the best vector."""


@dataclass(frozen=True)
class BiPOSettings:
    """Settings of a run; None is filled in by what fits the model and the data.

    Attributes:
        layer: the layer steered; by default the middle one.
        epochs: passes over the pairs; `batch_size`: pairs a step.
        learning_rate: peak of AdamW; by default fitted to the model's residual norm and the number of steps (the
            authors' 5e-4 suits thousands of steps).
        beta: how sharply the loss saturates (DPO's beta).
        seed: of the order of pairs and of the signs.
        max_steps: end after so many steps, even inside an epoch.
        warmup_steps: by default a tenth of the steps, at most the authors' 100.
        schedule_epochs: length of the cosine; by default `epochs` (the authors run 100 and stop earlier).
        max_grad_norm: clipping of the gradient's L2 norm.
        weight_decay: 0 as the authors' code runs.
        keep_best: return the vector with the lowest held-out loss instead of the last one.
        fast: False trains the plain way, the whole model on padded batches.
    """

    layer: int | None = None
    epochs: int = 4
    batch_size: int = 4
    learning_rate: float | None = None
    beta: float = 0.1
    seed: int = 0
    max_steps: int | None = None
    warmup_steps: int | None = None
    schedule_epochs: int | None = None
    max_grad_norm: float = 1.0
    weight_decay: float = 0.0
    keep_best: bool = True
    fast: bool = True

    def check(self) -> None:
        """Raise SteeringError for a value no run can have."""
        whole = {
            "epochs": (1, 1000),
            "batch_size": (1, 1024),
            "seed": (0, 2**63 - 1),
            "max_steps": (1, 10**9),
            "warmup_steps": (0, 10**9),
            "schedule_epochs": (self.epochs, 100_000),  # past its end a cosine would rise again
        }
        for name, (low, high) in whole.items():
            value = getattr(self, name)
            if value is None and getattr(BiPOSettings, name) is None:
                continue
            if not isinstance(value, Integral) or not low <= value <= high:
                raise SteeringError(f"{name} is {value}; give a whole number from {low} to {high}.")
        for name in ("learning_rate", "beta", "max_grad_norm", "weight_decay"):
            value = getattr(self, name)
            if value is None and getattr(BiPOSettings, name) is None:
                continue
            if not isinstance(value, Real) or not 0 <= value <= 1e6 or (value == 0 and name != "weight_decay"):
                raise SteeringError(f"{name} is {value}; give a number above 0 and at most a million.")

    def steps_per_epoch(self, pairs: int) -> int:
        return math.ceil(pairs / self.batch_size)

    def steps(self, pairs: int) -> int:
        steps = self.steps_per_epoch(pairs) * self.epochs
        return min(steps, self.max_steps or steps)

    def horizon(self, pairs: int) -> int:
        """Length of the cosine, in steps."""
        if self.schedule_epochs:
            return self.steps_per_epoch(pairs) * self.schedule_epochs
        return self.steps(pairs)

    def filled_in(self, layer: int, pairs: int, residual_norm: float, hidden_size: int) -> "BiPOSettings":
        """The same settings with every None replaced by what fits."""
        horizon = self.horizon(pairs)
        # AdamW moves each coordinate by about the learning rate a step, and the cosine averages half its peak.
        reach = math.sqrt(hidden_size) * max(horizon, FEWEST_STEPS) / 2
        rate = self.learning_rate or TRAVEL * residual_norm / reach
        warmup = min(100, horizon // 10) if self.warmup_steps is None else self.warmup_steps
        return replace(self, layer=layer, learning_rate=rate, warmup_steps=warmup)


def run(
    model: LanguageModel,
    pairs: Pairs,
    held_out: Pairs,
    settings: BiPOSettings,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Progress]:
    """Train on `pairs`, watching `held_out` (which may be empty); the last report carries the vector.

    `should_stop` is asked before each step; once it says True the run ends with the best vector so far.
    """
    settings.check()
    began = time.monotonic()
    layer = model.check_layer(model.num_layers // 2 if settings.layer is None else settings.layer)
    pairs, encoded = encode_pairs(model, pairs)
    scorer = PairScorer(model, encoded, layer, fast=settings.fast)
    watched = None
    if held_out:
        held_out, watched_pairs = encode_pairs(model, held_out)
        watched = PairScorer(model, watched_pairs[:CURVE_PAIRS], layer, fast=settings.fast)
    note = f"Training the plain, slower way: {scorer.why_plain}." if scorer.why_plain else ""
    norm = scorer.residual_norm()
    settings = settings.filled_in(layer, len(encoded), norm, model.hidden_size)
    per_epoch, total = settings.steps_per_epoch(len(encoded)), settings.steps(len(encoded))
    yield Progress("preparing", total_steps=total, note=note)

    v = torch.zeros(model.hidden_size, device=model.device, requires_grad=True)
    optimizer = torch.optim.AdamW([v], lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = get_cosine_schedule_with_warmup(optimizer, settings.warmup_steps, settings.horizon(len(encoded)))

    def vector_at(direction: Tensor, step: int) -> SteeringVector:
        return SteeringVector(
            directions={layer: direction.detach().float().cpu().clone()},
            model_id=model.source,
            model_fingerprint=model.fingerprint,
            method={"name": "bipo", **asdict(settings), "steps": step, "residual_norm": round(norm, 4)},
            pairs={
                "source": pairs.report.source,
                "sha256": pairs.sha256,
                "train": len(pairs),
                "held_out": len(held_out),
            },
        )

    best: tuple[float, SteeringVector] | None = None  # held-out loss, and the vector that reached it
    measure_every = max(1, min(per_epoch, total // 4))
    taken = 0
    for step, (batch, d) in enumerate(batches(len(encoded), settings), start=1):
        if step > total or should_stop():
            break
        loss, margin = step_loss(scorer, batch, {layer: d * v}, d, settings.beta)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([v], settings.max_grad_norm)
        optimizer.step()
        schedule.step()
        taken = step
        if not torch.isfinite(v).all():
            raise SteeringError(
                f"Training broke down at step {step}, the vector is no longer a number; train again with a learning "
                f"rate below {settings.learning_rate:g}."
            )
        held = None
        if watched is not None and (step % measure_every == 0 or step == total):
            untouched, moved = preference_gaps(watched, {+1.0: {layer: v}, -1.0: {layer: -v}})
            held = tuple(results(untouched, moved))
            held_loss = float(
                torch.stack([bipo_loss(gap - untouched, s, settings.beta) for s, gap in moved.items()]).mean()
            )
            if best is None or held_loss < best[0] or not settings.keep_best:
                best = (held_loss, vector_at(v, step))
        spent = time.monotonic() - began
        yield Progress(
            stage="training",
            step=step,
            total_steps=total,
            epoch=step / per_epoch,
            loss=float(loss.detach()),
            margin=float((d * margin.detach()).mean()),
            sign=int(d),
            norm=float(v.detach().norm()),
            seconds=spent,
            seconds_left=spent / step * (total - step),
            held_out=held,
            vector=best[1] if held and best else None,
        )
    vector = best[1] if best and settings.keep_best else vector_at(v, taken)
    yield Progress(
        stage="done",
        step=taken,
        total_steps=total,
        epoch=taken / per_epoch,
        norm=vector.norm,
        seconds=time.monotonic() - began,
        seconds_left=0.0,
        vector=vector,
        note=note,
    )


def batches(count: int, settings: BiPOSettings) -> Iterator[tuple[list[int], float]]:
    """Indices of each step's pairs and its sign d, all epochs long; the last batch of an epoch may be smaller."""
    order = torch.Generator().manual_seed(settings.seed)
    signs = random.Random(settings.seed)
    for _ in range(settings.epochs):
        for indices in torch.randperm(count, generator=order).split(settings.batch_size):
            yield indices.tolist(), signs.choice([-1.0, 1.0])


def step_loss(
    scorer: PairScorer, batch: Sequence[int], additions: Additions, d: float, beta: float
) -> tuple[Tensor, Tensor]:
    """Loss of one batch, differentiable in the additions, and Delta of each pair [n]."""
    steered, untouched = scorer.scores(batch, additions), scorer.reference(batch)
    delta = (steered[:, 0] - steered[:, 1]) - (untouched[:, 0] - untouched[:, 1])
    return bipo_loss(delta, d, beta), delta


def bipo_loss(delta: Tensor, d: float, beta: float) -> Tensor:
    """-log sigmoid(d * beta * Delta), mean over pairs (Cao et al., equation 3)."""
    return -F.logsigmoid(d * beta * delta).mean()
