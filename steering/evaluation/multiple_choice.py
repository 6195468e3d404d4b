"""Utility: what steering costs in knowledge, by multiple-choice questions of ten fields.

An answer counts as right if its log-probability, divided by its number of tokens, is the highest of the four (as the
`acc_norm` of lm-evaluation-harness, there by characters). The questions are ours; see `assets/evaluation/utility.csv`.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from steering import paths
from steering.evaluation.preference import additions_at, preference_logps
from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs, PreferencePair
from steering.pairs.tokenization import EncodedPair, encode_pairs
from steering.scoring.scorer import PairScorer
from steering.vectors.vector import SteeringVector


@dataclass(frozen=True)
class Question:
    """A multiple-choice question: its field, what is asked, the right answer and three wrong ones."""

    field: str
    prompt: str
    right: str
    wrong: tuple[str, str, str]


def questions() -> list[Question]:
    """Read the shipped questions."""
    with (paths.shipped("assets") / "evaluation" / "utility.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        Question(row["field"], row["question"], row["right"], (row["wrong_1"], row["wrong_2"], row["wrong_3"]))
        for row in rows
    ]


def utility(
    model: LanguageModel, vector: SteeringVector, multipliers: Sequence[float], asked: Sequence[Question] | None = None
) -> list[float]:
    """Return the share of questions answered right at each multiplier, see `utility_steps`."""
    found = dict(utility_steps(model, vector, multipliers, asked))
    return [found[float(m)] for m in multipliers]


def utility_steps(
    model: LanguageModel, vector: SteeringVector, multipliers: Sequence[float], asked: Sequence[Question] | None = None
) -> Iterator[tuple[float, float]]:
    """Yield (multiplier, share of questions answered right), one multiplier after another.

    Each wrong answer makes a pair with the right one; a question is right if all three of its margins are positive.
    """
    asked = questions() if asked is None else asked
    pairs = Pairs.of(PreferencePair(each.prompt, each.right, wrong) for each in asked for wrong in each.wrong)
    readable, encoded = encode_pairs(model, pairs)
    if len(readable) != 3 * len(asked):
        raise ValueError("every question must fit into the model's context")
    scorer = PairScorer(model, encoded, min(vector.layers), scope=vector.token_scope)
    additions = additions_at(model, vector, multipliers)
    lengths = torch.tensor([_lengths(pair) for pair in encoded], device=model.device)
    for multiplier, addition in additions.items():
        logps = preference_logps(scorer, [addition])[1]
        margins = logps[..., 0] / lengths[:, 0] - logps[..., 1] / lengths[:, 1]
        yield multiplier, float((margins.view(len(asked), 3) > 0).all(dim=-1).double().mean())


def _lengths(pair: EncodedPair) -> tuple[int, int]:
    return len(pair.chosen), len(pair.rejected)
