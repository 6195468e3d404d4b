"""Log-probabilities of the answers of preference pairs under steering: what training and evaluation both stand on.

The fast way keeps the hidden states at the first steered layer, packs each batch into one sequence without padding and
runs only the later blocks. Whether a model can be run so is found out by comparing it with the plain forward pass on a
few tokens; a model that differs is scored the plain way. Both give the same numbers.
"""

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from steering.intervention.additions import Additions
from steering.intervention.hooks import observed, steered
from steering.models.blocks import hidden_of
from steering.models.loading import LanguageModel
from steering.pairs.tokenization import EncodedPair, shared_prefix
from steering.runtime.cpu_threads import balanced, in_threads, workers
from steering.scoring.fast.activation_cache import ActivationCache
from steering.scoring.fast.lm_head import AnswerHead
from steering.scoring.fast.onednn_linear import Arranged
from steering.scoring.fast.packed_forward import PackedModel
from steering.scoring.fast.packing import PackedBatch, pack
from steering.scoring.fast.prefix_sharing import Loan

TRIAL_TOKENS = 1024
"""Longest pair on which the fast way is tried out against the plain one."""
LENDABLE = 8
"""Tokens of a prefix for which parts wait for each other; those of a shorter one are soon run by each."""
WINDOWS = ("sliding_window", "sliding_window_size", "local_attention", "attention_chunk_size")
"""What models call the reach of attention that looks back only so far."""


class Part(NamedTuple):
    """Pairs for one core, their places in the batch, and by what they share the run of the prefix, if they do."""

    indices: list[int]
    places: list[int]
    loan: Loan | None


