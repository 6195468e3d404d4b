"""BiPO: bi-directional preference optimization.

Cao et al., "Personalized Steering of Large Language Models: Versatile Steering Vectors Through Bi-directional
Preference Optimization", NeurIPS 2024, arXiv 2406.00045, equation 3, as the authors' code runs it.

For each batch one sign d is drawn from {-1, +1}. With the vector v added d times to the output of decoder block k at
every position, log p summed over the answer's tokens including the end of turn,

    Delta = [log p_dv(chosen) - log p_dv(rejected)] - [log p_0(chosen) - log p_0(rejected)]
    loss  = mean over the batch of -log sigmoid(d * beta * Delta)

v starts at zero and is the only thing trained: AdamW without weight decay (the authors declare 0.05 and never pass it
on), gradient clipping at 1, cosine schedule with warm-up. `BiPOConfig` names the variants.
"""

import itertools
import time
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from typing import Any

from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs
from steering.pairs.tokenization import EncodedPair, encode_pairs
from steering.scoring.scorer import PairScorer
from steering.training.config import SWEEP, one_or_all, steered_layers
from steering.training.methods.bipo.batches import batches
from steering.training.methods.bipo.config import CURVE_PAIRS, START_PAIRS, BiPOConfig
from steering.training.methods.bipo.layer_sweep import sweep_by_text, sweep_layers
from steering.training.methods.bipo.start import RATE_PAIRS, mean_differences, starting_point
from steering.training.methods.bipo.state import RunState, thinned
from steering.training.methods.bipo.step import Trainer
from steering.training.progress import HeldOutScorer, Progress
from steering.training.provenance import trained_vector
from steering.training.registry import RunContext
from steering.training.written_effect import SharedEffect
from steering.vectors.native_file import HELD_OUT_KEYS
from steering.vectors.vector import SteeringVector


def run(
    model: LanguageModel, pairs: Pairs, held_out: Pairs, config: BiPOConfig, context: RunContext, name: str = "bipo"
) -> Generator[Progress, None, None]:
    """Train on `pairs`, watching `held_out` (which may be empty); the last report carries the vector.

    `context.should_stop` is asked before each step; once it says True, on any process, the run ends with the best
    vector so far. What interrupts a run leaves its checkpoint, as that wish does.
    """
    training = BiPORun(model, pairs, held_out, config, context, name)
    yield from training.prepare()
    try:
        yield from training.steps()
    except BaseException:  # a failure, or nobody reads the reports any more
        training.save_checkpoint()
        raise
    yield training.done()


