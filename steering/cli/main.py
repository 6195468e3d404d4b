"""The `steering` command. Thin: reads arguments, calls the library, prints.

With --json one JSON object goes to stdout and nothing else; everything for people goes to stderr. The exit status is 0
on success and 2 for bad usage or bad input, said in one line on stderr.
"""

import argparse
import contextlib
import io
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from steering import __version__
from steering.cli import deploy, draft, evaluate, generate, play, report, reproduce, train, vectors
from steering.cli.options import add_model_options
from steering.cli.output import logging_to_stderr
from steering.errors import SteeringError, UnknownColumns
from steering.runtime.cpu_environment import configure_cpu

Run = Callable[[argparse.Namespace], tuple[dict[str, Any], str] | None]
"""What a command does: options -> (answer for JSON, the same for people); None on a process that prints nothing."""

COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None], Run]] = {
    "play": ("open the playground in a browser", play.add_options, play.run),
    "draft": ("draft preference pairs from the description of a behavior", draft.add_options, draft.run),
    "train": ("train a steering vector on preference pairs", train.add_options, train.run),
    "generate": ("answer one prompt under several settings side by side", generate.add_options, generate.run),
    "evaluate": ("measure a vector on preference pairs", evaluate.add_options, evaluate.run),
    "report": ("show an evaluation again, or compare two", report.add_options, report.run),
    "reproduce": ("run an experiment of the paper", reproduce.add_options, reproduce.run),
    "list": ("list the vectors on the shelf", lambda parser: None, vectors.run_list),
    "show": ("tell everything about a vector", vectors.add_show_options, vectors.run_show),
    "import": ("copy a vector file onto the shelf", vectors.add_import_options, vectors.run_import),
    "deploy": ("make a Hugging Face Space of the playground", deploy.add_options, deploy.run),
    "export": ("write a vector to a file", vectors.add_export_options, vectors.run_export),
}
"""Name -> (help, what adds its options, what it does). Their modules load torch only when they run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Like any argparse program, --help and --version end in SystemExit."""
    configure_cpu()
    if not sys.warnoptions:  # what libraries warn programmers of; `python -W default` shows it
        warnings.simplefilter("ignore")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a program that calls `main` may have put another stream there
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot print a character gets its code
    try:
        with logging_to_stderr():  # a training method of another package may not load
            options = build_parser().parse_args(arguments)
        to_stderr = contextlib.redirect_stdout(sys.stderr if options.json else sys.stdout)  # what a library may print
        with to_stderr, logging_to_stderr(getattr(options, "verbose", False)):
            done = options.run(options)
        if done is None:  # one of several processes, and not the one that prints
            return 0
        answer, text = done
        if options.json:
            text = json.dumps(_without_nan(answer), allow_nan=False)
        if text:
            print(text, flush=True)
        return 0
    except SteeringError as error:
        return _fail(_with_options(error))
    except BrokenPipeError:  # the reader of a pipe went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _fail("Interrupted.", status=130)


def _fail(message: str, status: int = 2) -> int:
    line = " ".join("".join(c if c.isprintable() else " " for c in message).split())
    print(f"steering: {line}", file=sys.stderr)
    return status


def _with_options(error: SteeringError) -> str:
    """Add to a message the option that its remedy is on the command line."""
    if isinstance(error, UnknownColumns):
        return f"{str(error).rstrip('.')} with --columns prompt=Q,chosen=A,rejected=B."
    return str(error)


def _without_nan(answer: dict[str, Any]) -> dict[str, Any]:
    """Replace NaN and the infinities, for which JSON has no number, by null."""
    return json.loads(json.dumps(answer), parse_constant=lambda word: None)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, like every other error, and adds a command's options when that is chosen."""

    def __init__(self, add_options: Callable[[argparse.ArgumentParser], None] | None = None, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)  # a script must not break when an option is added
        self._add_options = add_options
        # As Python 3.13 has it: `--multipliers -1,0,1` is an option and its value, with no need for `=`.
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._add_options:  # those of `train` come from the training methods, which other commands do not load
            add_options, self._add_options = self._add_options, None
            add_options(self)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise SteeringError(f"{message} (see `{self.prog} --help`)")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands; a command adds its own options when it is chosen."""
    parser = _Parser(prog="steering", description="Train, apply and measure steering vectors for language models.")
    parser.add_argument("--version", action="version", version=f"steering {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (help, add_options, run) in COMMANDS.items():
        description = f"{help[0].upper()}{help[1:]}."
        command = commands.add_parser(name, help=help, description=description, add_options=add_options)
        add_model_options(command)
        command.add_argument("--json", action="store_true", help="print one JSON object on stdout")
        command.set_defaults(run=run)
    return parser
