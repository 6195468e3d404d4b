"""Log-probabilities of preference pairs under steering, and their gradients: what training and evaluation stand on.

Two ways give the same numbers. The fast one (`scoring.fast`) caches hidden states at the first steered layer, packs
each batch into one sequence without padding and runs only the later blocks. The reference (`scoring.reference`) is the
model's own forward pass. The fast one is compared with the reference when a scorer is made, and gives way to it where
it differs or fails, with a line in the log.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import TypeVar

import torch
from torch import Tensor

from steering.intervention.additions import Additions
from steering.intervention.hooks import observed
from steering.models.blocks import hidden_of
from steering.models.loading import LanguageModel
from steering.pairs.tokenization import EncodedPair
from steering.runtime.cpu_threads import ThreadTimeoutError, balanced, in_threads, workers
from steering.scoring.check import checked_packed_scorer
from steering.scoring.fast.packed_scorer import PackedScorer
from steering.scoring.reference import ReferenceScorer

logger = logging.getLogger(__name__)

Loss = Callable[[Sequence[int], Tensor, Tensor], Tensor]
"""(indices, logps [n, 2], reference_logps [n, 2]) -> scalar, or [k] whose first element is differentiated."""
Way = PackedScorer | ReferenceScorer
Part = TypeVar("Part")
Result = TypeVar("Result")

OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")
"""How PyTorch's allocators for CUDA and CPU, which raise plain RuntimeErrors, say so."""


