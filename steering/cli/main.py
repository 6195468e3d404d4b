"""The `steering` command. Thin: reads arguments, calls the library, prints.

With --json one JSON object goes to stdout and nothing else; everything for people goes to stderr. The exit status is 0
on success and 2 for bad usage or bad input, said in one line on stderr.
"""

import argparse
import contextlib
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from steering import __version__
from steering.cli import train as cli_train
from steering.cli.output import Bar, add_model_options, column_map, model_options, results_table, say
from steering.errors import SteeringError
from steering.runtime.cpu_environment import configure_cpu


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Like any argparse program, --help and --version end in SystemExit."""
    configure_cpu()
    if not sys.warnoptions:  # what libraries warn programmers of; `python -W default` shows it
        warnings.simplefilter("ignore")
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a stand-in for a real stream
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows no emoji still gets the rest
    try:
        options = _parser().parse_args(arguments)
        with contextlib.redirect_stdout(sys.stderr if options.json else sys.stdout):  # whatever a library may print
            done = options.run(options)
        if done is None:  # one of several processes, and not the one that prints
            return 0
        answer, text = done
        if options.json:
            text = json.dumps(_sound(answer), allow_nan=False)
        if text:
            print(text, flush=True)
        return 0
    except SteeringError as error:
        return _fail(str(error))
    except BrokenPipeError:  # the reader of a pipe went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _fail("Interrupted.", status=130)


def _fail(message: str, status: int = 2) -> int:
    line = " ".join("".join(c if c.isprintable() else " " for c in message).split())
    print(f"steering: {line}", file=sys.stderr)
    return status


def _sound(answer: dict[str, Any]) -> dict[str, Any]:
    """The same with null for what JSON has no number for."""
    return json.loads(json.dumps(answer), parse_constant=lambda word: None)


class _Parser(argparse.ArgumentParser):
    """Argument errors in one line, like every other error."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)  # a script must not break when an option is added
        # As Python 3.13 has it: `--multipliers -1,0,1` is an option and its value, with no need for `=`.
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def error(self, message: str) -> NoReturn:
        raise SteeringError(f"{message} (see `{self.prog} --help`)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="steering", description="Train, apply and measure steering vectors for language models.")
    parser.add_argument("--version", action="version", version=f"steering {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Callable, help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        add_model_options(sub)
        sub.add_argument("--json", action="store_true", help="print one JSON object on stdout")
        sub.set_defaults(run=run)
        return sub

    play = command("play", _play, "open the playground in a browser")
    play.add_argument("--port", type=_port, metavar="P", help="default: the first free one from 7860")
    play.add_argument("--share", action="store_true", help="also make a public link through gradio's relay")

    cli_train.add_options(command("train", cli_train.run, "train a steering vector on preference pairs"))

    generate = command("generate", _generate, "answer one prompt under several settings side by side")
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

    evaluate = command("evaluate", _evaluate, "measure a vector on preference pairs")
    evaluate.add_argument("vector", metavar="VECTOR", help="name on the shelf, or a file")
    evaluate.add_argument("pairs", metavar="PAIRS", help="CSV, TSV, JSON, JSONL or Parquet file")
    evaluate.add_argument("--multipliers", metavar="LIST", default="-2,-1,0,1,2", help="default: -2,-1,0,1,2")
    evaluate.add_argument("--columns", metavar="MAP", help="column names: prompt=A,chosen=B,rejected=C")

    command("list", _list, "list the vectors on the shelf")
    show = command("show", _show, "tell everything about a vector")
    show.add_argument("vector", metavar="VECTOR", help="name on the shelf, or a file")

    import_ = command("import", _import, "copy a vector file onto the shelf")
    import_.add_argument("file", metavar="FILE", help=".safetensors of ours, or BiPO's .pt")
    import_.add_argument("--layer", type=int, metavar="K", help="for .pt files whose name does not say it")
    import_.add_argument("--name", metavar="N", help="default: the name in the file, or the file's name")

    export = command("export", _export, "write a vector to a file")
    export.add_argument("vector", metavar="VECTOR", help="name on the shelf, or a file")
    export.add_argument("--format", default="safetensors", metavar="F", help="default: safetensors")
    export.add_argument("--output", required=True, metavar="PATH")
    return parser


def _play(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from steering.interface import launch
    from steering.models.loading import load_model

    try:
        launch(load_model(**model_options(options)), port=options.port, share=options.share)
    except OSError as error:  # gradio's word for a port that is taken
        raise SteeringError(f"The playground cannot be opened: {error}; give a free one with --port.") from error
    return {}, ""


def _generate(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    import time

    from steering.generation.stream import generate
    from steering.models.chat_template import DEFAULT_SYSTEM_PROMPT
    from steering.models.loading import load_model
    from steering.vectors.library import Library

    library = Library()
    columns = [_setting(library, text) for text in (options.column or [""])]
    sampling = _sampling(options)
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


def _evaluate(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from steering.evaluation import evaluate
    from steering.models.loading import load_model
    from steering.pairs.dataset import read_pairs
    from steering.vectors.library import Library

    multipliers = [_multiplier(text, "--multipliers") for text in options.multipliers.split(",")]
    vector = Library().get(options.vector)
    pairs = read_pairs(options.pairs, columns=column_map(options.columns))
    model = load_model(**model_options(options))
    vector.check_fits(model.hidden_size, model.num_layers, model.name)
    say(pairs.report.summary())
    with Bar("measuring", "batch") as bar:
        results = [result.as_dict() for result in evaluate(model, vector, pairs, multipliers, on_progress=bar.show)]
    return {"vector": options.vector, "pairs": len(pairs), "results": results}, results_table(results)


def _list(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from steering.vectors.library import Library

    library = Library()
    entries = library.entries()
    for problem in library.problems:
        say(problem)
    answer = {
        "vectors": [
            {
                "name": e.vector.name,
                "slug": e.slug,
                "path": str(e.path),
                "shipped": e.shipped,
                "behavior": e.vector.behavior,
                "model": e.vector.model_id,
                "layers": list(e.vector.layers),
                "norm": e.vector.norm,
            }
            for e in entries
        ]
    }
    width = max((len(e.slug) for e in entries), default=0)
    return answer, "\n".join(f"{e.slug:{width}}  {e.vector.behavior}".rstrip() for e in entries)


def _show(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from steering.vectors.library import Library

    vector = Library().get(options.vector)
    answer = {**vector.metadata(), "layers": list(vector.layers), "norm": vector.norm}
    shown = answer | {"metrics": {key: value for key, value in answer["metrics"].items() if key != "curve"}}
    lines = [f"{key}: {_plain_words(value)}" for key, value in shown.items() if value not in ("", {}, [])]
    return answer, "\n".join(lines)


def _import(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from steering.vectors.formats import read_any
    from steering.vectors.library import Library

    vector = read_any(Path(options.file), layer=options.layer, name=options.name)
    entry = Library().add(vector)
    answer = {"name": entry.vector.name, "slug": entry.slug, "path": str(entry.path)}
    return answer, f"{options.file} is on the shelf as {entry.slug}."


def _export(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from steering.vectors.formats import write
    from steering.vectors.library import Library

    path = write(Library().get(options.vector), Path(options.output), options.format)
    return {"path": str(path), "format": options.format}, f"Wrote {path}."


def _sampling(options: argparse.Namespace) -> Any:
    from steering.generation.sampling import Sampling

    return Sampling(**{field.name: getattr(options, field.name) for field in fields(Sampling)})


def _setting(library: Any, text: str) -> dict[Any, float]:
    """`NAME_OR_FILE=1.5,OTHER=-1` as vectors and multipliers; the empty text is the empty setting."""
    setting: dict[Any, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, number = part.rpartition("=")
        if not equals:
            raise SteeringError(f"--column {text!r}: {part!r} names no multiplier; write it as NAME=1.5.")
        vector = library.get(name.strip())
        setting[vector] = setting.get(vector, 0.0) + _multiplier(number, "--column")
    return setting


def _multiplier(text: str, option: str) -> float:
    from steering.vectors.vector import check_multiplier

    try:
        return check_multiplier(text.strip() or "''")
    except SteeringError as error:
        raise SteeringError(f"{option}: {error}") from error


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; give a number from 1 to 65535")
    return int(text)


def _plain_words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
