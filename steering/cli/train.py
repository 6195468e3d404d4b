"""`steering train`: one vector, or one for each of several files of pairs; alone, or on several processes.

    accelerate launch --num_processes 4 -m steering train pairs.csv --output mine.safetensors
    accelerate launch --num_machines 2 --num_processes 16 --machine_rank 0 --main_process_ip 10.0.0.1
        --main_process_port 29500 -m steering train pairs.csv --output mine.safetensors

The second command is for two machines of 8 GPUs; on the other one it says `--machine_rank 1`. Where there is no GPU,
`--multi_gpu` makes accelerate start the processes all the same, which then join over gloo. Each step's pairs are shared
out over the processes and the vector is that of one process. With several files each process trains whole vectors.
"""

import argparse
import contextlib
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steering.cli.output import Bar, column_map, ctrl_c_stops, model_options, results_table, say
from steering.errors import SteeringError

if TYPE_CHECKING:
    from steering.models.loading import LanguageModel
    from steering.pairs.dataset import Pairs
    from steering.runtime.distributed import Processes

STOPPING = (
    "Stopping after this step; the best vector so far is kept, and the same command goes on from here "
    "(Ctrl-C again abandons it)."
)
SETTINGS = (
    *("layer", "epochs", "batch_size", "learning_rate", "beta", "signs", "token_scope", "length_weight", "l2"),
    *("patience", "max_steps", "seed"),
)
"""The options that are settings of the method, by the same names."""


def add_options(train: argparse.ArgumentParser) -> None:
    train.add_argument(
        "pairs", metavar="PAIRS", nargs="+", help="CSV, TSV, JSON, JSONL or Parquet file; of several, each its vector"
    )
    train.add_argument(
        "--output", required=True, metavar="FILE", help="where the vector goes (.safetensors; a folder for several)"
    )
    train.add_argument("--name", metavar="N", help="default: the output file's name")
    train.add_argument("--behavior", metavar="B", default="", help="what the vector moves, in a few words")
    train.add_argument("--method", default="bipo", metavar="METHOD", help="how to find it (default: bipo)")
    train.add_argument(
        "--effort", choices=("quick", "standard", "paper"), help="settings for little work or much; single ones win"
    )
    train.add_argument(
        "--layer",
        type=_layer,
        metavar="K",
        help="decoder block, from 0; several as 10,14; or `sweep`, which finds the best (default: the middle one)",
    )
    train.add_argument("--epochs", type=int, metavar="E", help="passes over the pairs (default: 4)")
    train.add_argument("--max-steps", type=int, metavar="N", help="end after so many steps")
    train.add_argument("--patience", type=int, metavar="N", help="end after N held-out measurements without progress")
    train.add_argument("--batch-size", type=int, metavar="B", help="pairs a step (default: 4)")
    train.add_argument("--learning-rate", type=float, metavar="F", help="default: fitted to model and run length")
    train.add_argument("--beta", type=float, metavar="F", help="how sharply the loss saturates (default: 0.1)")
    train.add_argument("--signs", metavar="S", help="drawn for each step, both in every step, or plus only")
    train.add_argument("--token-scope", metavar="S", help="steer all positions, or those of the answer only")
    train.add_argument("--length-weight", type=float, metavar="F", help="0 sums over an answer's tokens, 1 averages")
    train.add_argument("--l2", type=float, metavar="F", help="pull towards small norms (default: 0)")
    train.add_argument("--seed", type=int, metavar="S", default=0, help="of all chance (default: 0)")
    train.add_argument("--columns", metavar="MAP", help="column names: prompt=A,chosen=B,rejected=C")
    train.add_argument("--fresh", action="store_true", help="begin anew, even where a checkpoint of this run is kept")
    train.add_argument("--report-to", metavar="LIST", default="", help="trackers: trackio, tensorboard, wandb, ...")
    held_out = train.add_mutually_exclusive_group()
    held_out.add_argument("--test-pairs", metavar="FILE", help="measure on these pairs")
    held_out.add_argument(
        "--holdout", type=float, default=0.2, metavar="SHARE", help="measure on this share (default: 0.2)"
    )


