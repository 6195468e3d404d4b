"""The experiments that there are, and the one way to run one.

Adding one takes one file with a generator function and `EXPERIMENT`, and its name in `OURS`.
"""

import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from importlib import import_module

from steering.errors import SteeringError
from steering.experiments.bench import Bench, Stopped
from steering.experiments.result import Result, write_result

Run = Callable[[Bench], Generator[str | Result, None, None]]
"""Yields words on what is under way, and the result so far; the last result is the whole one."""


@dataclass(frozen=True)
class Experiment:
    """One experiment.

    Attributes:
        name: on the command line; lower-case. title: for people.
        question: what it answers, in a sentence or two.
        paper: the paper's figure or table and what it says, with its place.
        run: runs it.
        minutes: it took on two cores of an AMD EPYC with the bundled model and 20 prompts.
        vectors: names of the behaviors that it takes unless others are chosen.
    """

    name: str
    title: str
    question: str
    paper: str
    run: Run
    minutes: float
    vectors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    """How far an experiment is.

    Attributes:
        doing: in words; result: so far, None before there is any.
        seconds: since the start; done: whether it has ended; stopped: whether because it was asked to.
    """

    doing: str
    result: Result | None
    seconds: float
    done: bool = False
    stopped: bool = False


OURS = (
    "personas",
    "truthfulness",
    "hallucination",
    "jailbreak",
    "transfer",
    "together",
    "utility",
    "in_character",
    "timeline",
    "layers",
)
"""Modules of this folder, each with `EXPERIMENT`; the paper's come first."""


@cache
def experiments() -> dict[str, Experiment]:
    """List all experiments by name."""
    ours = [import_module(f"steering.experiments.{module}").EXPERIMENT for module in OURS]
    return {experiment.name: experiment for experiment in ours}


def experiment_named(name: str) -> Experiment:
    """Return the experiment of this name; raise SteeringError, listing those that there are, for another."""
    if name not in experiments():
        raise SteeringError(f"There is no experiment {name!r}; choose one of: {', '.join(experiments())}.")
    return experiments()[name]


def reproduce(experiment: Experiment, bench: Bench) -> Generator[Progress, None, None]:
    """Run an experiment; the last report is `done` and has the whole result, or says that it was stopped.

    The result is written to the bench's folder. Raises SteeringError for what cannot be measured.
    """
    began, result = time.monotonic(), None
    try:
        with closing(experiment.run(bench)) as steps:
            for step in steps:
                result = step if isinstance(step, Result) else result
                doing = step if isinstance(step, str) else "judging"
                yield Progress(doing, result, time.monotonic() - began)
    except SteeringError:
        if not bench.should_stop():
            raise
        yield Progress("stopped", result, time.monotonic() - began, stopped=True)
        return
    seconds = time.monotonic() - began
    if result is None:
        raise Stopped("The experiment measured nothing.")
    if bench.folder:
        facts = {
            "experiment": experiment.name,
            "paper": experiment.paper,
            "model": bench.model.name,
            "prompts": bench.prompt_count,
            "tokens": bench.tokens,
            "seed": bench.seed,
            "seconds": round(seconds, 1),
        }
        write_result(bench.folder, facts, result)
    yield Progress("done", result, seconds, done=True)