class BiPORun:
    """One run: `prepare`, then `steps`, then `done`.

    Args:
        name: the method's, for the vector file.

    Attributes:
        state: the vectors and AdamW's moments, moved along in place; from `prepare` on, as the next three are.
        config: filled in.
        trainer: takes the steps.
        stopped: why it ended before the last step, as in `Progress.stopped`.
        notes: sentences for the user.
    """

    def __init__(
        self,
        model: LanguageModel,
        pairs: Pairs,
        held_out: Pairs,
        config: BiPOConfig,
        context: RunContext,
        name: str = "bipo",
    ) -> None:
        self.model, self.pairs, self.held_out, self.config, self.context = model, pairs, held_out, config, context
        self.name = name
        self.began = time.monotonic()
        self.stopped = ""
        self.notes: list[str] = []
        self.written: SharedEffect | None = None

    # Preparing --------------------------------------------------------------------------------------------------------

    def prepare(self) -> Iterator[Progress]:
        """Read the pairs, go on from the checkpoint or find the layer, and make scorer and trainer."""
        model, processes, checkpoint = self.model, self.context.processes, self.context.checkpoint
        encoded, watched = processes.together(self._encoded)
        if self.config.choose_by == "text" and watched:
            self.written = SharedEffect(model, self.pairs, self.held_out, self.context)
            self.notes.append(self.written.note)
        loaded = checkpoint.load(RunState, model.hidden_size) if checkpoint and processes.is_main else (None, "")
        state, note = processes.agreed(loaded)
        self.notes.append(note)
        if state is not None:
            self.notes.append(f"Going on after step {state.step}, where the training was interrupted.")
            layers = state.layers
        elif self.config.layer == SWEEP and watched:
            yield Progress("preparing", note="Looking for the layer that steers best.")
            layers = self._swept(encoded, watched)
        else:
            layers = processes.together(partial(steered_layers, model, self.config.layer))
        # One scorer for training and measuring: whether the fast way is exact is tried out once, and what it computes
        # of the untouched model serves the curve, the choice of the best vector and the final measurement.
        scored, scope, fast = [*encoded, *watched], self.config.token_scope, self.config.fast
        scorer = processes.together(partial(PairScorer, model, scored, layers[0], scope=scope, fast=fast))
        if state is None:
            norms = processes.agreed(processes.together(partial(scorer.residual_norms, layers)))
            most = START_PAIRS if self.config.start != "zero" else RATE_PAIRS
            differences = processes.agreed(processes.together(partial(mean_differences, model, encoded, layers, most)))
            state = RunState.at_start(layers, list(norms.values()), *starting_point(differences, self.config.start))
        self.state, self.scorer, self.training_pairs = state, scorer, len(encoded)
        self.held_out_indices = range(len(encoded), len(encoded) + len(watched))
        self.config = self.config.filled_in(layers, len(encoded), state.pair_norms, model.hidden_size)
        self.trainer = Trainer(scorer, len(encoded), self.config, state, processes)
        self.trainer.held_out = self.held_out_indices[:CURVE_PAIRS]
        self.seconds_before = state.seconds
        self.total_steps = self.config.steps(len(encoded))
        if scorer.why:
            self.notes.append(f"Training the plain, slower way: {scorer.why}.")
        if self.config.patience and not watched:
            self.notes.append("Nothing is held out, so the training will not stop early.")
        yield self._report("preparing", settings=self._settings, note=self._all_notes)

    def _encoded(self) -> tuple[list[EncodedPair], list[EncodedPair]]:
        """Encode training and held-out pairs; drop those that the model cannot read from `pairs` and `held_out`."""
        self.pairs, encoded = encode_pairs(self.model, self.pairs)
        watched: list[EncodedPair] = []
        if self.held_out:
            self.held_out, watched = encode_pairs(self.model, self.held_out)
        return encoded, watched

    def _swept(self, encoded: Sequence[EncodedPair], watched: Sequence[EncodedPair]) -> list[int]:
        """Find the layer by a sweep; the middle one if it was stopped before it had finished any."""
        middle = self.model.num_layers // 2
        if self.written and self.written.works:
            best = sweep_by_text(self.model, encoded, self.written, self.config.token_scope)
            return [middle if best is None else best]
        sweep = sweep_layers(
            self.model,
            encoded,
            watched,
            settings=self.config,
            should_stop=self.context.should_stop,
            processes=self.context.processes,
        )
        return [middle if sweep.best is None else sweep.best]

    # Training ---------------------------------------------------------------------------------------------------------

    def steps(self) -> Iterator[Progress]:
        """Take the steps that are left, a report after each, until the last one or a reason to stop."""
        state, per_epoch = self.state, self.config.steps_per_epoch(self.training_pairs)
        first, began = state.step, time.monotonic()  # the time of the preparation says nothing of the steps to come
        left = itertools.islice(batches(self.training_pairs, self.config), first, self.total_steps)
        for step, (batch, signs, multiplier) in enumerate(left, start=first + 1):
            if self._ran_out_of_patience():
                return
            taken = self.trainer.step(batch, signs, multiplier, self.context.should_stop)
            if taken is None:
                self.stopped = "asked"
                return
            loss, margin = taken
            if not self.trainer.sound(loss):
                self.stopped = "broken"
                self.notes.append(self.trainer.take_back(step))
                return
            measured = self._measure(step, loss)
            state.step = step  # only now: a step whose measurement failed is taken again from the checkpoint
            checkpoint = self.context.checkpoint
            if checkpoint and checkpoint.due:
                self.save_checkpoint()
            yield self._report(
                "training",
                epoch=step / per_epoch,
                loss=loss,
                margin=margin,
                sign=int(sum(signs)),
                norm=self.trainer.norm,
                seconds_left=(time.monotonic() - began) / (step - first) * (self.total_steps - step),
                note=_joined(checkpoint.problem if checkpoint else "", self.scorer.note),
                vector=self.vector() if measured else None,
                **measured,
            )

    def _ran_out_of_patience(self) -> bool:
        state, patience = self.state, self.config.patience
        if not patience or state.waited < patience:
            return False
        self.stopped = "early"
        self.notes.append(
            f"Stopped early at step {state.step} of {self.total_steps}: no vector had been better for "
            f"{state.waited} measurements since step {state.best_step}."
        )
        return True

    def _measure(self, step: int, loss: float) -> dict[str, Any]:
        """Add the step to the curve; where one is due, measure the held-out pairs and return that part of a report."""
        point: dict[str, Any] = {"step": step, "loss": round(loss, 5)}
        measured: dict[str, Any] = {}
        due = step % self.config.measure_every(self.training_pairs) == 0 or step == self.total_steps
        if self.held_out_indices and due:
            results, held_out_loss = self.trainer.measure()
            measured = {"held_out": results, "held_out_loss": held_out_loss}
            chosen_by: float | None = held_out_loss
            if self.written and self.written.works:
                score = self.written.score(self.state.vectors, self.config.token_scope)
                chosen_by = None if score is None else -score
                point |= {} if score is None else {"written_effect": round(score, 4)}
            if chosen_by is not None:  # None: stopped before all was written
                self.state.keep_best(chosen_by, step)
            point |= {
                "held_out_loss": round(held_out_loss, 5),
                "held_out": [{key: getattr(result, key) for key in HELD_OUT_KEYS} for result in results],
            }
        self.state.add_to_curve(**point)
        return measured

    # What comes of it -------------------------------------------------------------------------------------------------

    def vector(self) -> SteeringVector:
        """Return the best vector so far, or the last one where nothing was measured or `keep_best` is off."""
        state = self.state
        best = bool(state.best) and self.config.keep_best
        norms = [round(norm, 4) for norm in state.norms]
        steps = state.best_step if best else state.step
        return trained_vector(
            state.best if best else state.vectors,
            self.model,
            self.pairs,
            self.held_out,
            {**self._settings, "steps": steps, "residual_norm": one_or_all(norms)},
            token_scope=self.config.token_scope,
            metrics={"curve": thinned(state.curve)} if state.curve else {},
        )

    def save_checkpoint(self) -> None:
        """Write the state, on the main process; not in the middle of a step, when it is neither here nor there."""
        checkpoint = self.context.checkpoint
        if checkpoint and self.context.processes.is_main and self.trainer.whole:
            self.state.seconds = self._seconds
            checkpoint.save(self.state)

    def done(self) -> Progress:
        """Leave the checkpoint of a run that was asked to stop, delete that of any other, and make the last report."""
        checkpoint = self.context.checkpoint
        if self.stopped == "asked":
            self.save_checkpoint()
        elif checkpoint and self.context.processes.is_main:
            checkpoint.discard()
        self.notes.append(self.scorer.note)
        vector = self.vector()
        return self._report(
            "done",
            epoch=self.state.step / self.config.steps_per_epoch(self.training_pairs),
            norm=vector.norm,
            seconds_left=0.0,
            vector=vector,
            stopped=self.stopped,
            note=self._all_notes,
            held_out_scorer=HeldOutScorer(self.scorer, self.held_out_indices),
        )

    def _report(self, stage: Any, **figures: Any) -> Progress:
        seconds = 0.0 if stage == "preparing" else self._seconds
        return Progress(stage, step=self.state.step, total_steps=self.total_steps, seconds=seconds, **figures)

    @property
    def _seconds(self) -> float:
        """Since the start, with what the run had taken before it was interrupted."""
        return self.seconds_before + time.monotonic() - self.began

    @property
    def _settings(self) -> dict[str, Any]:
        return {"name": self.name, **self.config.as_json()}

    @property
    def _all_notes(self) -> str:
        return _joined(*self.notes)


def _joined(*sentences: str) -> str:
    return " ".join(filter(None, sentences))