@dataclasses.dataclass
class Task:
    """One vector to train: from which pairs, and where it goes."""

    pairs: "Pairs"
    held_out: "Pairs"
    output: Path


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str] | None:
    """What the main process prints; nothing on the others."""
    from steering.runtime.distributed import SharedError, launched

    processes = launched()
    try:
        done = _run(options, processes)
        processes.gathered(None)  # nobody hangs up on one that is still talking
        return done if processes.is_main else None
    except SharedError:  # the main process says it
        if processes.is_main:
            raise
        raise SystemExit(2) from None
    finally:
        processes.leave()


def _run(options: argparse.Namespace, processes: "Processes") -> tuple[dict[str, Any], str]:
    from steering.models.loading import load_model

    tasks = processes.together(lambda: _tasks(options))
    model = processes.together(lambda: load_model(**model_options(options, device=processes.device)))
    with ctrl_c_stops(lambda: say(STOPPING) if processes.is_main else None) as stopped:
        if len(tasks) == 1:
            answer = _train(options, model, tasks[0], stopped.is_set, processes)
            return answer, _in_words(answer)
        answers = _train_each(options, model, tasks, stopped.is_set, processes)
    return {"runs": answers}, "\n\n".join(map(_in_words, answers))


def _tasks(options: argparse.Namespace) -> list[Task]:
    """Everything is read, and every place tried, before the first minute of work."""
    from steering.pairs.dataset import read_pairs, without_prompts
    from steering.training.tracking import check_trackers

    check_trackers(_trackers(options))
    columns = column_map(options.columns)
    many = len(options.pairs) > 1
    for option in ("name", "behavior", "test_pairs") if many else ():
        if getattr(options, option):
            raise SteeringError(f"--{option.replace('_', '-')} is for one vector; train these files one by one.")
    outputs = [Path(options.output) / f"{Path(pairs).stem}.safetensors" for pairs in options.pairs]
    if many and len(set(outputs)) < len(outputs):
        raise SteeringError("Two of the files have the same name, so their vectors would too; rename one.")
    if many and Path(options.output).suffix == ".safetensors":
        raise SteeringError(f"--output {options.output}: several vectors need a folder; name one.")
    outputs = [_checked(output) for output in (outputs if many else [Path(options.output)])]
    tasks = []
    for file, output in zip(options.pairs, outputs, strict=True):
        pairs = read_pairs(file, columns=columns)
        if options.test_pairs:
            held_out = read_pairs(options.test_pairs, columns=columns)
            pairs = without_prompts(pairs, held_out)
        else:
            pairs, held_out = pairs.split(options.holdout, options.seed)
        tasks.append(Task(pairs, held_out, output))
    return tasks


def _train_each(
    options: argparse.Namespace,
    model: "LanguageModel",
    tasks: list[Task],
    should_stop: Callable[[], bool],
    processes: "Processes",
) -> list[dict[str, Any]]:
    """One whole run after the other, each process its own; what fails keeps no other from its vector."""
    from steering.runtime.distributed import ALONE, SharedError

    answers, problems = {}, {}
    for number, task in enumerate(tasks):
        if number % processes.count != processes.index or should_stop():
            continue
        try:
            answers[number] = _train(options, model, task, should_stop, ALONE, silent=not processes.is_main)
        except SteeringError as error:
            problems[number] = str(error)
        except _NothingTrained:
            break
    everything = processes.gathered((answers, problems))
    answers = {number: answer for found, _ in everything for number, answer in found.items()}
    problems = {number: problem for _, found in everything for number, problem in found.items()}
    if problems:
        number = min(problems)
        raise SharedError(
            f"{len(problems)} of {len(tasks)} vectors could not be trained (the others are written); "
            f"{tasks[number].output.stem}: {problems[number]}"
        )
    if not answers:
        raise KeyboardInterrupt
    return [answers[number] for number in sorted(answers)]


class _NothingTrained(KeyboardInterrupt):
    """Ctrl-C before the first step: there is nothing to keep."""