class PairScorer:
    """Scores preference pairs by index: log p(chosen) and log p(rejected), summed over answer tokens, in nats.

    Args:
        model: the model; it is not changed, and other threads may use it meanwhile.
        pairs: what will be scored.
        layer: the first layer that additions touch.
        scope: the steered positions, `all` or `answer` (see `vectors.TOKEN_SCOPES`).
        fast: False scores the reference way, without trying the fast one.

    Attributes:
        why: why it goes the reference way, in one sentence without a full stop; empty for the fast way.

    Example:
        scorer = PairScorer(model, encoded_pairs, layer=14)
        margins = (scorer.logps([0, 1], {14: v}) - scorer.reference_logps([0, 1])) @ torch.tensor([1.0, -1.0])
    """

    def __init__(
        self, model: LanguageModel, pairs: Sequence[EncodedPair], layer: int, *, scope: str = "all", fast: bool = True
    ) -> None:
        self.model, self.pairs, self.layer, self.scope = model, pairs, layer, scope
        network = model.network
        # Weights that accelerate fetches from disk, and quantised layers, change while they run: one thread at a time.
        stateless = not getattr(network, "is_quantized", False) and not any(p.is_meta for p in network.parameters())
        self._uses_threads = stateless and model.device.type == "cpu"
        self._reference = ReferenceScorer(model, pairs, scope)
        self._reference_logps = torch.full((len(pairs), 2), torch.nan, device=model.device)
        self._failure = ""
        self._changing = threading.Lock()
        self._fast, self.why = checked_packed_scorer(model, pairs, layer, scope) if fast else (None, "asked for")
        logger.info("Scoring %d pairs the %s way%s.", len(pairs), self.path, f": {self.why}" if self.why else "")

    @property
    def path(self) -> str:
        """Which way is taken: `fast` or `reference`."""
        return "reference" if self._fast is None else "fast"

    @property
    def note(self) -> str:
        """A sentence for the user on a disk too full for the activation cache or a fast way that failed; else empty."""
        return self._failure if self._fast is None else self._fast.problem

    @torch.no_grad()
    def reference_logps(self, indices: Sequence[int]) -> Tensor:
        """Return float32 [n, 2] of the untouched model, computed once a pair: chosen and rejected log-probability."""
        missing = [i for i in dict.fromkeys(indices) if self._reference_logps[i, 0].isnan()]
        if missing:
            self._reference_logps[missing] = self._answer(
                lambda way: self._joined(way, missing, lambda _, part: way.untouched_logps(part))
            )
        return self._reference_logps[list(indices)]

    @torch.no_grad()
    def logps(self, indices: Sequence[int], additions: Additions | None = None) -> Tensor:
        """Return float32 [n, 2] under `additions`, layer -> [hidden_size]: chosen_logps and rejected_logps.

        No additions give exactly `reference_logps`.
        """
        reference_logps = self.reference_logps(indices)
        if not additions or not len(indices):
            return reference_logps
        self._check_layers(additions)

        def steered(way: Way, part: list[int]) -> Tensor:
            return torch.cat([way.steered_logps(chunk, additions) for chunk in way.chunks(part)])

        return self._answer(lambda way: self._joined(way, indices, steered))

    def value_and_grad(
        self,
        indices: Sequence[int],
        vectors: Mapping[int, Tensor],
        loss: Loss,
        *,
        rows: Callable[[Tensor], Tensor] = lambda v: v,
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Return a loss of the steered log-probabilities, and its gradient at each layer's vector.

        The batch is run in parts, on one core each; `loss` is called for each part and must be a sum over its pairs.

        Args:
            indices: the batch; at least one pair.
            vectors: layer -> float32 [hidden_size].
            rows: v -> what steers the output of the layer's block, as `Additions` have it; by default v is added.
            loss: (indices, logps [n, 2], reference_logps [n, 2]) -> scalar or [k]. The first element is
                differentiated; all are summed over the parts, so that a margin, say, can be counted on the way.

        Returns the summed values, float32 [k] (k = 1 for a scalar), and layer -> float32 [hidden_size]. The sums are
        in the order of the parts, so the same call gives the same bits.

        Example, BiPO's loss in the direction of the vector:
            def loss(indices, logps, reference_logps):
                delta = (logps - reference_logps) @ torch.tensor([1.0, -1.0])
                return -F.logsigmoid(0.1 * delta).sum()
        """
        if not len(indices):
            raise ValueError("There are no pairs to take the gradient of.")
        self._check_layers(vectors)
        reference_logps = dict(zip(indices, self.reference_logps(indices), strict=True))

        def of_part(way: Way, part: list[int]) -> Tensor:
            return torch.stack([of_chunk(way, chunk) for chunk in way.chunks(part)]).sum(0)

        def of_chunk(way: Way, chunk: list[int]) -> Tensor:
            leaves = {layer: v.detach().clone().requires_grad_() for layer, v in vectors.items()}
            with torch.enable_grad():
                logps = way.steered_logps(chunk, {layer: rows(leaf) for layer, leaf in leaves.items()})
                try:
                    values = loss(chunk, logps, torch.stack([reference_logps[i] for i in chunk])).reshape(-1)
                except Exception as error:
                    raise _LossError(error) from error
                gradients = torch.autograd.grad(values[0], list(leaves.values()))
            return torch.cat([*(g.to(values.device) for g in gradients), values.detach()])

        def summed(way: Way) -> Tensor:
            groups = self._parts(way, indices)
            return reduce(torch.add, self._run(lambda places: of_part(way, [indices[p] for p in places]), groups))

        total = self._answer(summed)
        sizes = [len(v) for v in vectors.values()]
        *gradients, values = total.split([*sizes, len(total) - sum(sizes)])
        return values, {k: g.to(v.device) for (k, v), g in zip(vectors.items(), gradients, strict=True)}

    @torch.no_grad()
    def residual_norms(self, layers: Sequence[int], sample: int = 4) -> dict[int, float]:
        """Return the median L2 norm of the hidden states at each layer, over the tokens of the first `sample` pairs.

        The median, because a model's first token often has a norm many times the usual.
        """

        def of_pair(pair: EncodedPair) -> dict[int, Tensor]:
            tokens = torch.tensor([pair.prompt + pair.chosen], device=self.model.device)
            with contextlib.ExitStack() as stack:
                outputs = {k: stack.enter_context(observed(self.model.blocks[k])) for k in layers}
                self.model.network.base_model(input_ids=tokens, use_cache=False)
            return {k: hidden_of(output)[0].float().norm(dim=-1).cpu() for k, (output,) in outputs.items()}

        norms = self._run(of_pair, self.pairs[:sample])
        return {k: float(torch.cat([of_layer[k] for of_layer in norms]).median()) for k in layers}

    def _check_layers(self, layers: Iterable[int]) -> None:
        if min(layers) < self.layer:
            raise ValueError(f"This scorer steers from layer {self.layer} on, not at layer {min(layers)}.")

    def _run(self, function: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
        """Call the function on each part, on threads where they are of use."""
        return in_threads(function, parts) if self._uses_threads else [function(part) for part in parts]

    def _parts(self, way: Way, indices: Sequence[int]) -> list[list[int]]:
        """Split the places in `indices` into parts of about equal work, one a core."""
        return balanced([way.cost(i) for i in indices], workers() if self._uses_threads else 1)

    def _joined(self, way: Way, indices: Sequence[int], logps_of: Callable[[Way, list[int]], Tensor]) -> Tensor:
        """Compute float32 [n, 2] in parts; return it in the order of `indices`."""
        groups = self._parts(way, indices)
        parts = self._run(lambda places: logps_of(way, [indices[p] for p in places]), groups)
        logps = torch.empty(len(indices), 2, device=self.model.device)
        for places, part in zip(groups, parts, strict=True):
            logps[places] = part.to(logps.device)
        return logps

    def _answer(self, call: Callable[[Way], Tensor]) -> Tensor:
        """Call with the fast way; if it fails, with the reference, and from then on always with that."""
        fast = self._fast
        if fast is not None:
            try:
                return call(fast)
            except _LossError as error:
                raise error.cause from None
            except Exception as error:  # whatever a private operator or an architecture may raise
                if _would_fail_again(error):
                    raise
                self._take_reference_way(error)
        try:
            return call(self._reference)
        except _LossError as error:
            raise error.cause from None

    def _take_reference_way(self, error: Exception) -> None:
        with self._changing:  # several threads may fail at once; one line in the log is enough
            if self._fast is None:
                return
            self._fast, self.why = None, f"the fast way failed ({type(error).__name__})"
            self._failure = f"Scored the reference, slower way from here on: {self.why}."
        logger.warning("%s The error was: %s", self._failure, error)
        logger.debug("The error in full:", exc_info=error)


class _LossError(Exception):
    """Carries an exception of the caller's loss function past the change to the reference way."""

    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause


def _would_fail_again(error: Exception) -> bool:
    """Tell whether the reference way, which needs more memory, would be no help."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError | ThreadTimeoutError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)
