"""CAA: contrastive activation addition, the mean difference of activations.

Rimsky et al., "Steering Llama 2 via Contrastive Activation Addition", arXiv 2312.06681:

    v_k = mean over pairs of [h_k(prompt, chosen) - h_k(prompt, rejected)]

with h_k the output of decoder block k. Nothing is optimised: each answer is run once, up
to the last of the layers.

In the paper each pair is a multiple-choice question, its answers are the letters "(A)" and "(B)", and h_k is taken at
the letter: `position="letter"` makes such questions of the pairs, the letters drawn by lot. By default the answers
stay free text and h_k is the mean over the answer's tokens, or that of its last one, end of turn left out. The vector
is not normalised: multiplier 1 adds the raw mean difference, where the paper's later code scales all behaviors to one
norm. As in the paper it is added at the positions after the prompt.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from steering.training.config import setting
from steering.training.extraction_config import ACTIVATIONS_GROUP, ExtractionConfig
from steering.training.extraction_method import extraction_method

if TYPE_CHECKING:
    from torch import Tensor

    from steering.pairs.dataset import Pairs, PreferencePair

LETTERS = ("(A)", "(B)")
QUESTION = "{prompt}\n\nChoices:\n{first} {text_of_first}\n{second} {text_of_second}\n\nAnswer with the letter only."


class CAAConfig(ExtractionConfig):
    """Settings of a run. Several layers get their mean differences all at once."""

    position: Literal["mean", "last", "letter"] = setting(  # type: ignore[assignment]
        "mean",
        label="Activations of",
        help="what stands for an answer: the mean over its tokens, its last token, or the letter that chooses it",
        group=ACTIVATIONS_GROUP,
        choice_labels={
            "mean": "all of the answer, averaged",
            "last": "the answer's last token",
            "letter": "the letter of an A/B question, as in the paper",
        },
    )


def mean_difference(chosen: "Tensor", rejected: "Tensor", config: object = None) -> "Tensor":
    """Mean over pairs of chosen minus rejected: both [pairs, hidden_size], the result [hidden_size]."""
    return (chosen - rejected).mean(dim=0)


def letter_questions(pairs: "Pairs", config: CAAConfig) -> "Sequence[PreferencePair]":
    """Make of each pair a question with both answers to choose from, and of its answers the two letters.

    Which answer is (A) is drawn by lot, so that the letters themselves cancel out. At another `position` the pairs are
    returned as they are.
    """
    if config.position != "letter":
        return pairs
    drawn = random.Random(config.seed)
    questions = []
    for pair in pairs:
        letters = LETTERS if drawn.random() < 0.5 else LETTERS[::-1]  # of chosen and rejected
        texts = dict(zip(letters, (pair.chosen, pair.rejected), strict=True))
        first, second = LETTERS
        prompt = QUESTION.format(
            prompt=pair.prompt, first=first, second=second, text_of_first=texts[first], text_of_second=texts[second]
        )
        questions.append(replace(pair, prompt=prompt, chosen=letters[0], rejected=letters[1]))
    return questions


METHOD = extraction_method(
    "caa",
    label="CAA: mean difference",
    description="Takes the difference between what the model computes for chosen and for rejected answers, on average. "
    "Nothing is optimised, so it takes seconds.",
    fit=mean_difference,
    config_class=CAAConfig,
    prepare=letter_questions,
)
