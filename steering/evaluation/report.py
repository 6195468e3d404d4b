"""An evaluation as one HTML file that needs nothing else, and two evaluations side by side."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from steering.evaluation.answers import Answer
from steering.evaluation.baselines import is_random
from steering.evaluation.curve_chart import curve_chart, curve_of, prompting_lines
from steering.evaluation.statistics import paired
from steering.evaluation.store import Answers, RunFolder

STYLE = """
body { font: 15px/1.5 "IBM Plex Sans", system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem;
  color: #2d2a26; background: #fbf9f5 }
@media (prefers-color-scheme: dark) { body { color: #e8e3da; background: #1f1d1a } }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; font-size: 13px; display: block; overflow-x: auto }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8a827455; vertical-align: top }
td.n, th.n { text-align: right; white-space: nowrap }
details { margin: .6rem 0 } summary { cursor: pointer }
"""


def write_report(folder: RunFolder) -> Path:
    """Write `report.html` into the folder of a finished evaluation; return its path."""
    facts, results = folder.facts(), folder.results()
    path = folder.path / "report.html"
    path.write_text(report_html(facts, results, folder.answers()), encoding="utf-8")
    return path


def report_html(facts: Mapping[str, Any], results: Mapping[str, Any], answers: Answers) -> str:
    """Return the whole page. Texts of the model and of files are escaped."""
    name, summary = str(facts["vector"]["name"]), results["summary"]
    figure = curve_chart(
        {name: curve_of(results["points"], name)},
        prompting_lines(results["points"]),
        summary["useful_range"],
        summary["recommended"],
    )
    chart = figure.to_html(full_html=False, include_plotlyjs=True, config={"displayModeBar": False})
    sentences = "".join(f"<li>{escape(text)}</li>" for text in summary["sentences"])
    low, high = summary["useful_range"]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(name)}: evaluation</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f"<h1>{escape(name)}</h1>"
        f"<p>{escape(str(facts['vector']['behavior']))} · {escape(str(facts['model']['name']))}</p>"
        f"<ul>{sentences}</ul><p>Useful range: {low:+g} to {high:+g}; recommended {summary['recommended']:+g}. "
        f"{_judge_words(results['judge'])}</p>{chart}<h2>In numbers</h2>{points_table(results['points'])}"
        f"<h2>Every answer</h2>{_answers_html(facts['settings']['prompts'], answers)}"
        f"<h2>Settings</h2><pre>{escape(_settings_text(facts))}</pre></html>"
    )


def _judge_words(judge: Mapping[str, Any]) -> str:
    right = "" if judge["accuracy"] is None else f", right on {judge['accuracy']:.0%} of answers that it had not seen"
    return escape(" ".join([f"Judge: {judge['name']}{right}.", *judge["notes"]]))


def points_table(points: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of the points, one a line, sorted by who answered and at which multiplier."""
    heads = ("behavior", "fluency", "relevance", "composite", "kl")
    lines = []
    for row in sorted(points, key=lambda row: (row["arm"] != "untouched", row["arm"], row["multiplier"])):
        cells = "".join(f'<td class="n">{_with_interval(row[head])}</td>' for head in heads)
        missing = f'<td class="n">{row["missing"]}</td><td class="n">{row["broken"]:.0%}</td>'
        lines.append(
            f"<tr><td>{escape(str(row['arm']))}</td><td class='n'>{row['multiplier']:+g}</td>{cells}{missing}</tr>"
        )
    titles = "".join(f'<th class="n">{head}</th>' for head in (*heads, "not judged", "broken"))
    return f"<table><tr><th>who answered</th><th class='n'>multiplier</th>{titles}</tr>{''.join(lines)}</table>"


def _with_interval(score: Mapping[str, Any]) -> str:
    if score["mean"] is None:
        return "–"
    return f"{score['mean']:.2f} <small>[{score['low']:.2f}, {score['high']:.2f}]</small>"


def _answers_html(prompts: Sequence[str], answers: Answers) -> str:
    """Return every answer by prompt, those of random directions left out."""
    parts = []
    for number, prompt in enumerate(prompts):
        rows = [a for (arm, place), a in answers.items() if place == number and not is_random(arm)]
        lines = "".join(map(_answer_line, sorted(rows, key=lambda a: (a.arm.name, a.arm.multiplier))))
        heads = "<tr><th>who</th><th class='n'>multiplier</th><th class='n'>behavior</th><th>answer</th></tr>"
        parts.append(f"<details><summary>{escape(prompt)}</summary><table>{heads}{lines}</table></details>")
    return "".join(parts)


def _answer_line(answer: Answer) -> str:
    score = "–" if answer.behavior is None else f"{answer.behavior:.2f}"
    broken = f" <small>({escape(answer.broken)})</small>" if answer.broken else ""
    return (
        f"<tr><td>{escape(answer.arm.name)}</td><td class='n'>{answer.arm.multiplier:+g}</td><td class='n'>{score}</td>"
        f"<td>{escape(answer.text)}{broken}</td></tr>"
    )


def _settings_text(facts: Mapping[str, Any]) -> str:
    settings = {key: value for key, value in facts["settings"].items() if key != "prompts"}
    shown = {"vector": facts["vector"], "model": facts["model"], "pairs": facts["pairs"], **settings}
    return "\n".join(f"{key}: {value}" for key, value in {**shown, "versions": facts["versions"]}.items())


def compared(first: RunFolder, second: RunFolder) -> list[dict[str, Any]]:
    """Compare two evaluations where they measured the same prompts: at each multiplier that both have.

    Returns:
        A row a multiplier: `multiplier`, and for `behavior` and `fluency` the paired difference, first less second,
        with its interval and `p_value`.
    """
    names = [str(folder.facts()["vector"]["name"]) for folder in (first, second)]
    prompts = [list(folder.facts()["settings"]["prompts"]) for folder in (first, second)]
    shared = [prompt for prompt in prompts[0] if prompt in prompts[1]]
    answers = [folder.answers() for folder in (first, second)]
    multipliers = [
        {arm.multiplier for arm, _ in found if arm.name in (name, "untouched")}
        for found, name in zip(answers, names, strict=True)
    ]
    rows = []
    for multiplier in sorted(multipliers[0] & multipliers[1]):
        row: dict[str, Any] = {"multiplier": multiplier}
        for score in ("behavior", "fluency"):
            sides = []
            for found, name, own in zip(answers, names, prompts, strict=True):
                by_prompt = {
                    own[place]: getattr(answer, score)
                    for (arm, place), answer in found.items()
                    if arm.multiplier == multiplier and arm.name in (name, "untouched")
                }
                sides.append([by_prompt.get(prompt) for prompt in shared])
            difference = paired(sides[0], sides[1])
            row[score] = difference.gap.as_json() | {"p_value": difference.p_value}
        rows.append(row)
    return rows
