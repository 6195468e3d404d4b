"""`steering report`: a finished evaluation again, or two of them compared."""

import argparse
from pathlib import Path
from typing import Any


def add_options(report: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    report.add_argument("folder", metavar="RUN", help="folder that `evaluate --report` wrote")
    report.add_argument("other", metavar="RUN", nargs="?", help="another one, compared prompt by prompt")


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Write the report of one evaluation anew, or compare two."""
    from steering.evaluation.report import compared, write_report
    from steering.evaluation.store import RunFolder

    first = RunFolder(Path(options.folder))
    if not options.other:
        results = first.results()
        path = write_report(first)
        return {"report": str(path), **results}, "\n".join([*results["summary"]["sentences"], f"Report: {path}"])
    second = RunFolder(Path(options.other))
    names = [str(folder.facts()["vector"]["name"]) for folder in (first, second)]
    summaries = [folder.results()["summary"] for folder in (first, second)]
    rows = compared(first, second)
    lines = [
        f"{names[0]} less {names[1]}, on the prompts that both answered",
        "multiplier  behavior               fluency",
    ]
    for row in rows:
        cells = [
            "not measured         "
            if row[score]["mean"] is None
            else f"{row[score]['mean']:+.2f} [{row[score]['low']:+.2f}, {row[score]['high']:+.2f}]"
            for score in ("behavior", "fluency")
        ]
        lines.append(f"{row['multiplier']:+10g}  {cells[0]}  {cells[1]}")
    for name, summary in zip(names, summaries, strict=True):
        lines += [f"{name}:", *(f"  {text}" for text in summary["sentences"])]
    return {"first": names[0], "second": names[1], "differences": rows, "summaries": summaries}, "\n".join(lines)
