"""Log-probabilities of the answers of preference pairs under steering: what training and evaluation both stand on.

The fast way keeps the hidden states at the first steered layer, packs each batch into one sequence without padding and
runs only the later blocks (see packing.py). Whether a model can be run so is found out by comparing it with the plain
forward pass on a few tokens; a model that differs is scored the plain way. Both give the same numbers.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from steering.encoding import EncodedPair, shared_prefix
from steering.intervention import Additions, observed, steered
from steering.models import LanguageModel, hidden_of
from steering.packing import LaterBlocks, PackedBatch, pack, packed_logits

STATES_BUDGET = 512 * 1024**2
"""Bytes of hidden states kept; pairs beyond it are run from the first block each time."""

TRIAL_TOKENS = 1024
"""Longest pair on which the fast way is tried out against the plain one."""


class PairScorer:
    """Scores preference pairs by index: [log p(chosen), log p(rejected)], summed over answer tokens, in nats.

    Args:
        model: the model; it is not changed, and other threads may use it meanwhile.
        pairs: what will be scored.
        layer: the first layer that the additions touch.
        scope: the positions that are steered, `all` or `answer` (see `vectors.TOKEN_SCOPES`).
        fast: False scores the plain way, without trying.
    """

    def __init__(
        self,
        model: LanguageModel,
        pairs: Sequence[EncodedPair],
        layer: int,
        *,
        scope: str = "all",
        fast: bool = True,
    ) -> None:
        self.model, self.pairs, self.layer, self.scope = model, pairs, layer, scope
        self.prefix = shared_prefix(pair.prompt[:-1] for pair in pairs)
        self._references: dict[int, Tensor] = {}
        self._states: dict[int, Tensor] = {}
        self._prefix_states: Tensor | None = None
        self._budget = STATES_BUDGET
        self._later: LaterBlocks | None = None
        self.why_plain = "" if fast else "asked for"
        if fast:
            self._later, self.why_plain = self._later_blocks_if_exact()

    @property
    def fast(self) -> bool:
        return self._later is not None

    def reference(self, indices: Sequence[int]) -> Tensor:
        """Scores [n, 2] of the untouched model, computed once per pair."""
        missing = [i for i in indices if i not in self._references]
        if missing:
            self._measure_untouched(missing)
        return torch.stack([self._references[i] for i in indices])

    def scores(self, indices: Sequence[int], additions: Additions) -> Tensor:
        """Scores [n, 2] with `additions` (layer -> [hidden_size]) at the scope's positions; differentiable in them."""
        reference = self.reference(indices)
        if not additions:
            return reference  # exactly the untouched figures
        if self._later is None:
            return self._plain([self.pairs[i] for i in indices], additions)
        batch = self._pack([self.pairs[i] for i in indices])
        states = self._states_of(indices, batch)
        with steered(self._later.blocks, self._in_scope(additions, batch)):
            return answer_scores(self._later(states, batch), batch)

    def residual_norm(self, sample: int = 4) -> float:
        """Median L2 norm of the hidden states at the layer, over the tokens of the first few pairs.

        The median, because a model's first token often carries a norm many times the usual.
        """
        norms = []
        with torch.no_grad(), observed(self.model.blocks[self.layer]) as outputs:
            for pair in self.pairs[:sample]:
                tokens = torch.tensor([pair.prompt + pair.chosen], device=self.model.device)
                self.model.network(input_ids=tokens, use_cache=False)
                norms.append(hidden_of(outputs.pop())[0].float().norm(dim=-1))
        return float(torch.cat(norms).median())

    def _in_scope(self, additions: Additions, batch: PackedBatch) -> Additions:
        """The additions of a packed batch: the places that predict an answer token are the scope `answer`."""
        if self.scope == "all":
            return additions
        where = torch.zeros(*batch.tokens.shape, 1, device=batch.places.device)
        where[0, batch.places] = 1
        return {layer: where * v for layer, v in additions.items()}

    def _pack(self, pairs: Sequence[EncodedPair], prefix: Sequence[int] | None = None) -> PackedBatch:
        prefix = self.prefix if prefix is None else prefix
        return pack(pairs, prefix, self.model.device, self.model.network.dtype)

    @torch.no_grad()
    def _measure_untouched(self, indices: Sequence[int]) -> None:
        """One pass through the whole model: reference scores, and the hidden states at the layer on the way."""
        pairs = [self.pairs[i] for i in indices]
        if self._later is None:
            scores = self._plain(pairs, {})
        else:
            batch = self._pack(pairs)
            with observed(self.model.blocks[self.layer]) as outputs:
                scores = answer_scores(packed_logits(self.model.network, batch), batch)
            self._keep(indices, hidden_of(outputs[0])[0], batch)
        self._references.update(zip(indices, scores, strict=True))

    def _keep(self, indices: Sequence[int], states: Tensor, batch: PackedBatch) -> None:
        if self._prefix_states is None:
            self._prefix_states = states[: len(self.prefix)].clone()
        for index, span in zip(indices, batch.spans, strict=True):
            own = states[span]
            size = own.numel() * own.element_size()
            if size <= self._budget:
                self._budget -= size
                self._states[index] = own.clone()

    def _states_of(self, indices: Sequence[int], batch: PackedBatch) -> Tensor:
        """Hidden states [1, T, hidden_size] of the batch at the layer, from memory where they were kept."""
        if all(i in self._states for i in indices):
            return torch.cat([self._prefix_states, *(self._states[i] for i in indices)])[None]
        with torch.no_grad(), observed(self.model.blocks[self.layer]) as outputs:
            packed_logits(self.model.network, batch)
        return hidden_of(outputs[0])

    def _plain(self, pairs: Sequence[EncodedPair], additions: Additions) -> Tensor:
        """Chosen and rejected as rows of one padded batch through the whole model."""
        rows = [(pair.prompt, answer) for pair in pairs for answer in (pair.chosen, pair.rejected)]
        longest = max(len(prompt) + len(answer) for prompt, answer in rows)
        tokens = torch.zeros(len(rows), longest, dtype=torch.long)
        attention, predicting = torch.zeros_like(tokens), torch.zeros(len(rows), longest, 1)
        for row, (prompt, answer) in enumerate(rows):
            ids = prompt + answer
            tokens[row, : len(ids)] = torch.tensor(ids)
            attention[row, : len(ids)] = 1
            predicting[row, len(prompt) - 1 : len(ids) - 1] = 1
        tokens, attention = tokens.to(self.model.device), attention.to(self.model.device)
        if self.scope == "answer":
            additions = {layer: predicting.to(v.device) * v for layer, v in additions.items()}
        with steered(self.model.blocks, additions):
            logits = self.model.network(input_ids=tokens, attention_mask=attention, use_cache=False).logits
        scores = [
            log_probabilities(logits[row, len(prompt) - 1 : len(prompt) + len(answer) - 1], answer).sum()
            for row, (prompt, answer) in enumerate(rows)
        ]
        return torch.stack(scores).view(-1, 2)

    @torch.no_grad()
    def _later_blocks_if_exact(self) -> tuple[LaterBlocks | None, str]:
        """The later blocks on their own, if they give what the plain pass gives on a few tokens; else why not."""
        config = self.model.network.config.get_text_config(decoder=True)
        for key in ("sliding_window", "sliding_window_size", "local_attention", "attention_chunk_size"):
            window = getattr(config, key, None)
            if isinstance(window, int) and self.pairs and max(map(len, self.pairs)) >= window:
                return None, f"pairs are longer than the model's {key.replace('_', ' ')} of {window} tokens"
        if getattr(config, "window_size", None):  # GPT-Neo's window counts places in the sequence, whatever the mask
            return None, f"{type(self.model.network).__name__} cannot be packed (its attention window)"
        name = type(self.model.network).__name__
        samples = _probe_pairs(self.model.network.get_input_embeddings().weight.shape[0])
        trials = [(samples, samples[0].prompt[:2])]
        if self.pairs:  # what goes wrong only past some length shows on the longest pair
            longest = max((p for p in self.pairs if len(p) <= TRIAL_TOKENS), key=len, default=min(self.pairs, key=len))
            trials.append(([longest], self.prefix))
        try:
            for pairs, prefix in trials:
                later, got, additions = self._trial(pairs, prefix)
                want = torch.cat([self._plain(pairs, {}), self._plain(pairs, additions)])
                tolerance = 5e-5 if self.model.network.dtype == torch.float32 else 4e-2
                if not torch.allclose(got, want, rtol=tolerance, atol=tolerance):
                    return None, f"{name} gives other results when packed"
        except Exception as error:  # whatever way an architecture has to refuse, the plain way remains
            return None, f"{name} cannot be packed ({type(error).__name__})"
        return later, ""

    def _trial(self, pairs: Sequence[EncodedPair], prefix: Sequence[int]) -> tuple[LaterBlocks, Tensor, Additions]:
        """Packed scores of a few pairs, untouched and then pushed by what the additions say, [2 * n, 2]."""
        batch = self._pack(pairs, prefix)
        with observed(self.model.blocks[self.layer]) as outputs:
            untouched = answer_scores(packed_logits(self.model.network, batch), batch)
        later = LaterBlocks(self.model, self.layer, gives_tuple=isinstance(outputs[0], tuple))
        states = hidden_of(outputs[0])
        push = torch.randn(self.model.hidden_size, generator=torch.Generator().manual_seed(0)).to(self.model.device)
        additions = {self.layer: push * (states.norm(dim=-1).median() / push.norm())}
        with steered(later.blocks, self._in_scope(additions, batch)):
            pushed = answer_scores(later(states, batch), batch)
        return later, torch.cat([untouched, pushed]), additions


