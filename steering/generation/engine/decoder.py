"""How one model is run when it generates: by which engine, found out once.

What makes a decode step slow on a CPU, and what is done about it (measured with the bundled model on two cores):

- a step reads all weights once: held as float16 (`weights="float16"`) that takes half the time;
- the prompt is the same in every row: its blocks up to the first steered layer run for one row, and adding the rows'
  vectors there makes several rows of it (4 and 8 columns: the whole answer 15 % sooner, its first text twice as soon);
- where another program keeps a core busy, operations on all cores wait for it: a step takes one core or all, whichever
  was faster of late;
- what is left between the products is less where the step is written out, which is done for models built like Llama.

What is faster than transformers' own forward is compared with it before use (see `checks`). If it fails later, it is
logged and all goes on with transformers' forward of the model's own weights.
"""

import logging
import os
import threading
import weakref
from collections.abc import Callable
from typing import TypeVar

import torch

from steering.errors import SteeringError
from steering.generation.engine.checks import (
    FLOAT16_ERROR,
    MAX_KL,
    PROBE_TEXT,
    finds_same_logits,
    float16_error,
    mean_kl,
)
from steering.generation.engine.fp16_weights import copy_with_float16_weights, float16_problem
from steering.generation.engine.llama.engine import LlamaEngine
from steering.generation.engine.llama.model import UnsuitableModel
from steering.generation.engine.protocol import DecodingEngine
from steering.generation.transformers_engine import TransformersEngine
from steering.models.loading import LanguageModel
from steering.runtime.cpu_threads import StepCores, on_one_core

logger = logging.getLogger(__name__)

WEIGHTS = ("full", "float16")
"""Names of precisions: the model's own weights, or float16 copies of its matrices on a CPU."""

Result = TypeVar("Result")


