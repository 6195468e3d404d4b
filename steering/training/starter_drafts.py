"""Drafts of the shipped behaviors: mean differences of the example sets, made for any model within seconds each."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from steering import paths
from steering.errors import SteeringError
from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs, read_pairs
from steering.pairs.tokenization import encode_pairs
from steering.training.activations import answer_activations
from steering.training.config import LATE, steered_layers
from steering.training.methods.caa import mean_difference
from steering.training.provenance import trained_vector
from steering.vectors.vector import SUFFIX, SteeringVector

DRAFT_DOSE = 0.75
"""Norm of a draft as a share of the mean norm of one pair's difference (chosen minus rejected) at its layer.

Measured with 24 pairs each of power-seeking, cheerful, poetic and pirate on SmolLM2-135M-Instruct, Gemma-3-270m and
Qwen2.5-Coder-0.5B-Instruct: the text turns clearly and stays sound from 0.7 to 1.1 and breaks down beyond 1.4, in all
three models. A share of the residual norm does not carry over: the same doses are 6 % of it in Gemma and 35 % in Qwen.
"""
DRAFT_PAIRS = 24
"""Most pairs of a draft. The directions from 12 pairs and 12 others have a cosine of 0.85 to 0.98 (of
power-seeking 0.5 to 0.7) in those models, so more would change little."""
DRAFT_SECONDS = 5.0
"""After which a draft makes do with the pairs so far, at least `FEWEST_DRAFT_PAIRS`."""
FEWEST_DRAFT_PAIRS = 8
LONGEST_MODEL_NAME = 40
"""Characters of the model's name in a vector's name, which has room for 80."""
METADATA_KEY = "starter"
"""In a vector file: {"behavior": stem of the example set, "stage": `draft` or `trained`}."""


@dataclass(frozen=True)
class Starter:
    """One shipped behavior.

    Attributes:
        key: stem of its example set, such as `power-seeking`.
        behavior, description: texts of its vector.
    """

    key: str
    behavior: str
    description: str = ""

    @property
    def pairs_file(self) -> Path:
        """The example set's file."""
        return paths.shipped("assets") / "examples" / f"{self.key}.csv"


def starters() -> list[Starter]:
    """List the shipped behaviors: every example set, with the texts of the shipped vector of its name."""
    made = []
    for path in sorted((paths.shipped("assets") / "examples").glob("*.csv")):
        file = paths.shipped("vectors") / f"{path.stem}{SUFFIX}"
        try:
            vector = SteeringVector.load(file)
            made.append(Starter(path.stem, vector.behavior, vector.description))
        except SteeringError:  # not every example set has a vector
            made.append(Starter(path.stem, path.stem.replace("-", " ")))
    return made


def starter_of(vector: SteeringVector) -> tuple[str, str]:
    """Return (key, stage) of a vector that `make_starters` made, else two empty texts."""
    noted = vector.extra.get(METADATA_KEY)
    if not isinstance(noted, dict):  # also a stranger's file with something else under the key
        return "", ""
    return str(noted.get("behavior", "")), str(noted.get("stage", ""))


def draft_vector(
    model: LanguageModel, starter: Starter, should_stop: Callable[[], bool] = lambda: False
) -> SteeringVector | None:
    """Make the mean-difference draft of one behavior at a late layer, scaled to `DRAFT_DOSE`; None if stopped.

    Raises SteeringError for pairs of which the model can read none.
    """
    layer = steered_layers(model, LATE)[0]
    pairs, encoded = encode_pairs(model, read_pairs(starter.pairs_file)[:DRAFT_PAIRS])
    began = time.monotonic()
    chosen, rejected = [], []
    for batch in answer_activations(model, encoded, [layer]):
        if should_stop():
            return None
        chosen.append(batch.chosen[layer])
        rejected.append(batch.rejected[layer])
        read = sum(map(len, chosen))
        if read >= FEWEST_DRAFT_PAIRS and time.monotonic() - began > DRAFT_SECONDS:
            break
    toward, away = torch.cat(chosen), torch.cat(rejected)  # each [pairs, hidden_size]
    direction = mean_difference(toward, away)
    pair_norm = float((toward - away).norm(dim=-1).mean())
    scale = DRAFT_DOSE * pair_norm / max(float(direction.norm()), 1e-12)
    residual = float(torch.cat([toward, away]).norm(dim=-1).median())
    method = {"name": "caa", "layer": layer, "position": "mean", "token_scope": "all"}
    figures = {"scale": scale, "pair_norm": pair_norm, "residual_norm": residual}
    return trained_vector(
        {layer: direction * scale},
        model,
        pairs[: len(toward)],
        Pairs.of([]),
        method | figures,
        **vector_texts(model, starter, "draft"),
    )


def vector_texts(model: LanguageModel, starter: Starter, stage: str) -> dict[str, Any]:
    """Return name, behavior, description and the note under `METADATA_KEY` of a vector at this stage."""
    draft = stage == "draft"
    return {
        "name": f"{starter.key} ({model.name[:LONGEST_MODEL_NAME]})",
        "behavior": f"draft: {starter.behavior}" if draft else starter.behavior,
        "description": f"Draft by mean difference. {starter.description}".strip() if draft else starter.description,
        "token_scope": "all",
        "extra": {METADATA_KEY: {"behavior": starter.key, "stage": stage}},
    }
