"""Benchmarks of lm-evaluation-harness (MMLU, TruthfulQA, ...) on the steered model, by the harness's own API.

An optional extra: `pip install '.[harness]'`. The harness fetches its data sets from the Hub, or reads
tasks of one's own from a folder.
"""

import contextlib
import io
from collections.abc import Callable, Sequence
from typing import Any

from steering.errors import SteeringError
from steering.evaluation.preference import additions_at
from steering.intervention import steered
from steering.models.loading import LanguageModel
from steering.vectors.vector import SteeringVector

NEEDS_HARNESS = "Benchmarks need lm-evaluation-harness; install it with: pip install lm-eval."


def harness_results(
    model: LanguageModel,
    vector: SteeringVector,
    multipliers: Sequence[float],
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    task_folder: str | None = None,
    batch_size: int = 8,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[dict[str, float]]:
    """Run tasks at each multiplier.

    Args:
        tasks: names as `lm_eval --tasks list` shows them; limit: questions of each, None for all.
        task_folder: with tasks of one's own (YAML), beside those of the harness.

    Returns a row a multiplier: `multiplier`, and `task/metric` for every metric of every task. The vector is added at
    every position. Ends early, with the rows so far, when stopped between two multipliers.

    Raises SteeringError if the harness is not installed, does not know a task or cannot fetch its data.
    """
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise SteeringError(NEEDS_HARNESS) from error
    rows = []
    with contextlib.redirect_stdout(io.StringIO()):  # it prints tables
        known = TaskManager(include_path=task_folder)
        if unknown := [task for task in tasks if not known.match_tasks([task])]:
            raise SteeringError(f"lm-evaluation-harness has no task {unknown[0]!r}; `lm_eval --tasks list` names them.")
        wrapped = HFLM(pretrained=model.network, tokenizer=model.tokenizer, batch_size=batch_size)
        for multiplier, addition in additions_at(model, vector, multipliers).items():
            if should_stop():
                break
            try:
                with steered(model.blocks, addition):
                    found = simple_evaluate(
                        wrapped,
                        tasks=list(tasks),
                        task_manager=known,
                        limit=limit,
                        bootstrap_iters=0,
                        verbosity="ERROR",
                    )
            except Exception as error:  # whatever way the harness and its data sets have to fail
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                raise SteeringError(f"lm-evaluation-harness could not run {', '.join(tasks)}: {reason}") from error
            rows.append({"multiplier": multiplier, **_numbers(found["results"])})
    return rows


def _numbers(results: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return `task/metric` -> number, without standard errors and filters' names."""
    return {
        f"{task}/{metric.partition(',')[0]}": float(value)
        for task, metrics in results.items()
        for metric, value in metrics.items()
        if isinstance(value, int | float) and "stderr" not in metric and "," in metric
    }
