"""BiPO: bi-directional preference optimization.

Cao et al., "Personalized Steering of Large Language Models: Versatile Steering Vectors Through Bi-directional
Preference Optimization", NeurIPS 2024, arXiv 2406.00045, equation 3, as the authors' code runs it.

For each batch one sign d is drawn from {-1, +1}. With the vector v added d times to the output of decoder block k at
every position, log p summed over the answer's tokens including the end of turn,

    Delta = [log p_dv(chosen) - log p_dv(rejected)] - [log p_0(chosen) - log p_0(rejected)]
    loss  = mean over the batch of -log sigmoid(d * beta * Delta)

v starts at zero and is the only thing trained: AdamW without weight decay (the authors declare 0.05 and never pass it
on), gradient clipping at 1, cosine schedule with warm-up. `BiPOSettings` names the variants.
"""

import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial

import torch

from steering.errors import SteeringError
from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs
from steering.pairs.tokenization import encode_pairs
from steering.runtime.distributed import ALONE, Processes
from steering.scoring.scorer import PairScorer
from steering.training.checkpoints import Checkpoint
from steering.training.methods.bipo.config import CURVE_PAIRS, SWEEP, BiPOSettings, one_or_all
from steering.training.methods.bipo.layer_sweep import sweep_layers
from steering.training.methods.bipo.state import RunState, thinned
from steering.training.methods.bipo.step import Trainer
from steering.training.progress import Progress
from steering.vectors.vector import SteeringVector

DIRECTIONS = {"both": (1.0, -1.0), "plus": (1.0,)}
"""The signs of every step, where they are not drawn."""


