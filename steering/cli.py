"""The `steering` command. Thin: reads arguments, calls the library, prints.

With --json one JSON object goes to stdout and nothing else; everything for people goes to stderr. The exit status is 0
on success and 2 for bad usage or bad input, said in one line on stderr.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

from steering.errors import SteeringError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    try:
        options = _parser().parse_args(arguments)
        answer, text = options.run(options)
        if options.json:
            print(json.dumps(answer, ensure_ascii=False))
        elif text:
            print(text)
        return 0
    except SteeringError as error:
        return _fail(str(error))
    except BrokenPipeError:  # the reader of a pipe went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _fail("Interrupted.", status=130)


def _fail(message: str, status: int = 2) -> int:
    print("steering: " + " ".join(message.split()), file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    """Argument errors in one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        raise SteeringError(f"{message} (see `{self.prog} --help`)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="steering", description="Train, apply and measure steering vectors for language models.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Callable, help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        sub.add_argument("--model", metavar="M", help="Hub id or local folder (default: the bundled SmolLM2-135M-Instruct)")
        sub.add_argument("--json", action="store_true", help="print one JSON object on stdout")
        sub.set_defaults(run=run)
        return sub

    play = command("play", _play, "open the playground in a browser")
    play.add_argument("--port", type=int, metavar="P", help="default: the first free one from 7860")
    play.add_argument("--share", action="store_true", help="also make a public link through gradio's relay")

    train = command("train", _train, "train a steering vector on preference pairs")
    train.add_argument("pairs", metavar="PAIRS", help="CSV, TSV, JSON, JSONL or Parquet file")
    train.add_argument("--output", required=True, metavar="FILE", help="where the vector goes (.safetensors)")
    train.add_argument("--name", metavar="N", help="default: the output file's name")
    train.add_argument("--behavior", metavar="B", default="", help="what the vector moves, in a few words")
    train.add_argument("--method", default="bipo", metavar="METHOD")
    train.add_argument("--layer", type=int, metavar="K", help="decoder block, from 0 (default: the middle one)")
    train.add_argument("--epochs", type=int, metavar="E", default=4)
    train.add_argument("--batch-size", type=int, metavar="B", default=4)
    train.add_argument("--learning-rate", type=float, metavar="F", help="default: fitted to model and run length")
    train.add_argument("--beta", type=float, metavar="F", default=0.1)
    train.add_argument("--seed", type=int, metavar="S", default=0)
    train.add_argument("--columns", metavar="MAP", help="column names: prompt=A,chosen=B,rejected=C")
    held_out = train.add_mutually_exclusive_group()
    held_out.add_argument("--test-pairs", metavar="FILE", help="measure on these pairs")
    held_out.add_argument("--holdout", type=float, default=0.2, metavar="SHARE", help="measure on this share (0.2)")

    generate = command("generate", _generate, "answer one prompt under several settings side by side")
    generate.add_argument("--prompt", required=True, metavar="TEXT")
    generate.add_argument("--system", metavar="TEXT", help="system prompt")
    generate.add_argument(
        "--column",
        action="append",
        metavar="SETTING",
        help='one answer, such as "cheerful=1.5,formal=-1"; "" is the untouched model; repeat for more',
    )
    generate.add_argument("--max-new-tokens", type=int, default=128, metavar="N")
    generate.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0 is greedy")
    generate.add_argument("--seed", type=int, default=0, metavar="S")

    evaluate = command("evaluate", _evaluate, "measure a vector on preference pairs")
    evaluate.add_argument("vector", metavar="VECTOR", help="name on the shelf, or a file")
    evaluate.add_argument("pairs", metavar="PAIRS")
    evaluate.add_argument("--multipliers", metavar="LIST", default="-2,-1,0,1,2", help="write --multipliers=-1,0,1")
    evaluate.add_argument("--columns", metavar="MAP", help="column names: prompt=A,chosen=B,rejected=C")

    command("list", _list, "list the vectors on the shelf")
    show = command("show", _show, "tell everything about a vector")
    show.add_argument("vector", metavar="VECTOR")

    import_ = command("import", _import, "copy a vector file onto the shelf")
    import_.add_argument("file", metavar="FILE", help=".safetensors of ours, or BiPO's .pt")
    import_.add_argument("--layer", type=int, metavar="K", help="for .pt files, which do not say")
    import_.add_argument("--name", metavar="N")

    export = command("export", _export, "write a vector to a file")
    export.add_argument("vector", metavar="VECTOR")
    export.add_argument("--format", default="safetensors", metavar="F")
    export.add_argument("--output", required=True, metavar="PATH")
    return parser


def _play(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from steering.interface import launch

    launch(model=options.model, port=options.port, share=options.share)
    return {}, ""


def _train(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from steering.evaluation import evaluate
    from steering.models import load_model
    from steering.pairs import read_pairs, without_prompts
    from steering.training import training_run

    output = _safetensors_path(options.output)
    pairs = read_pairs(options.pairs, columns=_column_map(options.columns))
    print(pairs.report.summary(), file=sys.stderr)
    if options.test_pairs:
        held_out = read_pairs(options.test_pairs, columns=_column_map(options.columns))
        pairs = without_prompts(pairs, held_out)
    else:
        pairs, held_out = pairs.split(options.holdout, options.seed)
    model = load_model(options.model)
    settings = {name: getattr(options, name) for name in ("layer", "epochs", "batch_size", "learning_rate", "beta", "seed")}
    with tqdm(file=sys.stderr, unit="step", desc="training") as bar:
        for progress in training_run(model, pairs, held_out, options.method, **settings):
            if progress.note and progress.stage == "preparing":
                bar.write(progress.note, file=sys.stderr)
            bar.total = progress.total_steps
            bar.update(progress.step - bar.n)
            if progress.loss is not None:
                bar.set_postfix(loss=f"{progress.loss:.3f}", norm=f"{progress.norm:.1f}")
    vector = progress.vector
    vector.name = options.name or output.stem
    vector.behavior = options.behavior
    results = []
    if held_out:
        results = [result.as_dict() for result in evaluate(model, vector, held_out, on_progress=_bar("measuring"))]
        vector.metrics = {"held_out": results}
    vector.save(output)
    answer = {
        "vector": str(output),
        "method": options.method,
        "layer": vector.layers[0],
        "norm": vector.norm,
        "steps": progress.step,
        "seconds": progress.seconds,
        "train_pairs": vector.pairs["train"],
        "test_pairs": len(held_out),
        "evaluation": results,
    }
    text = f"{output}: layer {vector.layers[0]}, norm {vector.norm:.2f}, {progress.step} steps in {progress.seconds:.0f} s"
    return answer, "\n".join([text, *([_results_table(results)] if results else [])])


def _generate(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    import time

    from steering.generation import generate
    from steering.library import Library
    from steering.models import load_model
    from steering.prompts import DEFAULT_SYSTEM_PROMPT

    library = Library()
    columns = [_setting(library, text) for text in (options.column or [""])]
    model = load_model(options.model)
    began = time.perf_counter()
    answers = generate(
        model,
        options.prompt,
        columns,
        system=DEFAULT_SYSTEM_PROMPT if options.system is None else options.system,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        seed=options.seed,
    )
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
    from steering.library import Library
    from steering.models import load_model
    from steering.pairs import read_pairs

    multipliers = [_number(text, "--multipliers") for text in options.multipliers.split(",")]
    vector = Library().get(options.vector)
    pairs = read_pairs(options.pairs, columns=_column_map(options.columns))
    print(pairs.report.summary(), file=sys.stderr)
    model = load_model(options.model)
    measured = evaluate(model, vector, pairs, multipliers, on_progress=_bar("measuring"))
    results = [result.as_dict() for result in measured]
    return {"vector": options.vector, "pairs": len(pairs), "results": results}, _results_table(results)


def _list(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from steering.library import Library

    library = Library()
    entries = library.entries()
    for problem in library.problems:
        print(problem, file=sys.stderr)
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
    return answer, "\n".join(f"{e.slug:{width}}  {e.vector.behavior}" for e in entries)


def _show(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from steering.library import Library

    vector = Library().get(options.vector)
    answer = {**vector.metadata(), "layers": list(vector.layers), "norm": vector.norm}
    return answer, "\n".join(f"{key}: {value}" for key, value in answer.items() if value not in ("", {}, []))


def _import(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from steering.formats import read_any
    from steering.library import Library

    vector = read_any(Path(options.file), layer=options.layer, name=options.name)
    entry = Library().add(vector)
    answer = {"name": entry.vector.name, "slug": entry.slug, "path": str(entry.path)}
    return answer, f"{options.file} is on the shelf as {entry.slug}."


def _export(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from steering.formats import write
    from steering.library import Library

    path = write(Library().get(options.vector), Path(options.output), options.format)
    return {"path": str(path), "format": options.format}, f"Wrote {path}."


def _setting(library: Any, text: str) -> dict[Any, float]:
    """`NAME_OR_FILE=1.5,OTHER=-1` as vectors and multipliers; the empty text is the empty setting."""
    setting: dict[Any, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, number = part.rpartition("=")
        if not equals:
            raise SteeringError(f"--column {text!r}: {part!r} names no multiplier; write it as NAME=1.5.")
        vector = library.get(name.strip())
        setting[vector] = setting.get(vector, 0.0) + _number(number, "--column")
    return setting


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SteeringError(f"{option}: {text.strip()!r} is not a number.") from None


def _column_map(text: str | None) -> dict[str, str] | None:
    if not text:
        return None
    parts = [part.partition("=") for part in text.split(",")]
    if any(not equals for _, equals, _ in parts):
        raise SteeringError(f"--columns {text!r}: write it as prompt=A,chosen=B,rejected=C.")
    return {role.strip(): column.strip() for role, _, column in parts}


def _safetensors_path(text: str) -> Path:
    path = Path(text)
    if path.suffix != ".safetensors":
        raise SteeringError(f"--output {text}: a vector file ends in .safetensors; name it {path.stem}.safetensors.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)  # now, not after minutes of training
    except OSError as error:
        raise SteeringError(f"--output {text}: its folder cannot be made ({error.strerror}).") from error
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise SteeringError(f"--output {text}: cannot be written; choose another place.")
    return path


def _bar(what: str) -> Callable[[int, int], None]:
    bar = tqdm(file=sys.stderr, desc=what, unit="batch")

    def on_progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)
        if done == total:
            bar.close()

    return on_progress


def _results_table(results: list[dict[str, float]]) -> str:
    rows = [f"{r['multiplier']:+10g}  {r['preference_accuracy']:8.2f}  {r['preference_margin']:+10.2f}" for r in results]
    return "\n".join(["multiplier  accuracy  margin (nats)", *rows])