class Decoder:
    """Runs one model's prefills and decode steps. Holds parts of the model, not the `LanguageModel` itself.

    Args:
        model, weights: as in `decoder_of`.
        plain: the plain engine of the model, if there is one already.

    Attributes:
        plain: transformers' forward of the model's own weights.
        engine: what is in use: `plain`, or a faster engine with float16 weights.
        kl: mean KL divergence in nats of float16 next tokens from the model's, over a sentence; 0 for `plain`.
        why_full: why float16 weights were asked for and are not in use; empty otherwise.
    """

    def __init__(self, model: LanguageModel, weights: str, plain: TransformersEngine | None = None) -> None:
        self.hidden_size, self.device = model.hidden_size, model.device
        self.plain = plain or TransformersEngine(model.network, model.blocks_path, "transformers' forward")
        self.engine: DecodingEngine = self.plain
        self.kl, self.why_full = 0.0, ""
        self._step_cores = StepCores()
        if plain is None:
            self.plain.shares_prompt = finds_same_logits(self.plain, self.hidden_size)
        if weights == "float16":
            self._use_float16(model)
        way, name = self.engine.name, type(model.network).__name__
        logger.info("%s decodes by %s%s", name, way, f": {self.why_full}" if self.why_full else "")

    def run(self, work: Callable[[DecodingEngine], Result]) -> Result:
        """Return `work(engine)`; if a float16 engine raises, log it and do the work by the plain engine."""
        engine = self.engine
        try:
            return work(engine)
        except Exception as error:
            if engine is self.plain:
                raise
            if self.engine is engine:  # unless another thread has noticed, too
                logger.warning("%s failed; decoding goes on by %s", engine.name, self.plain.name, exc_info=error)
                self.kl, self.why_full = 0.0, f"decoding with float16 weights failed ({type(error).__name__})"
                self.engine = self.plain
            return work(self.plain)

    def run_step(self, step: Callable[[DecodingEngine], Result], rows: int) -> Result:
        """Run a decode step of so many rows as `run` does, on a number of cores that is good for it.

        The model's own weights take one core: two are no faster, and would round differently from step to step.
        """
        if self.device.type != "cpu" or torch.get_num_threads() == 1:
            return self.run(step)
        if self.engine is self.plain:
            return on_one_core(lambda: self.run(step))
        return self._step_cores.run(lambda: self.run(step), rows)

    def supports_ragged_batch(self) -> bool:
        """Tell whether rows of different prompts can be decoded as one batch; tried out when first asked."""
        engine = self.engine
        if engine.supports_ragged_batch is None:
            assert isinstance(engine, TransformersEngine)  # the Llama engine always does
            engine.supports_ragged_batch = finds_same_logits(engine, self.hidden_size, ragged=True)
        return engine.supports_ragged_batch

    def _use_float16(self, model: LanguageModel) -> None:
        """Use the first float16 engine that can be made and whose logits are right."""
        self.why_full = float16_problem(model.network)
        if self.why_full:
            return
        ids = model.tokenizer(PROBE_TEXT)["input_ids"]
        for make in (self._llama_engine, self._float16_copy):
            try:
                engine: DecodingEngine = make(model)
                error = float16_error(engine, self.plain, self.hidden_size)
                kl = mean_kl(engine, self.plain, ids) if error <= FLOAT16_ERROR else float("inf")
            except UnsuitableModel as reason:
                logger.info("%s is not for this model: %s", make.__name__.strip("_"), reason)
                self.why_full = f"float16 weights cannot be used: {reason}"
                continue
            except Exception as problem:  # an architecture, or a build of PyTorch, may refuse in any way
                logger.warning("%s failed", make.__name__.strip("_"), exc_info=problem)
                self.why_full = "this build of PyTorch has no float16 products, or this model does not run with them"
                continue
            if kl <= MAX_KL:
                self.engine, self.kl, self.why_full = engine, kl, ""
                return
            logger.warning("%s: refused, logits are wrong by %.1g std, %.1g nats", engine.name, error, kl)
            self.why_full = "float16 weights give other logits than the model's own"

    def _llama_engine(self, model: LanguageModel) -> LlamaEngine:
        try:
            return LlamaEngine(model.network, model.blocks)
        except AttributeError as error:
            raise UnsuitableModel(f"it is not built like Llama ({error})") from error

    def _float16_copy(self, model: LanguageModel) -> TransformersEngine:
        copy = copy_with_float16_weights(model.network)
        engine = TransformersEngine(copy, model.blocks_path, "transformers' forward, float16 weights")
        engine.shares_prompt = self.plain.shares_prompt
        return engine


class _Decoders:
    """One model's decoders by the names of their weights; the lock is held while one is made and tried out."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.made: dict[str, Decoder] = {}


def decoder_of(model: LanguageModel, weights: str = "full") -> Decoder:
    """Return the model's decoder, made and tried out when first asked for (a fraction of a second).

    Args:
        weights: `full` uses the model's own weights, bit for bit; `float16` a second copy of its matrices, on a CPU.

    Raises SteeringError for other weights.
    """
    if weights not in WEIGHTS:
        raise SteeringError(f"Weights {weights!r} are not known; give one of {', '.join(WEIGHTS)}.")
    with _lock:
        decoders = _decoders.setdefault(model, _Decoders())
    with decoders.lock:
        for each in dict.fromkeys(("full", weights)):
            if each not in decoders.made:
                full = decoders.made.get("full")
                decoders.made[each] = Decoder(model, each, full.plain if full else None)
        return decoders.made[weights]


_decoders: "weakref.WeakKeyDictionary[LanguageModel, _Decoders]" = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def _forget_decoders() -> None:
    """Start anew in a forked process: another thread may have held a lock, or been decoding, when it was forked."""
    global _lock
    _lock = threading.Lock()
    _decoders.clear()


if hasattr(os, "register_at_fork"):  # where there is fork
    os.register_at_fork(after_in_child=_forget_decoders)
