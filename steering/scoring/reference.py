"""The reference way of scoring: the model's own forward pass on padded batches, whole logits, cross entropy.

Nothing of `scoring.fast` is used here: what the fast way gives is compared with this, and this takes its place where it
differs or fails.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from steering.intervention.additions import Additions
from steering.intervention.hooks import steered
from steering.models.loading import LanguageModel
from steering.models.probe import vocabulary_size
from steering.pairs.tokenization import EncodedPair

LOGITS_BYTES = 256 * 1024**2
"""Of float32 logits that exist at a time on one thread: four pairs of 170 tokens with the bundled model (vocabulary
49,152). One pair is always run whole, however long it is."""


def logits_bytes(model: LanguageModel, pairs: Sequence[EncodedPair]) -> int:
    """Return the size of the float32 logits of a padded batch: two rows a pair, each as long as the longest."""
    return 4 * 2 * len(pairs) * max(map(len, pairs)) * vocabulary_size(model.network)


class ReferenceScorer:
    """Scores preference pairs by index through the model itself. Several threads may use it at once.

    Args:
        model: the model; it is not changed.
        pairs: what will be scored.
        scope: the steered positions, `all` or `answer`.
    """

    problem = ""

    def __init__(self, model: LanguageModel, pairs: Sequence[EncodedPair], scope: str) -> None:
        self._model, self._pairs, self._scope = model, pairs, scope

    def cost(self, index: int) -> int:
        """Return how many tokens are run for a pair, without padding."""
        pair = self._pairs[index]
        return 2 * len(pair.prompt) + len(pair.chosen) + len(pair.rejected)

    def chunks(self, indices: Sequence[int]) -> list[list[int]]:
        """Split indices into batches whose logits are within `LOGITS_BYTES`, or of a single pair."""
        chunks: list[list[int]] = []
        for index in indices:
            last = chunks[-1] if chunks else []
            if last and logits_bytes(self._model, [self._pairs[i] for i in (*last, index)]) <= LOGITS_BYTES:
                last.append(index)
            else:
                chunks.append([index])
        return chunks

    @torch.no_grad()
    def untouched_logps(self, indices: Sequence[int]) -> Tensor:
        """Run the model untouched. Returns float32 [n, 2]."""
        return torch.cat([self.steered_logps(chunk, {}) for chunk in self.chunks(indices)])

    def steered_logps(self, indices: Sequence[int], additions: Additions) -> Tensor:
        """Run the model with `additions`, layer -> [hidden_size], chosen and rejected as rows of one padded batch.

        Returns float32 [n, 2]: log p of the answer summed over its tokens. Differentiable in the additions.
        """
        device = self._model.device
        pairs = [self._pairs[i] for i in indices]
        rows = [(pair.prompt, answer) for pair in pairs for answer in (pair.chosen, pair.rejected)]
        tokens = torch.zeros(len(rows), max(map(len, pairs)), dtype=torch.long)
        attention_mask, predicting = torch.zeros_like(tokens), torch.zeros_like(tokens, dtype=torch.bool)
        for row, (prompt, answer) in enumerate(rows):
            length = len(prompt) + len(answer)
            tokens[row, :length] = torch.tensor(prompt + answer)
            attention_mask[row, :length] = 1
            predicting[row, len(prompt) - 1 : length - 1] = True
        if self._scope == "answer":  # only at positions that predict an answer token
            additions = {layer: predicting[..., None].to(v) * v for layer, v in additions.items()}
        with steered(self._model.blocks, additions):
            logits = self._model.network(
                input_ids=tokens.to(device), attention_mask=attention_mask.to(device), use_cache=False
            ).logits
        targets = torch.tensor([token for _, answer in rows for token in answer], device=logits.device)
        token_logps = -F.cross_entropy(logits[predicting.to(logits.device)].float(), targets, reduction="none")
        lengths = [len(answer) for _, answer in rows]
        return torch.stack([part.sum() for part in token_logps.split(lengths)]).view(-1, 2)
