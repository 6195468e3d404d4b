"""Our extraction methods beside those of steering-vectors and repeng, on the same texts: how far apart the vectors are.

    pip install --no-deps --target ../peers repeng steering-vectors
    PYTHONPATH=.:../peers python -m tests.benchmarks.peer_vectors [--pairs 24] [--layer 14]

Each peer tokenises and runs the conversations itself and takes the hidden state of the last token. Only pairs whose
text it tokenises as we do are compared. Printed is |ours - theirs| / |theirs|, for directions of norm 1 after both
were scaled to it.
"""

import argparse

import numpy as np
import torch
from steering_vectors import train_steering_vector
from steering_vectors.aggregators import logistic_aggregator, mean_aggregator, pca_aggregator

from steering import load_model, paths, read_pairs, train
from steering.pairs.dataset import Pairs
from steering.pairs.tokenization import encode

if not hasattr(np, "float_"):
    np.float_ = np.float64  # repeng 0.4 asks for this name, which NumPy 2 has dropped
from repeng import DatasetEntry  # noqa: E402
from repeng.extract import read_representations  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--layer", type=int, default=14)
    options = parser.parse_args()
    model = load_model()
    tokenizer, layer = model.tokenizer, options.layer
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    kept, texts = [], []
    for pair in read_pairs(paths.shipped("assets") / "examples" / "power-seeking.csv"):
        encoded = encode(model, pair)
        sides = [encoded.prompt + answer[:-1] for answer in (encoded.chosen, encoded.rejected)]
        both = tuple(tokenizer.decode(ids) for ids in sides)
        if [tuple(tokenizer(text).input_ids) for text in both] == sides and len(kept) < options.pairs:
            kept.append(pair)
            texts.append(both)
    pairs, nothing = Pairs.of(kept), Pairs.of([])
    print(f"{model.name}, layer {layer}, {len(pairs)} pairs")

    def ours(method: str, **settings: object) -> torch.Tensor:
        vector = train(model, pairs, method, held_out=nothing, layer=layer, position="last", **settings)
        return vector.directions[layer]

    def steering_vectors(aggregator: object) -> torch.Tensor:
        trained = train_steering_vector(
            model.network, tokenizer, texts, layers=[layer], aggregator=aggregator, batch_size=1
        )
        return trained.layer_activations[layer].float()

    def repeng(method: str) -> torch.Tensor:
        entries = [DatasetEntry(positive=chosen, negative=rejected) for chosen, rejected in texts]
        found = read_representations(model.network, tokenizer, entries, [layer], batch_size=1, method=method)
        return torch.from_numpy(found[layer])

    rows = (
        ("caa", "steering-vectors, mean", ours("caa"), steering_vectors(mean_aggregator()), False),
        ("pca", "steering-vectors, pca", ours("pca"), steering_vectors(pca_aggregator()), True),
        ("pca", "repeng, pca_center", ours("pca"), repeng("pca_center"), True),
        ("pca, differences", "repeng, pca_diff", ours("pca", of="differences"), repeng("pca_diff"), True),
        ("probe", "steering-vectors, logistic", ours("probe"), steering_vectors(logistic_aggregator()), True),
    )
    for method, peer, mine, theirs, unit in rows:
        if unit:
            mine, theirs = mine / mine.norm(), theirs / theirs.norm()
        print(f"{method:18} {peer:28} {float((mine - theirs).norm() / theirs.norm()):.1e}")


if __name__ == "__main__":
    main()
