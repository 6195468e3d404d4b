"""The judges that there are: ours, and those that other packages add.

Adding one takes one file with `JUDGE`, a `JudgeKind`; another package declares an entry point:

    [project.entry-points."steering.judges"]
    mine = "my_package.my_judge:JUDGE"
"""

from functools import cache
from importlib import import_module

from steering.errors import SteeringError
from steering.evaluation.judges.judge import JudgeKind
from steering.plugins import with_plugins

ENTRY_POINTS = "steering.judges"
OURS = ("offline", "endpoint")
"""Modules of this folder, each with `JUDGE`; `checks` has several."""


@cache
def judges() -> dict[str, JudgeKind]:
    """List all judges by name, ours first; one of another package that cannot be used is logged and left out."""
    ours = []
    for module in OURS:
        ours.append(import_module(f"steering.evaluation.judges.{module}").JUDGE)
    ours += import_module("steering.evaluation.judges.checks").JUDGES
    return with_plugins(ours, ENTRY_POINTS, JudgeKind)


def judge_named(name: str) -> JudgeKind:
    """Return the judge of this name; SteeringError, listing those that there are, for another."""
    known = judges()
    if name not in known:
        raise SteeringError(f"There is no judge {name!r}; choose one of: {', '.join(known)}.")
    return known[name]
