"""`steering generate`: one prompt, answered under several settings side by side."""

import argparse
import time
from dataclasses import fields
from typing import TYPE_CHECKING

from steering.cli.options import model_options, multiplier
from steering.errors import SteeringError

if TYPE_CHECKING:
    from steering.vectors.library import Library
    from steering.vectors.vector import SteeringVector


def add_options(generate: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    generate.add_argument("--prompt", required=True, metavar="TEXT")
    generate.add_argument("--system", metavar="TEXT", help="system prompt (default: the one vectors are trained with)")
    generate.add_argument(
        "--column",
        action="append",
        metavar="SETTING",
        help='one answer, such as "cheerful=1.5,formal=-1"; "" is the untouched model; repeat for more',
    )
    generate.add_argument("--max-new-tokens", type=int, default=128, metavar="N", help="default: 128")
    generate.add_argument("--temperature", type=float, default=0.0, metavar="T", help="default: 0, which is greedy")
    generate.add_argument("--top-p", type=float, default=1.0, metavar="P", help="draw from the likeliest, P in all")
    generate.add_argument("--top-k", type=int, default=0, metavar="K", help="draw from the K likeliest; 0 is all")
    generate.add_argument(
        "--repetition-penalty", type=float, default=1.0, metavar="R", help="above 1, what was written is less likely"
    )
    generate.add_argument("--seed", type=int, default=0, metavar="S", help="of all chance (default: 0)")
    generate.add_argument(
        "--weights", choices=("full", "float16"), default="full", help="float16 is faster on a CPU (default: full)"
    )


def run(options: argparse.Namespace) -> tuple[dict[str, object], str]:
    """Load the model and answer."""
    from steering.generation.sampling import Sampling
    from steering.generation.stream import generate
    from steering.models.chat_template import DEFAULT_SYSTEM_PROMPT
    from steering.models.loading import load_model
    from steering.vectors.library import Library

    library = Library()
    columns = [read_setting(library, text) for text in (options.column or [""])]
    sampling = Sampling(**{field.name: getattr(options, field.name) for field in fields(Sampling)})
    sampling.check()  # before the model takes its time
    model = load_model(**model_options(options))
    system = DEFAULT_SYSTEM_PROMPT if options.system is None else options.system
    began = time.perf_counter()
    answers = generate(model, options.prompt, columns, system=system, sampling=sampling, weights=options.weights)
    seconds = time.perf_counter() - began
    answer = {
        "prompt": options.prompt,
        "columns": [
            {"setting": {vector.name: m for vector, m in c.setting.items()}, "text": c.text, "tokens": c.tokens}
            for c in answers
        ],
        "seconds": seconds,
        "tokens_per_second": sum(column.tokens for column in answers) / seconds,
    }
    return answer, "\n\n".join(f"[{column.title}]\n{column.text}" for column in answers)


def read_setting(library: "Library", text: str) -> "dict[SteeringVector, float]":
    """Read `NAME_OR_FILE=1.5,OTHER=-1` as vectors and multipliers; the empty text is the empty setting."""
    setting: dict[SteeringVector, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, number = part.rpartition("=")
        if not equals:
            raise SteeringError(f"--column {text!r}: {part!r} names no multiplier; write it as NAME=1.5.")
        vector = library.get(name.strip())
        setting[vector] = setting.get(vector, 0.0) + multiplier(number, "--column")
    return setting
