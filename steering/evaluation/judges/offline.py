"""The offline judge: a classifier on what the untouched model makes of a text, fitted on the pairs' own answers.

Features are the mean hidden states at the middle layer (see `evaluation.reading`), the classifier is scikit-learn's
logistic regression. It needs no network and no second model, and works for any behavior that pairs show.

Measured on the bundled model and six behaviors (see `tests/benchmarks/judges.py`): 0.98 of the answers to prompts
that it
was not fitted on are put on the right side (words, TF-IDF: 0.93; sentence embeddings, all-MiniLM-L6-v2: 0.92), and 80
of 86 generated answers that a person could place by hand (72; 78).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from steering.errors import SteeringError
from steering.evaluation.judges.judge import (
    LEAST_ACCURACY,
    JudgeCard,
    JudgeContext,
    JudgeKind,
    JudgeRefused,
    Verdict,
)
from steering.evaluation.reading import read_texts

if TYPE_CHECKING:
    from steering.evaluation.reading import Readings
    from steering.models.loading import LanguageModel

MOST_PAIRS = 64
"""Pairs that it is fitted on; reading them takes 4 to 5 seconds on two cores with the bundled model."""
FEWEST_PAIRS = 10
"""Below that its accuracy could not be told from a coin's: 15 of 20 right happen by chance in 1 of 50 cases."""
FOLDS = 5
INVERSE_PENALTY = 0.01
"""scikit-learn's `C`, on standardised features. From 0.001 to 0.1 accuracies differed by 0.01."""
LENGTH_CUE, LENGTH_LEAN = 0.7, 0.5
"""Accuracy that length alone must have, and rank correlation of scores with length among answers of one side that must
be there, for a note that the judge may lean on length."""


class OfflineJudge:
    """A fitted judge.

    Args:
        model: whose hidden states it looks at.
        classifier: fitted on features [texts, hidden_size]; `card`: how well it does.
    """

    def __init__(self, model: "LanguageModel", classifier: Pipeline, card: JudgeCard) -> None:
        self._model, self._classifier, self._card = model, classifier, card

    @property
    def card(self) -> JudgeCard:
        """Its name and held-out accuracy."""
        return self._card

    def verdicts(
        self,
        prompts: Sequence[str],
        texts: Sequence[str],
        readings: "Readings",
        should_stop: Callable[[], bool] = lambda: False,
    ) -> list[Verdict]:
        """Return the probability that each text is on the side of the chosen answers; an empty text has none."""
        chances = self._classifier.predict_proba(readings.features)[:, 1]
        return [
            Verdict(float(chance)) if text.strip() else Verdict(None, problem="the answer is empty")
            for chance, text in zip(chances, texts, strict=True)
        ]


def make(context: JudgeContext) -> OfflineJudge:
    """Fit a judge on the pairs' answers and measure it on prompts that it was not fitted on.

    Raises JudgeRefused for too few pairs, or an accuracy below `LEAST_ACCURACY`; SteeringError if stopped.
    """
    pairs = context.pairs[:MOST_PAIRS]
    if len(pairs) < FEWEST_PAIRS:
        raise JudgeRefused(
            f"The offline judge learns from the pairs, and {len(pairs)} are too few; bring {FEWEST_PAIRS} or more."
        )
    texts = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    readings = read_texts(context.model, texts, max_tokens=context.max_tokens, should_stop=context.should_stop)
    if readings is None:
        raise SteeringError("The judge was stopped before it had read the pairs.")
    labels = np.repeat([1, 0], len(pairs))
    prompts = [pair.prompt for pair in pairs]
    folds = min(FOLDS, len(set(prompts)))
    if folds < 2:
        raise JudgeRefused("All pairs have one prompt, so the judge cannot be tried on another; bring other prompts.")
    options = {"groups": prompts * 2, "cv": GroupKFold(folds), "method": "predict_proba"}
    chances = cross_val_predict(_classifier(), readings.features, labels, **options)[:, 1]
    accuracy = float(((chances > 0.5) == labels).mean())
    if accuracy < LEAST_ACCURACY:
        raise JudgeRefused(
            f"The offline judge tells only {accuracy:.0%} of the answers apart that it was not fitted on, too few to "
            f"trust it ({LEAST_ACCURACY:.0%} are asked for); bring more or clearer pairs, or another judge."
        )
    lengths = np.log1p([[len(text.split())] for text in texts])
    by_length = cross_val_predict(LogisticRegression(), lengths, labels, **options)[:, 1]
    notes = _length_note(chances, lengths[:, 0], labels, float(((by_length > 0.5) == labels).mean()))
    classifier = _classifier().fit(readings.features, labels)
    return OfflineJudge(context.model, classifier, JudgeCard("offline", accuracy, len(texts), notes))


def _classifier() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=INVERSE_PENALTY, max_iter=2000))


def _length_note(chances: np.ndarray, lengths: np.ndarray, labels: np.ndarray, by_length: float) -> tuple[str, ...]:
    """Say if length tells the sides apart, and whether the judge follows it where the side is the same."""
    if by_length < LENGTH_CUE:
        return ()
    leans = [spearmanr(chances[labels == side], lengths[labels == side]).statistic for side in (0, 1)]
    lean = float(np.nanmean(np.abs(leans)))
    said = f"Length alone tells {by_length:.0%} of the pairs' answers apart"
    if lean >= LENGTH_LEAN:
        return (f"{said}, and this judge follows it (rank correlation {lean:.2f} among answers of one side).",)
    return (f"{said}; this judge hardly follows it (rank correlation {lean:.2f} among answers of one side).",)


JUDGE = JudgeKind(
    name="offline",
    label="Offline judge",
    description="Learns from the pairs' own answers what the behavior reads like. Needs no network.",
    make=make,
)
