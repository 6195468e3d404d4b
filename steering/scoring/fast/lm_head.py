"""From last hidden states to log-probabilities of answer tokens: the head of a model, in pieces.

A vocabulary is wide, 50,000 to 260,000 words, so logits of all answer tokens together would be the largest thing in
memory by far. They never exist together: the head runs on a slice of the vocabulary (or, where a model does something
to its logits afterwards, on a few tokens) at a time, and what the backward pass needs is worked out on the way.
"""

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from steering.models.loading import LanguageModel
from steering.runtime.cpu_threads import shared
from steering.runtime.module_proxy import InputRecorder, ModuleProxy, copy_sharing_weights
from steering.scoring.fast.onednn_linear import Arranged, product

VOCABULARY_SLICE = 2048
"""Words at a time: their weights and logits stay in a processor's cache."""
CHUNK_BYTES = 32 * 1024**2
"""Of float32 logits at a time, where whole rows are needed."""


class AnswerHead:
    """The end of a model: what comes after its last hidden states.

    Taken off and tried out on a few tokens when made. A model whose head cannot be taken off gives whole logits.
    """

    def __init__(self, model: LanguageModel, arranged: Arranged | None = None) -> None:
        self.network = network = model.network
        self._arranged = arranged
        self._linear = self._takes_off = False
        with contextlib.suppress(Exception):  # whatever way an architecture has to refuse
            base, self._head = network.base_model, network.get_output_embeddings()
            self._catch, self._given = InputRecorder(self._head), _Given(base)
            self._headless = copy_sharing_weights(
                network, {self._head: self._catch, **{child: child for child in base.children()}}
            )
            self._ending = copy_sharing_weights(network, {base: self._given, self._head: self._head})
            self._takes_off = self._is_sound(model)

    def __call__(self, states: Tensor, rows: Tensor, targets: Tensor, after: float = 0) -> Tensor:
        """log p of token targets[i] after the token whose state is states[rows[i]]: float32 [A]; differentiable.

        states: [P, hidden_size], as they come out before the head; rows, targets: int64 [A].
        after: operations of the backward pass before the head, by which parts share out the work on theirs.
        """
        rows, targets = rows.to(states.device), targets.to(states.device)
        if self._linear:
            head = self._head
            return SlicedLogProbabilities.apply(states, head.weight, head.bias, rows, targets, after, self._arranged)
        return ChunkedLogProbabilities.apply(states, self._logits, rows, targets)

    def after_tokens(self, tokens: Tensor, attention: Tensor, where: Tensor, targets: Tensor) -> Tensor:
        """log p of token targets[i] after the i-th True of `where` (bool [rows, T]), through the model's own blocks.

        tokens, attention: int64 [rows, T]. Hooks on the model's blocks count. Returns float32 [A].
        """
        if not self._takes_off:
            logits = self.network(input_ids=tokens, attention_mask=attention, use_cache=False).logits
            return -F.cross_entropy(
                logits[where.to(logits.device)].float(), targets.to(logits.device), reduction="none"
            )
        self._headless(input_ids=tokens, attention_mask=attention, use_cache=False)
        states = self._catch.release()
        states = states[where.to(states.device)]
        return self(states, torch.arange(len(states)), targets)

    def matrices(self) -> list[Tensor]:
        """Those by which a step multiplies: every slice of the vocabulary [words, hidden_size], and its transpose."""
        if not self._linear:
            return []
        slices = self._head.weight.split(VOCABULARY_SLICE)
        return [matrix for words in slices for matrix in (words, words.t())]

    def _logits(self, states: Tensor) -> Tensor:
        """[P, vocabulary], by everything the model does after its last hidden states."""
        self._given.states = states[None]
        anything = torch.zeros(1, len(states), dtype=torch.long, device=states.device)
        return self._ending(input_ids=anything, use_cache=False).logits[0]

    @torch.no_grad()
    def _is_sound(self, model: LanguageModel) -> bool:
        """Whether it gives the model's own logits; and whether they are the head's alone, neither scaled nor capped."""
        tokens = torch.arange(1, 6, device=model.device)[None] % self.network.get_input_embeddings().weight.shape[0]
        logits = self.network(input_ids=tokens, use_cache=False).logits[0]
        self._headless(input_ids=tokens, use_cache=False)
        states = self._catch.release()[0]
        head = self._head
        if type(head) is nn.Linear and not head.weight.is_meta:
            self._linear = torch.allclose(head(states).float(), logits.float(), rtol=1e-5, atol=1e-5)
        return self._linear or torch.allclose(self._logits(states).float(), logits.float(), rtol=1e-5, atol=1e-5)


