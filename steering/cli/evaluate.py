"""`steering evaluate`: what a vector does to preference pairs, and to what the model writes."""

import argparse
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steering.cli.options import add_columns, add_vector, column_map, model_options, multiplier
from steering.cli.output import Bar, ctrl_c_stops, results_table, say
from steering.errors import SteeringError

if TYPE_CHECKING:
    from steering.evaluation.settings import EvaluationSettings
    from steering.models.loading import LanguageModel
    from steering.pairs.dataset import Pairs
    from steering.vectors.vector import SteeringVector

DEFAULT_MULTIPLIERS = "-2,-1,0,1,2"


def add_options(evaluate: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    add_vector(evaluate)
    evaluate.add_argument("pairs", metavar="PAIRS", help="file, folder or Hub data set")
    evaluate.add_argument("--multipliers", metavar="LIST", help=f"default: {DEFAULT_MULTIPLIERS}")
    evaluate.add_argument(
        "--measures",
        metavar="LIST",
        help="behavior, fluency, relevance, composite, kl, dose, utility, preference_accuracy, preference_margin, "
        "preference_details (default: accuracy and margin on the pairs)",
    )
    evaluate.add_argument(
        "--report",
        metavar="FOLDER",
        help="evaluate what is written, from -4 to 4 and against prompting, mean difference and random directions; "
        "goes on where it was interrupted",
    )
    evaluate.add_argument(
        "--tasks", metavar="LIST", help="benchmarks of lm-evaluation-harness, such as mmlu (pip install lm-eval)"
    )
    evaluate.add_argument("--task-limit", metavar="N", type=int, help="questions of each (default: all)")
    evaluate.add_argument("--task-folder", metavar="DIR", help="with tasks of your own, in the harness's YAML")
    evaluate.add_argument("--judge", metavar="J", default="offline", help="offline, endpoint, refusal, length, ...")
    evaluate.add_argument(
        "--endpoint", metavar="URL", help="of the judge `endpoint`: an OpenAI-compatible server's /v1"
    )
    evaluate.add_argument("--endpoint-model", metavar="M", help="name of its model; the key is in STEERING_API_KEY")
    evaluate.add_argument("--rubric", metavar="R", help="of the judge `endpoint`: scale (1 to 4) or axbench")
    evaluate.add_argument("--prompts", metavar="SET", default="pairs", help="pairs (default) or open: what is answered")
    evaluate.add_argument("--prompt-count", metavar="N", type=int, help="how many of them (default: 20)")
    evaluate.add_argument("--max-new-tokens", metavar="N", type=int, help="of an answer (default: 40)")
    evaluate.add_argument("--random-directions", metavar="N", type=int, help="of a report (default: 20)")
    evaluate.add_argument("--utility", action="store_true", help="a report also asks multiple-choice questions")
    evaluate.add_argument("--seed", metavar="N", type=int, default=0, help="of random directions (default: 0)")
    evaluate.add_argument("--update", action="store_true", help="write what a report found into the vector's file")
    add_columns(evaluate)


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Measure the vector on the pairs, or write a report."""
    from steering.models.loading import load_model
    from steering.pairs.dataset import read_pairs
    from steering.pairs.tokenization import readable_pairs
    from steering.vectors.library import Library

    numbers = DEFAULT_MULTIPLIERS if options.multipliers is None else options.multipliers
    multipliers = [multiplier(text, "--multipliers") for text in numbers.split(",")]
    if options.update and not options.report:
        raise SteeringError("--update writes what a report found; give --report FOLDER, too.")
    vector = Library().get(options.vector)
    pairs = read_pairs(options.pairs, columns=column_map(options.columns), max_pairs=options.max_pairs)
    model = load_model(**model_options(options))
    vector.check_fits(model.hidden_size, model.num_layers, model.name)
    pairs = readable_pairs(model, pairs)
    say("\n".join(pairs.report.sentences()))
    if options.tasks:
        return _tasks(options, model, vector, multipliers)
    if options.report:
        return _report(options, model, vector, pairs, multipliers if options.multipliers is not None else None)
    if options.measures:
        return _measures(options, model, vector, pairs, multipliers)
    from steering.evaluation import evaluate

    with Bar("measuring", "batch") as bar:
        results = [result.as_dict() for result in evaluate(model, vector, pairs, multipliers, on_progress=bar.show)]
    return {"vector": options.vector, "pairs": len(pairs), "results": results}, results_table(results)


def _tasks(
    options: argparse.Namespace, model: "LanguageModel", vector: "SteeringVector", multipliers: list[float]
) -> tuple[dict[str, Any], str]:
    from steering.evaluation.harness import harness_results

    if options.task_limit is not None and options.task_limit < 1:
        raise SteeringError(f"--task-limit is {options.task_limit}; give a number from 1.")
    tasks = [name.strip() for name in options.tasks.split(",") if name.strip()]
    rows = harness_results(model, vector, multipliers, tasks, limit=options.task_limit, task_folder=options.task_folder)
    return {"vector": options.vector, "tasks": tasks, "results": rows}, _table(rows, None)


def _settings(options: argparse.Namespace, vector: "SteeringVector", pairs: "Pairs") -> "EvaluationSettings":
    from steering.evaluation.settings import NEW_TOKENS, PROMPTS, RANDOM_DIRECTIONS, EvaluationSettings
    from steering.training.vector_report import prompts_for

    given = {"url": options.endpoint, "model": options.endpoint_model, "rubric": options.rubric}
    count = PROMPTS if options.prompt_count is None else options.prompt_count
    drawn = RANDOM_DIRECTIONS if options.random_directions is None else options.random_directions
    return EvaluationSettings(
        tuple(prompts_for(vector, pairs, options.prompts, max(0, count))),
        max_new_tokens=NEW_TOKENS if options.max_new_tokens is None else options.max_new_tokens,
        judge=options.judge,
        judge_options={key: value for key, value in given.items() if value},
        random_directions=drawn,
        utility=options.utility,
        seed=options.seed,
    )


def _measures(
    options: argparse.Namespace,
    model: "LanguageModel",
    vector: "SteeringVector",
    pairs: "Pairs",
    multipliers: list[float],
) -> tuple[dict[str, Any], str]:
    from steering.evaluation.measures import DEFAULT_MEASURES, MeasureContext, measure

    asked = [name.strip() for name in options.measures.split(",") if name.strip()]
    settings = _settings(options, vector, pairs)
    with Bar("measuring", "part") as bar:
        context = MeasureContext(model, vector, pairs, multipliers, on_progress=bar.show, settings=settings)
        rows = measure(context, [*DEFAULT_MEASURES, *asked])
    answer: dict[str, Any] = {"vector": options.vector, "pairs": len(pairs), "results": rows}
    if context.judge:
        answer |= {"judge": context.judge.as_json(), "prompts": len(settings.prompts)}
    return answer, _table(rows, context.judge)


def _table(rows: list[dict[str, float]], judge: Any) -> str:
    names = list(rows[0])
    widths = [max(len(name), 8) for name in names]
    lines = ["  ".join(name.rjust(width) for name, width in zip(names, widths, strict=True))]
    for row in rows:
        lines.append("  ".join(f"{row[name]:{width}.3g}" for name, width in zip(names, widths, strict=True)))
    if judge:
        known = "" if judge.accuracy is None else f", right on {judge.accuracy:.0%} of answers it was not fitted on"
        lines += [f"judge: {judge.name}{known}", *judge.notes]
    return "\n".join(lines)


def _report(
    options: argparse.Namespace,
    model: "LanguageModel",
    vector: "SteeringVector",
    pairs: "Pairs",
    multipliers: list[float] | None,
) -> tuple[dict[str, Any], str]:
    from dataclasses import replace

    from steering.evaluation.report import write_report
    from steering.evaluation.store import RunFolder
    from steering.training.vector_report import evaluation_of, with_findings
    from steering.vectors.library import Library

    settings = _settings(options, vector, pairs)
    if multipliers:
        settings = replace(settings, multipliers=tuple(sorted((m for m in multipliers if m), key=abs)), finer=())
    folder = RunFolder(Path(options.report))
    folder.check(settings.key(model, vector, pairs))
    with Bar("evaluating", "percent") as bar, ctrl_c_stops(lambda: None) as stop:
        evaluation = evaluation_of(model, vector, pairs, settings, folder=folder, should_stop=stop.is_set)
        with closing(evaluation.run()) as reports:
            for progress in reports:
                bar.show(round(100 * progress.share), 100, doing=progress.doing)
    if progress.stopped or progress.summary is None:
        raise SteeringError(f"Stopped; the same command goes on from what is in {options.report}.")
    page = write_report(folder)
    if options.update:
        if not Path(options.vector).is_file():
            raise SteeringError("--update needs the vector's file, not its name on the shelf.")
        with_findings(Library().get(options.vector), progress, evaluation.name).save(options.vector)
    answer = {"vector": options.vector, "folder": options.report, "report": str(page), **folder.results()}
    return answer, "\n".join([*progress.summary.sentences, f"Report: {page}"])
