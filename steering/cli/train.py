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
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steering.cli.options import add_columns, add_verbose, column_map, model_options
from steering.cli.output import Bar, ctrl_c_stops, results_table, say
from steering.errors import SteeringError

if TYPE_CHECKING:
    from steering.models.loading import LanguageModel
    from steering.pairs.dataset import Pairs
    from steering.runtime.distributed import Processes

STOPPING = (
    "Stopping after this step; the best vector so far is kept, and the same command goes on from here "
    "(Ctrl-C again abandons it)."
)


def add_options(train: argparse.ArgumentParser) -> None:
    """Add the command's own options, and those of the training methods."""
    from steering.cli.method_options import add_method_options  # loads pydantic and the methods: only where needed

    train.add_argument(
        "pairs", metavar="PAIRS", nargs="+", help="file, folder or Hub data set; of several, each its vector"
    )
    train.add_argument(
        "--output", required=True, metavar="FILE", help="where the vector goes (.safetensors; a folder for several)"
    )
    train.add_argument("--name", metavar="N", help="default: the output file's name")
    train.add_argument("--behavior", metavar="B", default="", help="what the vector moves, in a few words")
    add_columns(train)
    train.add_argument("--fresh", action="store_true", help="start from scratch, even where this run has a checkpoint")
    train.add_argument("--report-to", metavar="LIST", default="", help="trackers: trackio, tensorboard, wandb, ...")
    add_verbose(train)
    held_out = train.add_mutually_exclusive_group()
    held_out.add_argument("--test-pairs", metavar="FILE", help="measure on these pairs")
    held_out.add_argument(
        "--holdout", type=float, default=0.2, metavar="SHARE", help="measure on this share (default: 0.2)"
    )
    add_method_options(train)


@dataclass
class Task:
    """One vector to train: from which pairs, and where it goes.

    Attributes:
        held_out: pairs to measure on; None until `_split` takes them from `pairs`.
    """

    pairs: "Pairs"
    held_out: "Pairs | None"
    output: Path


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str] | None:
    """Train; the answer on the main process, None on the others."""
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
    from steering.runtime.distributed import SharedError
    from steering.training.pipeline import NothingTrained

    tasks = processes.together(lambda: _tasks(options))
    model = processes.together(lambda: load_model(**model_options(options, device=processes.device)))
    with ctrl_c_stops(lambda: say(STOPPING) if processes.is_main else None) as stopped:
        if len(tasks) == 1:
            try:
                answer = _train(options, model, tasks[0], stopped.is_set, processes)
            except NothingTrained as error:
                if error.stopped == "asked":
                    raise KeyboardInterrupt from error
                raise SharedError(str(error)) from error  # every process comes here
            return answer, _in_words(answer)
        answers = _train_each(options, model, tasks, stopped.is_set, processes)
    return {"runs": answers}, "\n\n".join(map(_in_words, answers))


def _tasks(options: argparse.Namespace) -> list[Task]:
    """Read everything, check every setting and try every place before the first minute of work."""
    from steering.cli.method_options import chosen_config
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
    chosen_config(options)
    tasks = []
    for file, output in zip(options.pairs, outputs, strict=True):
        pairs = read_pairs(file, columns=columns, max_pairs=options.max_pairs)
        held_out = read_pairs(options.test_pairs, columns=columns) if options.test_pairs else None
        tasks.append(Task(without_prompts(pairs, held_out) if held_out else pairs, held_out, output))
    return tasks


def _split(options: argparse.Namespace, model: "LanguageModel", task: Task) -> Task:
    """Leave out what the model cannot read, and only then hold pairs out, so that their share is what was asked for."""
    from steering.cli.method_options import chosen_config
    from steering.pairs.tokenization import readable_pairs

    pairs = readable_pairs(model, task.pairs)
    if task.held_out is not None:
        return Task(pairs, readable_pairs(model, task.held_out), task.output)
    *_, config = chosen_config(options)
    return Task(*pairs.split(options.holdout, config.seed), task.output)