def _train(
    options: argparse.Namespace,
    model: "LanguageModel",
    task: Task,
    should_stop: Callable[[], bool],
    processes: "Processes",
    *,
    silent: bool = False,
) -> dict[str, Any]:
    """Train, save, measure, save again; what JSON tells of it."""
    from steering.evaluation import evaluate
    from steering.paths import data_dir
    from steering.training import default_checkpoint, training_run
    from steering.training.methods.bipo.config import one_or_all
    from steering.training.methods.bipo.presets import EFFORTS
    from steering.training.tracking import Tracking

    silent = silent or not processes.is_main
    settings = dict(EFFORTS[options.effort].settings) if options.effort else {}
    settings |= {name: getattr(options, name) for name in SETTINGS if getattr(options, name) is not None}
    run = {"model": model, "pairs": task.pairs, "held_out": task.held_out, "method": options.method, **settings}
    reports = training_run(
        **run, should_stop=should_stop, checkpoint=default_checkpoint(**run), fresh=options.fresh, processes=processes
    )
    told = ""
    trackers = _trackers(options) if processes.is_main else []
    tracking = Tracking(trackers, task.output.stem, data_dir() / "tracking")
    with Bar("training", "step", silent=silent) as bar, tracking, contextlib.closing(reports):
        for number, progress in enumerate(reports):
            news = progress.note.removeprefix(told).strip()
            told = progress.note or told
            if number == 0:
                news = f"{task.pairs.report.summary()} {news}".strip()
            if news and not silent:
                say(news)
            tracking.hear(progress)
            figures = {} if progress.loss is None else {"loss": f"{progress.loss:.3f}", "norm": f"{progress.norm:.1f}"}
            bar.show(progress.step, progress.total_steps, **figures)
    if not progress.step:
        raise _NothingTrained
    vector = dataclasses.replace(progress.vector, name=options.name or task.output.stem, behavior=options.behavior)

    def save() -> None:
        if processes.is_main:
            vector.save(task.output)

    processes.together(save)  # whatever happens while it is measured, the work is kept
    results = []
    if task.held_out:
        with Bar("measuring", "batch", silent=silent) as bar:
            measured = evaluate(model, vector, task.held_out, on_progress=bar.show, processes=processes)
        results = [result.as_dict() for result in measured]
        vector.metrics = {**vector.metrics, "held_out": results}
        processes.together(save)
    return {
        "vector": str(task.output),
        "method": options.method,
        "layer": one_or_all(vector.layers),
        "norm": vector.norm,
        "steps": progress.step,
        "seconds": progress.seconds,
        "train_pairs": vector.pairs["train"],
        "test_pairs": vector.pairs["held_out"],
        "evaluation": results,
    }


def _trackers(options: argparse.Namespace) -> list[str]:
    return [name.strip() for name in options.report_to.split(",") if name.strip()]


def _in_words(answer: dict[str, Any]) -> str:
    layers = answer["layer"] if isinstance(answer["layer"], list) else [answer["layer"]]
    where = f"layer{'s' * (len(layers) > 1)} {', '.join(map(str, layers))}, norm {answer['norm']:.2f}"
    text = f"{answer['vector']}: {where}, {answer['steps']} steps in {answer['seconds']:.0f} s"
    return "\n".join([text, *([results_table(answer["evaluation"])] if answer["evaluation"] else [])])


def _layer(text: str) -> int | tuple[int, ...] | str | None:
    """`14`, `10,14`, `sweep`, or `middle`, which is the default."""
    if text in ("sweep", "middle"):
        return text if text == "sweep" else None
    try:
        layers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no layer; give a whole number, several as 10,14, sweep or middle"
        ) from None
    return layers if len(layers) > 1 else layers[0]


def _checked(output: Path) -> Path:
    """Where the vector goes, tried now and not after minutes of training."""
    if output.suffix != ".safetensors":
        raise SteeringError(
            f"--output {output}: a vector file ends in .safetensors; name it {output.stem}.safetensors."
        )
    try:
        folder = next(folder for folder in output.absolute().parents if folder.exists())
        sound = folder.is_dir() and os.access(folder, os.W_OK) and not output.is_dir()
    except OSError:  # such as a name that is too long
        sound = False
    if not sound:
        raise SteeringError(f"--output {output}: cannot be written; choose another place.")
    return output