class _Given(ModuleProxy):
    """Stands in for everything before the head."""

    def forward(self, *args: object, **kwargs: object) -> BaseModelOutputWithPast:
        return _Output(last_hidden_state=self.states)


class _Output(BaseModelOutputWithPast):
    """Has None for whatever else an architecture may ask of the output of its blocks."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


class SlicedLogProbabilities(torch.autograd.Function):
    """log softmax of a linear head in one pass over the vocabulary, slice by slice, each read from memory once.

    With running maximum m and sum s of exponentials, as in online softmax (Milakov and Gimelshein, 2018), and the sum
    of the words' weights under the same exponentials: divided by s it is the mean weight w under the distribution, and
    the gradient of log p(target) with respect to the state is weight[target] - w.
    """

    @staticmethod
    def forward(
        ctx,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        rows: Tensor,
        targets: Tensor,
        after: float = 0,
        arranged: Arranged | None = None,
    ) -> Tensor:
        wanted = ctx.needs_input_grad[0]

        def of_slice(number: int) -> tuple[Tensor, Tensor, Tensor | None]:
            """Of some words: maximum [P, 1], sum [P, 1] and, if wanted, sum of weights [P, hidden_size]."""
            own = slice(number * VOCABULARY_SLICE, (number + 1) * VOCABULARY_SLICE)
            words = weight[own]
            logits = product(states, words, None if bias is None else bias[own], arranged).float()
            highest = logits.amax(dim=1, keepdim=True)
            shares = logits.sub_(highest).exp_()
            return (
                highest,
                shares.sum(dim=1, keepdim=True),
                product(shares.to(words.dtype), words.t(), None, arranged) if wanted else None,
            )

        count = len(states)
        highest = torch.full((count, 1), -torch.inf, device=states.device)
        total = torch.zeros(count, 1, device=states.device)
        mean = torch.zeros(states.shape, device=states.device)
        slices, cost = -(-len(weight) // VOCABULARY_SLICE), 2 * (1 + wanted) * states.numel() * VOCABULARY_SLICE
        for its_highest, its_total, its_sum in shared(of_slice, slices, cost, after if wanted else 0):
            higher = torch.maximum(highest, its_highest)
            shrink, its_share = torch.exp(highest - higher), torch.exp(its_highest - higher)
            total = total * shrink + its_total * its_share
            if wanted:
                mean = mean.mul_(shrink).addcmul_(its_sum, its_share)
            highest = higher
        named = weight[targets]
        reached = (states[rows].float() * named.float()).sum(dim=1)
        if bias is not None:
            reached = reached + bias[targets].float()
        if wanted:
            ctx.save_for_backward(mean / total, named, rows)
            ctx.dtype = states.dtype
        return reached - (highest + total.log())[rows, 0]

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        mean, named, rows = ctx.saved_tensors
        weights = torch.zeros(len(mean), 1, device=mean.device).index_add(0, rows, gradient[:, None])
        back = (-weights * mean).index_add(0, rows, gradient[:, None] * named.float())
        return back.to(ctx.dtype), None, None, None, None, None, None


class ChunkedLogProbabilities(torch.autograd.Function):
    """The same through any ending of a model, a few tokens at a time; each chunk's gradient is taken at once."""

    @staticmethod
    def forward(ctx, states: Tensor, logits_of: object, rows: Tensor, targets: Tensor) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        found, gradients, start = [], [], 0
        size = 1
        while start < len(rows):
            chunk = states[rows[start : start + size]].detach().requires_grad_(wanted)
            with torch.set_grad_enabled(wanted):
                logits = logits_of(chunk).float()
                each = -F.cross_entropy(logits, targets[start : start + size], reduction="none")
                if wanted:
                    gradients.append(torch.autograd.grad(each.sum(), chunk)[0])
            found.append(each.detach())
            start += size
            size = max(1, CHUNK_BYTES // (4 * logits.shape[-1]))
        if wanted:
            ctx.save_for_backward(torch.cat(gradients), rows)
            ctx.count = len(states)
        return torch.cat(found)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        gradients, rows = ctx.saved_tensors
        back = gradients.new_zeros(ctx.count, gradients.shape[1])
        return back.index_add(0, rows, gradient[:, None].to(gradients.dtype) * gradients), None, None, None