def run(
    model: LanguageModel,
    pairs: Pairs,
    held_out: Pairs,
    settings: BiPOSettings,
    should_stop: Callable[[], bool] = lambda: False,
    checkpoint: Checkpoint | None = None,
    processes: Processes = ALONE,
) -> Iterator[Progress]:
    """Train on `pairs`, watching `held_out` (which may be empty); the last report carries the vector.

    `should_stop` is asked before each step; once it says True, on any process, the run ends with the best vector so
    far. What interrupts a run leaves its checkpoint, as that wish does.
    """
    settings.check()
    began = time.monotonic()
    (pairs, encoded), (held_out, watched) = processes.together(
        lambda: (encode_pairs(model, pairs), encode_pairs(model, held_out) if held_out else (held_out, []))
    )
    found = checkpoint.load(model.hidden_size) if checkpoint and processes.is_main else (None, "")
    state, note = processes.agreed(found)
    notes = [note]
    if state is not None:
        notes.append(f"Going on after step {state.step}, where the training was interrupted.")
        layers = state.layers
    elif settings.layer == SWEEP and watched:
        yield Progress("preparing", note="Looking for the layer that steers best.")
        sweep = sweep_layers(model, encoded, watched, settings=settings, should_stop=should_stop, processes=processes)
        layers = [model.num_layers // 2 if sweep.best is None else sweep.best]
    else:
        layers = processes.together(partial(steered_layers, model, settings.layer))
    scored = [*encoded, *watched[:CURVE_PAIRS]]  # by one scorer: whether the fast way is exact is tried out once
    options = {"scope": settings.token_scope, "fast": settings.fast}
    scorer = processes.together(partial(PairScorer, model, scored, layers[0], **options))
    if state is None:
        norms = processes.agreed(processes.together(partial(scorer.residual_norms, layers)))
        state = RunState.at_zero(layers, list(norms.values()), model.hidden_size)
    resumed = state.seconds
    settings = settings.filled_in(layers, len(encoded), state.norms, model.hidden_size)
    if scorer.why:
        notes.append(f"Training the plain, slower way: {scorer.why}.")
    if settings.patience and not watched:
        notes.append("Nothing is held out, so the training will not stop early.")
    trainer = Trainer(scorer, len(encoded), settings, state, processes)
    per_epoch, total = settings.steps_per_epoch(len(encoded)), settings.steps(len(encoded))
    ready = {"name": "bipo", **asdict(settings)}
    yield Progress("preparing", step=state.step, total_steps=total, settings=ready, note=" ".join(filter(None, notes)))

    def best_so_far() -> SteeringVector:
        best = bool(state.best) and settings.keep_best
        norms = [round(norm, 4) for norm in state.norms]
        steps = state.best_step if best else state.step
        return SteeringVector(
            directions=state.best if best else state.vectors,
            model_id=model.source,
            model_fingerprint=model.fingerprint,
            token_scope=settings.token_scope,
            method={**ready, "steps": steps, "residual_norm": one_or_all(norms)},
            pairs={
                "source": pairs.report.source,
                "sha256": pairs.sha256,
                "train": len(pairs),
                "held_out": len(held_out),
            },
            metrics={"curve": thinned(state.curve)} if state.curve else {},
        )

    def spent() -> float:
        return resumed + time.monotonic() - began

    def keep() -> None:
        if checkpoint and processes.is_main and trainer.whole:
            state.seconds = spent()
            checkpoint.save(state)

    measure_every = settings.measure_every(len(encoded))
    gone, began_steps = state.step, time.monotonic()  # the preparation tells nothing of the steps to come
    ahead = itertools.islice(batches(len(encoded), settings), state.step, total)
    stopped = ""
    try:
        for step, (batch, signs) in enumerate(ahead, start=state.step + 1):
            if settings.patience and state.waited >= settings.patience:
                stopped = "early"
                notes.append(
                    f"Stopped early at step {state.step} of {total}: the held-out loss had not fallen for "
                    f"{state.waited} measurements since step {state.best_step}."
                )
                break
            taken = trainer.step(batch, signs, should_stop)
            if taken is None:
                stopped = "asked"
                break
            loss, margin = taken
            if not trainer.sound(loss):
                stopped = "broken"
                notes.append(trainer.take_back(step))
                break
            held, held_loss, point = None, None, {"step": step, "loss": round(loss, 5)}
            if watched and (step % measure_every == 0 or step == total):
                held, held_loss = trainer.measure()
                state.keep_best(held_loss, step)
                point |= {"held_out_loss": round(held_loss, 5), "held_out": [result.as_dict() for result in held]}
            state.add_to_curve(**point)
            state.step = step
            if checkpoint and checkpoint.due:
                keep()
            yield Progress(
                stage="training",
                step=step,
                total_steps=total,
                epoch=step / per_epoch,
                loss=loss,
                margin=margin,
                sign=int(sum(signs)),
                norm=trainer.norm,
                seconds=spent(),
                seconds_left=(time.monotonic() - began_steps) / (step - gone) * (total - step),
                held_out=held,
                held_out_loss=held_loss,
                vector=best_so_far() if held else None,
                note=" ".join(filter(None, (checkpoint.problem if checkpoint else "", scorer.note))),
            )
    except BaseException:  # a failure, or nobody reads the reports any more
        keep()
        raise
    notes.append(scorer.note)
    vector = best_so_far()
    if stopped == "asked":
        keep()
    elif checkpoint and processes.is_main:
        checkpoint.discard()
    yield Progress(
        stage="done",
        step=state.step,
        total_steps=total,
        epoch=state.step / per_epoch,
        norm=vector.norm,
        seconds=spent(),
        seconds_left=0.0,
        vector=vector,
        stopped=stopped,
        note=" ".join(filter(None, notes)),
    )


def steered_layers(model: LanguageModel, asked: int | Sequence[int] | str | None) -> list[int]:
    """The layers a run steers, in order; the middle one where nothing else is asked for, or can be found out.

    Raises SteeringError for one that the model does not have.
    """
    if asked is None or asked == SWEEP:
        return [model.num_layers // 2]
    several = asked if isinstance(asked, Sequence) else [asked]
    if not several:
        raise SteeringError("No layer is named; give at least one.")
    return sorted({model.check_layer(k) for k in several})


def batches(count: int, settings: BiPOSettings) -> Iterator[tuple[list[int], tuple[float, ...]]]:
    """Indices of each step's pairs and its signs d, all epochs long; the last batch of an epoch may be smaller."""
    order = torch.Generator().manual_seed(settings.seed)
    signs = random.Random(settings.seed)
    for _ in range(settings.epochs):
        for indices in torch.randperm(count, generator=order).split(settings.batch_size):
            yield indices.tolist(), DIRECTIONS.get(settings.signs) or (signs.choice([-1.0, 1.0]),)