class PairScorer:
    """Scores preference pairs by index: [log p(chosen), log p(rejected)], summed over answer tokens, in nats.

    Args:
        model: the model; it is not changed, and other threads may use it meanwhile.
        pairs: what will be scored.
        layer: the first layer that the additions touch.
        scope: the positions that are steered, `all` or `answer` (see `vectors.TOKEN_SCOPES`).
        fast: False scores the plain way, without trying.

    Attributes:
        why_plain: why it goes the plain way; empty for the fast one.
        states: what is kept of the fast way's hidden states.
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
        self.states = ActivationCache()
        self._references = torch.full((len(pairs), 2), torch.nan, device=model.device)
        self._prefix_states: Tensor | None = None
        self._packed: PackedModel | None = None
        self._lends = False
        self._arranged = Arranged()
        self._head = AnswerHead(model, self._arranged)
        self._later_weights = sum(p.numel() for block in model.blocks[layer + 1 :] for p in block.parameters())
        network = model.network  # weights fetched from disk, and quantised layers, keep notes that threads would mix up
        simple = not getattr(network, "is_quantized", False) and not any(p.is_meta for p in network.parameters())
        self._splits = simple and model.device.type == "cpu"
        self.why_plain = "" if fast else "asked for"
        if fast:
            self._packed, self.why_plain = self._packed_if_exact()

    @property
    def fast(self) -> bool:
        return self._packed is not None

    def reference(self, indices: Sequence[int]) -> Tensor:
        """Scores [n, 2] of the untouched model, computed once per pair."""
        indices = list(indices)
        missing = [i for i, unknown in zip(indices, self._references[indices, 0].isnan(), strict=True) if unknown]
        in_threads(self._measure_untouched, [part.indices for part in self.parts(missing)])
        return self._references[indices]

    def arrange_weights(self) -> None:
        """Have products with the weights made ready, those first that gain most; worth its time from some 10 steps on.

        Takes memory, `products.ARRANGED_BYTES` at most. Changes no number by more than rounding.
        """
        if self._packed is None:
            return
        maps = self._packed.later_maps
        forth, back = [m.weight for m in maps], [m.weight.t() for m in maps]
        for matrix in (*forth, *self._head.matrices(), *back):
            self._arranged.add(matrix)

    def parts(self, indices: Sequence[int]) -> list[Part]:
        """The indices in parts of about equal work, one for each core; one part where threads are of no use.

        The first has least, and lends: who has time can help others, who has none must not keep them waiting.
        """
        tokens = [self._own_tokens(self.pairs[i]) for i in indices]
        groups = balanced(tokens, workers() if self._splits else 1)
        groups.sort(key=lambda group: sum(tokens[place] for place in group))
        lends = self._lends and len(groups) > 1
        return [
            Part([indices[place] for place in group], group, Loan(number, len(groups)) if lends else None)
            for number, group in enumerate(groups)
        ]

    def scores(self, indices: Sequence[int], additions: Additions, loan: Loan | None = None) -> Tensor:
        """Scores [n, 2] with `additions` (layer -> [hidden_size]) at the scope's positions; differentiable in them.

        loan: the part's, where these are the indices of one of `parts`, and all run under `in_threads`, in this order.
        """
        reference = self.reference(indices)
        if not additions:
            return reference  # exactly the untouched figures
        if any(addition.requires_grad for addition in additions.values()) and torch.is_grad_enabled():
            return self._steered(indices, additions, loan)  # the caller splits it, for the backward pass as well

        def of_part(part: Part) -> Tensor:
            return self._steered(part.indices, additions, part.loan)

        parts, scores = self.parts(indices), torch.empty_like(reference)
        for part, found in zip(parts, in_threads(of_part, parts), strict=True):
            scores[part.places] = found
        return scores

    @torch.no_grad()
    def residual_norms(self, layers: Sequence[int], sample: int = 4) -> dict[int, float]:
        """Median L2 norm of the hidden states at each layer, over the tokens of the first few pairs.

        The median, because a model's first token often carries a norm many times the usual.
        """

        def of_pair(pair: EncodedPair) -> dict[int, Tensor]:
            tokens = torch.tensor([pair.prompt + pair.chosen], device=self.model.device)
            with contextlib.ExitStack() as stack:
                outputs = {k: stack.enter_context(observed(self.model.blocks[k])) for k in layers}
                self.model.network.base_model(input_ids=tokens, use_cache=False)
            return {k: hidden_of(output)[0].float().norm(dim=-1).cpu() for k, (output,) in outputs.items()}

        found = in_threads(of_pair, self.pairs[:sample])
        return {k: float(torch.cat([norms[k] for norms in found]).median()) for k in layers}

    def _own_tokens(self, pair: EncodedPair) -> int:
        return len(pair.prompt) - len(self.prefix) + len(pair.chosen) + len(pair.rejected)

    def _steered(self, indices: Sequence[int], additions: Additions, loan: Loan | None) -> Tensor:
        pairs = [self.pairs[i] for i in indices]
        if self._packed is None:
            return self._plain(pairs, additions)
        batch = self._pack(pairs)
        return self._steered_scores(self._packed, self._states_of(indices, batch), batch, additions, loan)

    def _pack(self, pairs: Sequence[EncodedPair], prefix: Sequence[int] | None = None) -> PackedBatch:
        prefix = self.prefix if prefix is None else prefix
        return pack(pairs, prefix, self.model.device, self.model.network.dtype)

    def _steered_scores(
        self, packed: PackedModel, states: Tensor, batch: PackedBatch, additions: Additions, loan: Loan | None = None
    ) -> Tensor:
        if loan is not None and not loan.lends:
            states, batch = states[:, batch.sizes[0] :], batch.without_prefix()
        if self.scope == "answer":  # only at places that predict an answer token
            where = torch.zeros(*batch.tokens.shape, 1, device=batch.places.device)
            where[0, batch.places] = 1
            additions = {layer: where * v for layer, v in additions.items()}
        with steered(packed.blocks, additions):
            return self._totals(packed.from_states(states, batch, loan), batch)

    def _totals(self, last: Tensor, batch: PackedBatch) -> Tensor:
        backward = 3 * self._later_weights * batch.tokens.numel()  # 2 for the products, the rest for all else
        return batch.totals(self._head(last, batch.readout, batch.targets, backward))

    @torch.no_grad()
    def _measure_untouched(self, indices: Sequence[int]) -> None:
        """One pass through the whole model: reference scores, and the hidden states at the layer on the way."""
        pairs = [self.pairs[i] for i in indices]
        if self._packed is None:
            scores = self._plain(pairs, {})
        else:
            batch = self._pack(pairs)
            states, last = self._packed.from_tokens(batch)
            scores = self._totals(last, batch)
            _, *own = states[0].split(batch.sizes)
            for index, part in zip(indices, own, strict=True):
                self.states.keep(index, part)
        self._references[indices] = scores

    def _states_of(self, indices: Sequence[int], batch: PackedBatch) -> Tensor:
        """Hidden states [1, T, hidden_size] of the batch at the layer, as they were kept."""
        if all(i in self.states for i in indices):
            return torch.cat([self._prefix_states, *(self.states[i] for i in indices)])[None]
        with torch.no_grad():
            return self._packed.from_tokens(batch)[0]

    def _plain(self, pairs: Sequence[EncodedPair], additions: Additions) -> Tensor:
        """Chosen and rejected as rows of one padded batch through the whole model."""
        rows = [(pair.prompt, answer) for pair in pairs for answer in (pair.chosen, pair.rejected)]
        longest = max(len(prompt) + len(answer) for prompt, answer in rows)
        tokens = torch.zeros(len(rows), longest, dtype=torch.long)
        attention, predicting = torch.zeros_like(tokens), torch.zeros(len(rows), longest, dtype=torch.bool)
        for row, (prompt, answer) in enumerate(rows):
            ids = prompt + answer
            tokens[row, : len(ids)] = torch.tensor(ids)
            attention[row, : len(ids)] = 1
            predicting[row, len(prompt) - 1 : len(ids) - 1] = True
        tokens, attention = tokens.to(self.model.device), attention.to(self.model.device)
        if self.scope == "answer":
            additions = {layer: predicting[..., None].to(v) * v for layer, v in additions.items()}
        with steered(self.model.blocks, additions):
            targets = torch.tensor([token for _, answer in rows for token in answer])
            each = self._head.after_tokens(tokens, attention, predicting, targets)
        lengths = [len(answer) for _, answer in rows]
        return torch.stack([part.sum() for part in each.split(lengths)]).view(-1, 2)

    def _lent_scores(
        self, packed: PackedModel, pairs: Sequence[EncodedPair], prefix: Sequence[int], additions: Additions
    ) -> Tensor:
        """Scores of pairs, each a part of its own, where the first lends the others its run of the prefix."""

        def of_pair(number: int) -> Tensor:
            batch, loan = self._pack([pairs[number]], prefix), Loan(number, len(pairs))
            return self._steered_scores(packed, packed.from_tokens(batch)[0], batch, additions, loan)

        return torch.cat(in_threads(of_pair, range(len(pairs))))

    @torch.no_grad()
    def _packed_if_exact(self) -> tuple[PackedModel | None, str]:
        """The model run in packs, if that gives what the plain pass gives on a few tokens; else why not."""
        network = self.model.network
        name, config = type(network).__name__, network.config.get_text_config(decoder=True)
        for key in WINDOWS:
            window = getattr(config, key, None)
            if isinstance(window, int) and self.pairs and max(map(len, self.pairs)) >= window:
                return None, f"pairs are longer than the model's {key.replace('_', ' ')} of {window} tokens"
        if getattr(config, "window_size", None):  # GPT-Neo's window counts places in the sequence, whatever the mask
            return None, f"{name} cannot be packed (its attention window)"
        samples = _probe_pairs(network.get_input_embeddings().weight.shape[0])
        trials = [(samples, samples[0].prompt[:2])]
        if self.pairs:  # what goes wrong only past some length shows on the longest pair
            longest = max((p for p in self.pairs if len(p) <= TRIAL_TOKENS), key=len, default=min(self.pairs, key=len))
            trials.append(([longest], self.prefix))
        rtol, atol = (5e-5, 5e-5) if network.dtype == torch.float32 else (1e-2, 5e-2)
        try:
            packed = PackedModel(self.model, self.layer, self._arranged)
            for pairs, prefix in trials:
                batch = self._pack(pairs, prefix)
                states, last = packed.from_tokens(batch)
                if pairs is samples:
                    packed.skip_unread(states, batch)
                push = torch.randn(self.model.hidden_size, generator=torch.Generator().manual_seed(0)).to(states.device)
                additions = {self.layer: push * (states.float().norm(dim=-1).median() / push.norm())}
                got, want = self._steered_scores(packed, states, batch, additions), self._plain(pairs, additions)
                same = torch.allclose(got, want, rtol=rtol, atol=atol)
                if pairs is samples:  # the long pair is looked at once only: it takes a second
                    same &= torch.allclose(self._totals(last, batch), self._plain(pairs, {}), rtol=rtol, atol=atol)
                    if self._splits and workers() > 1 and len(self.prefix) >= LENDABLE:
                        with contextlib.suppress(Exception):  # each part can still run the prefix
                            lent = self._lent_scores(packed, pairs, prefix, additions)
                            self._lends = torch.allclose(lent, want, rtol=rtol, atol=atol)
                if not same:
                    return None, f"{name} gives other results when packed"
            self._prefix_states = states[0, : len(prefix)].clone()
        except Exception as error:  # whatever way an architecture has to refuse, the plain way remains
            return None, f"{name} cannot be packed ({type(error).__name__})"
        return packed, ""


def _probe_pairs(vocabulary: int) -> list[EncodedPair]:
    """Two small pairs with a shared beginning and unequal lengths, of ids that every vocabulary has."""
    ids = [(7 * i + 3) % max(2, vocabulary - 1) for i in range(40)]
    head = ids[:3]
    return [
        EncodedPair(tuple(head + ids[3:9]), tuple(ids[9:14]), tuple(ids[14:17])),
        EncodedPair(tuple(head + ids[17:21]), tuple(ids[21:23]), tuple(ids[23:30])),
    ]
