"""`steering evaluate`: what a vector does to preference pairs."""

import argparse
from typing import Any

from steering.cli.options import add_columns, add_vector, column_map, model_options, multiplier
from steering.cli.output import Bar, results_table, say


def add_options(evaluate: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    add_vector(evaluate)
    evaluate.add_argument("pairs", metavar="PAIRS", help="file, folder or Hub data set")
    evaluate.add_argument("--multipliers", metavar="LIST", default="-2,-1,0,1,2", help="default: -2,-1,0,1,2")
    add_columns(evaluate)


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Measure the vector on all pairs of the file."""
    from steering.evaluation import evaluate
    from steering.models.loading import load_model
    from steering.pairs.dataset import read_pairs
    from steering.pairs.tokenization import readable_pairs
    from steering.vectors.library import Library

    multipliers = [multiplier(text, "--multipliers") for text in options.multipliers.split(",")]
    vector = Library().get(options.vector)
    pairs = read_pairs(options.pairs, columns=column_map(options.columns), max_pairs=options.max_pairs)
    model = load_model(**model_options(options))
    vector.check_fits(model.hidden_size, model.num_layers, model.name)
    pairs = readable_pairs(model, pairs)
    say("\n".join(pairs.report.sentences()))
    with Bar("measuring", "batch") as bar:
        results = [result.as_dict() for result in evaluate(model, vector, pairs, multipliers, on_progress=bar.show)]
    return {"vector": options.vector, "pairs": len(pairs), "results": results}, results_table(results)
