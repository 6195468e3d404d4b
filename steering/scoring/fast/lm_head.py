"""From the last hidden states to log-probabilities of answer tokens: the LM head of a model, in pieces.

A vocabulary has 32,000 to 260,000 tokens, so the logits of all answer tokens together would be the largest tensor in
memory by far. They never exist together: the head runs on a slice of the vocabulary (or, where a model scales or caps
its logits, on a few positions) at a time.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import BaseModelOutputWithPast

from steering.models.loading import LanguageModel
from steering.models.probe import vocabulary_size
from steering.runtime.module_proxy import HiddenStatesProxy, InputRecorder, copy_sharing_weights
from steering.scoring.fast.onednn_linear import linear

VOCABULARY_SLICE = 2048
"""Vocabulary entries at a time. Chosen so that a slice's weights (4.7 MB at hidden size 576) and the logits of some 200
positions (1.6 MB) stay in a core's share of the cache; not tuned."""
CHUNK_BYTES = 32 * 1024**2
"""Of float32 logits at a time where whole rows are needed: 80 positions of a vocabulary of 100,000. Not tuned."""
CHECKED_TARGETS = 64
"""Vocabulary entries, evenly spread, whose log-probabilities are compared with the model's own."""


class LMHead:
    """Log-probabilities from the hidden states that enter a model's LM head.

    Raises ValueError when made, if the results are not those of the model's own logits on a few tokens; an
    architecture may also refuse with an exception of its own.
    """

    def __init__(self, model: LanguageModel) -> None:
        network = model.network
        base, self._head = network.base_model, network.get_output_embeddings()
        recorder, self._given = InputRecorder(self._head), _GivenOutput(base)
        headless = copy_sharing_weights(network, {self._head: recorder, **{child: child for child in base.children()}})
        self._ending = copy_sharing_weights(network, {base: self._given, self._head: self._head})
        self._linear = False
        with torch.no_grad():
            tokens = torch.arange(1, 6, device=model.device)[None] % vocabulary_size(network)
            logits = network(input_ids=tokens, use_cache=False).logits[0]
            headless(input_ids=tokens, use_cache=False)
            self._check(recorder.release()[0], logits)

    def __call__(self, hidden: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
        """Return log p of token targets[i] after the position with hidden state hidden[rows[i]]; differentiable.

        Args:
            hidden: [positions, hidden_size], as they enter the LM head.
            rows, targets: int64 [answer tokens].

        Returns float32 [answer tokens].
        """
        rows, targets = rows.to(hidden.device), targets.to(hidden.device)
        if self._linear:
            return SlicedLogProbabilities.apply(hidden, self._head.weight, self._head.bias, rows, targets)
        size = max(1, CHUNK_BYTES // (4 * self._head.weight.shape[0]))
        chunks = zip(rows.split(size), targets.split(size), strict=True)
        # Checkpointed, a chunk's logits live only while it runs: the backward pass computes them once more.
        run = partial(checkpoint, self._logps, use_reentrant=False, preserve_rng_state=False)
        return torch.cat([run(hidden[own], wanted) for own, wanted in chunks])

    def _logps(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return log p of targets int64 [positions] after hidden [positions, hidden_size], by whole logits."""
        return -F.cross_entropy(self._logits(hidden).float(), targets, reduction="none")

    def _logits(self, hidden: Tensor) -> Tensor:
        """Compute logits [positions, vocabulary] by everything the model does after its last hidden states."""
        self._given.hidden_states = hidden[None]
        placeholder = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
        return self._ending(input_ids=placeholder, use_cache=False).logits[0]

    def _check(self, hidden: Tensor, logits: Tensor) -> None:
        """Find out whether the logits are the linear map's alone, neither scaled nor capped; compare the results.

        Args:
            hidden: [tokens, hidden_size], what the model's own pass handed to its head.
            logits: [tokens, vocabulary], what the model made of them.
        """
        head = self._head
        if type(head) is nn.Linear and not head.weight.is_meta:
            self._linear = torch.allclose(head(hidden).float(), logits.float(), rtol=1e-5, atol=1e-5)
        targets = torch.linspace(0, logits.shape[-1] - 1, CHECKED_TARGETS).long().repeat(len(hidden))
        rows = torch.arange(len(hidden)).repeat_interleave(CHECKED_TARGETS)
        wanted = logits.float().log_softmax(-1)[rows.to(logits.device), targets.to(logits.device)]
        # A logarithm of a sum over the vocabulary differs by about 1e-6 with the order of the sum, in half precision
        # each logit is rounded to 3 digits.
        rtol, atol = (1e-5, 1e-4) if hidden.dtype == torch.float32 else (1e-2, 5e-2)
        got = self(hidden, rows, targets)
        if not torch.allclose(got, wanted.to(got.device), rtol=rtol, atol=atol):
            raise ValueError("the LM head gives other log-probabilities when it is run in pieces")


class _GivenOutput(HiddenStatesProxy):
    """Stands in for everything before the LM head: returns given hidden states as that part's output."""

    def forward(self, *args: object, **kwargs: object) -> BaseModelOutputWithPast:
        """Return the given hidden states [1, positions, hidden_size] as `last_hidden_state`."""
        return _BaseOutput(last_hidden_state=self.hidden_states)


@dataclass
class _BaseOutput(BaseModelOutputWithPast):
    """The output of a model's blocks, with None in the fields that only some architectures have.

    None is what these fields hold where a model was asked for the logits only.
    """

    cache_params: None = None  # recurrent models
    cross_attentions: None = None
    router_logits: None = None  # mixtures of experts
    image_hidden_states: None = None  # models that read images, video or sound
    video_hidden_states: None = None
    audio_hidden_states: None = None
    shared_kv_states: None = None


class SlicedLogProbabilities(torch.autograd.Function):
    """log softmax of a linear head in one pass over the vocabulary, slice by slice, each read from memory once.

    With running maximum m and sum s of exponentials, as in online softmax (Milakov and Gimelshein, 2018, arXiv
    1805.02867), and the sum of the head's weight rows under the same exponentials: divided by s that is the mean weight
    row w under the distribution, and the gradient of log p(target) with respect to the state is weight[target] - w.

    Inputs: hidden [positions, hidden_size], weight [vocabulary, hidden_size], bias [vocabulary] or None, rows and
    targets int64 [answer tokens]. Output: float32 [answer tokens].
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, bias: Tensor | None, rows: Tensor, targets: Tensor) -> Tensor:
        """Return log p of the targets; store the mean weight rows if the hidden states need a gradient."""
        with_gradient = ctx.needs_input_grad[0]
        highest = torch.full((len(hidden), 1), -torch.inf, device=hidden.device)
        total = torch.zeros(len(hidden), 1, device=hidden.device)
        mean = torch.zeros(hidden.shape, device=hidden.device)
        for start in range(0, len(weight), VOCABULARY_SLICE):
            part = weight[start : start + VOCABULARY_SLICE]
            shift = None if bias is None else bias[start : start + VOCABULARY_SLICE]
            logits = linear(hidden, part, shift).float()
            higher = torch.maximum(highest, logits.amax(dim=1, keepdim=True))
            shrink, shares = torch.exp(highest - higher), logits.sub_(higher).exp_()
            total = total.mul_(shrink).add_(shares.sum(dim=1, keepdim=True))
            if with_gradient:
                mean = mean.mul_(shrink).add_(linear(shares.to(part.dtype), part.t()))
            highest = higher
        target_weights = weight[targets]
        target_logits = (hidden[rows].float() * target_weights.float()).sum(dim=1)
        if bias is not None:
            target_logits = target_logits + bias[targets].float()
        if with_gradient:
            ctx.save_for_backward(mean / total, target_weights, rows)
            ctx.dtype = hidden.dtype
        return target_logits - (highest + total.log())[rows, 0]

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient at the hidden states [positions, hidden_size], None for the other inputs."""
        mean, target_weights, rows = ctx.saved_tensors
        sums = torch.zeros(len(mean), 1, device=mean.device).index_add(0, rows, gradient[:, None])
        back = (-sums * mean).index_add(0, rows, gradient[:, None] * target_weights.float())
        return back.to(ctx.dtype), None, None, None, None
