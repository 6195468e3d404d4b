"""One step of BiPO or another preference objective, and one measurement on the held-out pairs."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from transformers import get_cosine_schedule_with_warmup

from steering.errors import SteeringError
from steering.evaluation.preference import (
    PreferenceResult,
    answer_lengths,
    log_ratio,
    preference_logps,
    preference_results,
)
from steering.runtime.distributed import Processes
from steering.scoring.scorer import Loss, PairScorer
from steering.training.methods.bipo.config import BiPOConfig
from steering.training.methods.bipo.state import RunState
from steering.training.objective_config import ObjectiveConfig
from steering.training.objectives import pair_losses, steering_rows
from steering.vectors.action import MAX_VALUE


class Trainer:
    """Optimises the vectors of a `RunState`.

    Args:
        scorer: scores the training pairs, which come first, and then the held-out pairs.
        training: the number of training pairs.
        settings: with every None filled in.
        state: is changed in place, its tensors moved to the model's device.
        processes: those that share the pairs of a batch out; each takes the same steps.
    """

    def __init__(
        self, scorer: PairScorer, training: int, settings: BiPOConfig, state: RunState, processes: Processes
    ) -> None:
        self.scorer, self.settings, self.state, self.processes = scorer, settings, state, processes
        self.held_out = range(training, len(scorer.pairs))
        self._before: dict[int, Tensor] = {}
        device = scorer.model.device
        lengths = [[len(pair.chosen), len(pair.rejected)] for pair in scorer.pairs]
        self._lengths = torch.tensor(lengths, device=device, dtype=torch.float32)
        for part in (state.vectors, state.first, state.second):
            part.update({k: tensor.to(device) for k, tensor in part.items()})
        assert settings.learning_rate is not None and settings.warmup_steps is not None  # filled in
        rates = [settings.learning_rate * norm / state.pair_norms[0] for norm in state.pair_norms]
        groups = [
            {"params": [state.vectors[k].requires_grad_()], "lr": rate, "initial_lr": rate}
            for k, rate in zip(state.layers, rates, strict=True)
        ]
        self._optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
        for k, v in state.vectors.items():  # at step 0 what AdamW itself begins with, later what it had
            moments = {"exp_avg": state.first[k], "exp_avg_sq": state.second[k]}
            self._optimizer.state[v] = {"step": torch.tensor(float(state.step)), **moments}
        self._schedule = get_cosine_schedule_with_warmup(
            self._optimizer, settings.warmup_steps, settings.horizon(training), last_epoch=state.step - 1
        )

    @property
    def norm(self) -> float:
        """L2 norm of the vectors of all layers together."""
        return math.hypot(*(float(v.detach().norm()) for v in self.state.vectors.values()))

    @property
    def whole(self) -> bool:
        """Whether the state is that after a step, not in the middle of one: an interrupted step may not be saved."""
        return all(int(own["step"]) == self.state.step for own in self._optimizer.state.values())

    def step(
        self, batch: Sequence[int], signs: Sequence[float], multiplier: float, should_stop: Callable[[], bool]
    ) -> tuple[float, float] | None:
        """Take one step on the batch: backward pass, clipping, AdamW, schedule.

        Args:
            batch: indices of training pairs.
            signs: the directions d whose losses are averaged.
            multiplier: at which the vector acts, beside the sign.
            should_stop: asked once.

        Returns the loss (mean over pairs and signs, plus the penalty), and the mean of d * margin in nats. Returns
        None, and takes no step, where any process should stop.
        """
        vectors, width = self.state.vectors, self.scorer.model.hidden_size
        size = len(vectors) * width
        summed = self.processes.total(lambda: self._own_share(batch, signs, multiplier, should_stop()), size + 3)
        loss, margin, stop = summed[size:].tolist()
        if stop:
            return None
        for v, gradient in zip(vectors.values(), summed[:size].split(width), strict=True):
            v.grad = gradient.to(v.device)
        if self.settings.l2:
            penalty = self._penalty()
            penalty.backward()
            loss += float(penalty.detach())
        self._before = {k: v.detach().clone() for k, v in vectors.items()}
        torch.nn.utils.clip_grad_norm_(list(vectors.values()), self.settings.max_grad_norm)
        self._optimizer.step()
        self._schedule.step()
        return loss, margin

    def _own_share(self, batch: Sequence[int], signs: Sequence[float], multiplier: float, stop: bool) -> Tensor:
        """Return this process's share of a step, float32 [layers * hidden_size + 3].

        That is the gradient at each layer, the loss, the margin, and 1 where the process should stop. The shares of
        all processes add up: each is a sum over pairs, divided by what the whole batch is divided by.
        """
        share = [] if stop else self.processes.share(batch)
        sums = objective_sums(
            self.scorer,
            share,
            self.state.vectors,
            signs,
            terms=self.settings,
            lengths=self._lengths,
            multiplier=multiplier,
        )
        return torch.cat([sums / (len(batch) * len(signs)), torch.tensor([float(stop)], device=sums.device)])

    def _penalty(self) -> Tensor:
        norms = zip(self.state.vectors.values(), self.state.norms, strict=True)
        return self.settings.l2 * torch.stack([v.square().sum() / norm**2 for v, norm in norms]).sum()

    def sound(self, loss: float) -> bool:
        """Return whether the loss and the vectors after the step are numbers that a vector file can hold."""
        return math.isfinite(loss) and all(bool(v.abs().max() <= MAX_VALUE) for v in self.state.vectors.values())

    def take_back(self, step: int) -> str:
        """Restore the vectors before a step that was not sound; return a sentence about it for the user.

        Raises SteeringError after the first step, where there is no earlier vector.
        """
        problem = f"Training broke down at step {step}, the loss or the vector is no longer a number"
        advice = f"train again with a learning rate below {self.settings.learning_rate:g}"
        if step == 1:
            raise SteeringError(f"{problem}; {advice}.")
        for k, v in self.state.vectors.items():
            v.detach().copy_(self._before[k])
        returned_step = self.state.best_step if self.state.best and self.settings.keep_best else step - 1
        return f"{problem}: the vector of step {returned_step} is returned; {advice}."

    @torch.no_grad()
    def measure(self) -> tuple[tuple[PreferenceResult, ...], float]:
        """Return the results at +1 and -1 on the held-out pairs, and their mean loss in the directions trained.

        The loss is without the `l2` penalty.
        """
        signs = (+1.0, -1.0)
        additions = [{k: d * v for k, v in self.state.vectors.items()} for d in signs]
        if self.settings.opposite == "project":  # its loss is about that side, the results about the slider's
            additions.append({k: steering_rows(v, -1.0, 1.0, "project") for k, v in self.state.vectors.items()})
        logps = preference_logps(self.scorer, additions, indices=self.held_out, processes=self.processes)
        reference_logps, *steered = logps
        of_sides = {+1.0: steered[0], -1.0: steered[-1]}
        losses = [
            pair_losses(of_sides[d], reference_logps, self._lengths[list(self.held_out)], d, self.settings).mean()
            for d in signs
            if d > 0 or self.settings.signs != "plus"
        ]
        logps = logps[: 1 + len(signs)]
        results = preference_results(logps, signs, answer_lengths(self.scorer, self.held_out))
        return tuple(results), float(torch.stack(losses).mean())


def objective_sums(
    scorer: PairScorer,
    indices: Sequence[int],
    vectors: Mapping[int, Tensor],
    signs: Sequence[float],
    *,
    terms: ObjectiveConfig,
    lengths: Tensor,
    multiplier: float = 1.0,
) -> Tensor:
    """Sum an objective's loss and its gradient over pairs and signs.

    Args:
        indices: the scorer's pairs; none give zeros.
        vectors: layer -> v, float32 [hidden_size].
        signs: the directions d; d * multiplier * v is added to the residual stream (see `steering_rows`).
        lengths: [pairs, 2], tokens of the scorer's chosen and rejected answers.

    Returns float32 [layers * hidden_size + 2]: the gradient at each layer, the loss, and d * margin in nats.
    """
    sums = torch.zeros(sum(len(v) for v in vectors.values()) + 2, device=scorer.model.device)
    if not len(indices):
        return sums
    for d in signs:  # one direction after the other: only one is in memory at a time
        rows = partial(steering_rows, d=d, multiplier=multiplier, opposite=terms.opposite)
        values, gradients = scorer.value_and_grad(indices, vectors, _loss_and_margin(d, terms, lengths), rows=rows)
        sums += torch.cat([*gradients.values(), values])
    return sums


def bipo_sums(
    scorer: PairScorer, indices: Sequence[int], vectors: Mapping[int, Tensor], signs: Sequence[float], *, beta: float
) -> Tensor:
    """Sum BiPO's loss and its gradient over pairs and signs: `objective_sums` of the paper's objective."""
    lengths = torch.ones(len(scorer.pairs), 2, device=scorer.model.device)  # not used without a weight on length
    return objective_sums(scorer, indices, vectors, signs, terms=ObjectiveConfig(beta=beta), lengths=lengths)


def _loss_and_margin(d: float, terms: ObjectiveConfig, lengths: Tensor) -> Loss:
    """Make a loss for `value_and_grad`: sums over pairs of the objective's loss and of d * margin."""

    def loss(indices: Sequence[int], logps: Tensor, reference_logps: Tensor) -> Tensor:
        losses = pair_losses(logps, reference_logps, lengths[list(indices)], d, terms)
        margin = log_ratio(logps.detach() - reference_logps)
        return torch.stack([losses.sum(), d * margin.sum()])

    return loss
