"""One step of BiPO, and one measurement of where it has led."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import get_cosine_schedule_with_warmup

from steering.errors import SteeringError
from steering.evaluation.preference import PreferenceResult, preference_scores, results, score_gap
from steering.runtime.cpu_threads import in_threads
from steering.runtime.distributed import Processes
from steering.scoring.scorer import PairScorer, Part
from steering.training.methods.bipo.config import BiPOSettings
from steering.training.methods.bipo.state import RunState
from steering.vectors.vector import MAX_VALUE


class Trainer:
    """Moves the vectors of a `RunState` along.

    Args:
        scorer: scores the training pairs, which come first, and then those held out.
        training: how many are for training.
        settings: filled in.
        state: what is moved, in place.
        processes: those that share the work out; each takes the same steps.
    """

    def __init__(
        self, scorer: PairScorer, training: int, settings: BiPOSettings, state: RunState, processes: Processes
    ) -> None:
        self.scorer, self.settings, self.state, self.processes = scorer, settings, state, processes
        self.held_out = range(training, len(scorer.pairs))
        self._before: dict[int, Tensor] = {}
        scorer.arrange_weights()
        device = scorer.model.device
        lengths = [[len(pair.chosen), len(pair.rejected)] for pair in scorer.pairs]
        self._weights = torch.tensor(lengths, device=device, dtype=torch.float32) ** settings.length_weight
        for part in (state.vectors, state.first, state.second):
            part.update({k: tensor.to(device) for k, tensor in part.items()})
        rates = [settings.learning_rate * norm / state.norms[0] for norm in state.norms]
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
        """L2 norm over all layers."""
        return math.hypot(*(float(v.detach().norm()) for v in self.state.vectors.values()))

    @property
    def whole(self) -> bool:
        """Whether the state is that after a step, and not in the middle of one."""
        return all(int(own["step"]) == self.state.step for own in self._optimizer.state.values())

    def step(
        self, batch: Sequence[int], signs: Sequence[float], should_stop: Callable[[], bool]
    ) -> tuple[float, float] | None:
        """Take one step; its loss, and the mean of sign * margin. None, and no step, where any process should stop."""
        vectors, width = self.state.vectors, self.scorer.model.hidden_size
        size = len(vectors) * width
        summed = self.processes.total(lambda: self._part(batch, signs, should_stop()), size + 3)
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

    def _part(self, batch: Sequence[int], signs: Sequence[float], stop: bool) -> Tensor:
        """This process's part of a step: gradient of each layer, loss, margin, and whether it should stop.

        The parts of all processes add up: each is a sum over pairs, divided by what the whole batch divides by.
        """
        share = [] if stop else self.processes.share(batch)
        options = {"beta": self.settings.beta, "weights": self._weights}
        summed = summed_gradient(self.scorer, share, self.state.vectors, signs, **options)
        figures = torch.tensor([float(stop)], device=self.scorer.model.device)
        return torch.cat([summed / (len(batch) * len(signs)), figures])

    def _gap(self, scores: Tensor, indices: Sequence[int]) -> Tensor:
        return gap(scores, indices, self._weights)

    def _penalty(self) -> Tensor:
        norms = zip(self.state.vectors.values(), self.state.norms, strict=True)
        return self.settings.l2 * torch.stack([v.square().sum() / norm**2 for v, norm in norms]).sum()

    def sound(self, loss: float) -> bool:
        """Whether the loss and the vectors after the step are numbers a vector file can hold."""
        return math.isfinite(loss) and all(bool(v.abs().max() <= MAX_VALUE) for v in self.state.vectors.values())

    def take_back(self, step: int) -> str:
        """After a step that was not sound: the vectors before it, and what to tell the user.

        Raises SteeringError where there is nothing to keep.
        """
        rate = self.settings.learning_rate
        told = f"Training broke down at step {step}, the loss or the vector is no longer a number"
        advice = f"train again with a learning rate below {rate:g}"
        if step == 1:
            raise SteeringError(f"{told}; {advice}.")
        for k, v in self.state.vectors.items():
            v.detach().copy_(self._before[k])
        kept = self.state.best_step if self.state.best and self.settings.keep_best else step - 1
        return f"{told}: the vector of step {kept} is kept; {advice}."

    @torch.no_grad()
    def measure(self) -> tuple[tuple[PreferenceResult, ...], float]:
        """Results at +1 and -1 on the held-out pairs, and their loss in the directions trained (without `l2`)."""
        vectors = self.state.vectors
        additions = {d: {k: d * v for k, v in vectors.items()} for d in (+1.0, -1.0)}
        scores = preference_scores(self.scorer, additions, indices=self.held_out, processes=self.processes)
        untouched, *moved = scores
        gaps = {d: each[:, 0] - each[:, 1] for d, each in zip(additions, moved, strict=True)}
        measured = tuple(results(untouched[:, 0] - untouched[:, 1], gaps))
        base = self._gap(untouched, self.held_out)
        trained = (+1.0,) if self.settings.signs == "plus" else tuple(additions)
        losses = [
            bipo_loss(self._gap(each, self.held_out) - base, d, self.settings.beta).mean()
            for d, each in zip(additions, moved, strict=True)
            if d in trained
        ]
        return measured, float(torch.stack(losses).mean())


def summed_gradient(
    scorer: PairScorer,
    batch: Sequence[int],
    vectors: Mapping[int, Tensor],
    signs: Sequence[float],
    *,
    beta: float,
    weights: Tensor | None = None,
) -> Tensor:
    """Sums over pairs and signs: the loss's gradient at each layer, the loss, and sign * margin.

    vectors: layer -> [hidden_size]. Returns float32 [layers * hidden_size + 2]. The pairs are shared out to this
    machine's cores, each of which goes forward and backward on its own.
    """

    def of_part(its: Part) -> Tensor:
        part = its.indices
        leaves = {k: v.detach().requires_grad_() for k, v in vectors.items()}
        figures = torch.zeros(2, device=scorer.model.device)
        untouched = scorer.reference(part)
        for d in signs:  # one direction after the other: only one is in memory at a time
            steered = scorer.scores(part, {k: d * v for k, v in leaves.items()}, its.loan)
            loss = bipo_loss(gap(steered, part, weights) - gap(untouched, part, weights), d, beta).sum()
            loss.backward()
            moved = steered.detach() - untouched
            figures += torch.stack([loss.detach(), d * (moved[:, 0] - moved[:, 1]).sum()])
        return torch.cat([*(v.grad for v in leaves.values()), figures])

    scorer.reference(batch)
    size = sum(len(v) for v in vectors.values()) + 2
    return sum(in_threads(of_part, scorer.parts(batch)), torch.zeros(size, device=scorer.model.device))


def gap(scores: Tensor, indices: Sequence[int], weights: Tensor | None = None) -> Tensor:
    """log p(chosen) - log p(rejected) [n] of scores [n, 2], each divided by its weight, [pairs, 2]."""
    if weights is not None:
        scores = scores / weights[list(indices)]
    return score_gap(scores)


def bipo_loss(delta: Tensor, d: float, beta: float) -> Tensor:
    """-log sigmoid(d * beta * Delta) of each pair (Cao et al., equation 3)."""
    return -F.logsigmoid(d * beta * delta)