def answer_scores(logits: Tensor, batch: PackedBatch) -> Tensor:
    """[n, 2] summed log-probabilities of chosen and rejected from the logits [P, vocabulary] of a packed batch."""
    each = LogProbabilities.apply(logits, batch.readout, batch.targets)
    totals = torch.zeros(2 * len(batch.spans), device=each.device)
    return totals.index_add(0, batch.owners, each).view(-1, 2)


class LogProbabilities(torch.autograd.Function):
    """log p of token targets[i] under row rows[i] of logits [P, vocabulary]: float32 [A].

    A row may serve several targets. Written by hand because the vocabulary is wide: autograd would copy the logits for
    the rows used twice, and fill and add whole matrices of zeros on the way back.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
        wide = logits.float()
        totals = torch.logsumexp(wide, dim=-1)
        ctx.save_for_backward(wide, totals, rows, targets)
        ctx.dtype = logits.dtype
        return wide[rows, targets] - totals[rows]

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        wide, totals, rows, targets = ctx.saved_tensors
        weights = torch.zeros_like(totals).index_add(0, rows, gradient)
        back = torch.exp(wide - totals[:, None]).mul_(-weights[:, None])
        back.index_put_((rows, targets), gradient, accumulate=True)
        return back.to(ctx.dtype), None, None


def log_probabilities(logits: Tensor, targets: Sequence[int]) -> Tensor:
    """log p of each target, [tokens], from logits [tokens, vocabulary]; in float32 whatever the model's type."""
    return -F.cross_entropy(logits.float(), torch.tensor(targets, device=logits.device), reduction="none")


def _probe_pairs(vocabulary: int) -> list[EncodedPair]:
    """Two small pairs with a shared beginning and unequal lengths, of ids that every vocabulary has."""
    ids = [(7 * i + 3) % max(2, vocabulary - 1) for i in range(40)]
    head = ids[:3]
    return [
        EncodedPair(tuple(head + ids[3:9]), tuple(ids[9:14]), tuple(ids[14:17])),
        EncodedPair(tuple(head + ids[17:21]), tuple(ids[21:23]), tuple(ids[23:30])),
    ]