def _train_each(
    options: argparse.Namespace,
    model: "LanguageModel",
    tasks: list[Task],
    should_stop: Callable[[], bool],
    processes: "Processes",
) -> list[dict[str, Any]]:
    """Train one whole vector after the other, each process its own; what fails keeps no other from its vector."""
    from steering.runtime.distributed import ALONE, SharedError
    from steering.training.pipeline import NothingTrained

    answers, problems = {}, {}
    for number, task in enumerate(tasks):
        if number % processes.count != processes.index or should_stop():
            continue
        try:
            answers[number] = _train(options, model, task, should_stop, ALONE, silent=not processes.is_main)
        except NothingTrained as error:
            if error.stopped == "asked":
                break
            problems[number] = str(error)
        except SteeringError as error:
            problems[number] = str(error)
    everything = processes.gathered((answers, problems))
    answers = {number: answer for theirs, _ in everything for number, answer in theirs.items()}
    problems = {number: problem for _, theirs in everything for number, problem in theirs.items()}
    if problems:
        number = min(problems)
        raise SharedError(
            f"{len(problems)} of {len(tasks)} vectors could not be trained (the others are written); "
            f"{tasks[number].output.stem}: {problems[number]}"
        )
    if not answers:
        raise KeyboardInterrupt
    return [answers[number] for number in sorted(answers)]


def _train(
    options: argparse.Namespace,
    model: "LanguageModel",
    task_given: Task,
    should_stop: Callable[[], bool],
    processes: "Processes",
    *,
    silent: bool = False,
) -> dict[str, Any]:
    """Train, measure and save one vector, showing how it goes; return what JSON says of it."""
    from steering.cli.method_options import chosen_config
    from steering.pairs.lint import lint
    from steering.paths import data_dir
    from steering.training.config import one_or_all
    from steering.training.pipeline import default_checkpoint, run
    from steering.training.tracking import Tracking

    silent = silent or not processes.is_main
    task = processes.together(lambda: _split(options, model, task_given))
    method, settings, _ = chosen_config(options)
    job = {"model": model, "pairs": task.pairs, "held_out": task.held_out, "method": method.name, **settings}
    reports = run(
        **job,
        name=options.name or task.output.stem,
        behavior=options.behavior,
        save=lambda vector: vector.save(task.output),
        should_stop=should_stop,
        checkpoint=default_checkpoint(**job),
        fresh=options.fresh,
        processes=processes,
    )
    tracking = Tracking(_trackers(options) if processes.is_main else [], task.output.stem, data_dir() / "tracking")
    notes = _NewNotes()
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(reports))
        stack.enter_context(tracking)
        training = stack.enter_context(Bar("training", "step", silent=silent))
        measuring = stack.enter_context(Bar("measuring", "batch", silent=silent))
        for number, progress in enumerate(reports):
            if progress.stage == "measuring":
                measuring.show(progress.step, progress.total_steps)
                continue
            words = notes.of(progress.note)
            if number == 0:
                found = [f"{finding.severity}: {finding.text}" for finding in lint(task.pairs, model)]
                words = "\n".join(filter(None, [*task.pairs.report.sentences(), *found, words]))
            if words and not silent:
                say(words)
            tracking.hear(progress)
            figures = {} if progress.loss is None else {"loss": f"{progress.loss:.3f}", "norm": f"{progress.norm:.1f}"}
            training.show(progress.step, progress.total_steps, **figures)
    vector = progress.vector
    assert vector is not None  # `done` has it
    return {
        "vector": str(task.output),
        "method": method.name,
        "layer": one_or_all(list(vector.layers)),
        "norm": vector.norm,
        "steps": progress.step,
        "seconds": progress.seconds,
        "train_pairs": vector.pairs["train"],
        "test_pairs": vector.pairs["held_out"],
        "evaluation": vector.metrics.get("held_out", []),
    }


class _NewNotes:
    """Tells what of each report's note was not in the one before: a note grows, and is repeated."""

    def __init__(self) -> None:
        self._shown = ""

    def of(self, note: str) -> str:
        """Return the part of the note that is new."""
        new = note.removeprefix(self._shown).strip()
        self._shown = note or self._shown
        return new


def _trackers(options: argparse.Namespace) -> list[str]:
    return [name.strip() for name in options.report_to.split(",") if name.strip()]


def _in_words(answer: dict[str, Any]) -> str:
    layers = answer["layer"] if isinstance(answer["layer"], list) else [answer["layer"]]
    where = f"layer{'s' * (len(layers) > 1)} {', '.join(map(str, layers))}, norm {answer['norm']:.2f}"
    text = f"{answer['vector']}: {where}, {answer['steps']} steps in {answer['seconds']:.0f} s"
    return "\n".join([text, *([results_table(answer["evaluation"])] if answer["evaluation"] else [])])


def _checked(output: Path) -> Path:
    """Return the path; SteeringError, now and not after minutes of training, if a vector cannot be written there."""
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
