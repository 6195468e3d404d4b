"""An evaluation on the page: it runs in the queue of trainings, is watched, stopped and goes on."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.evaluation.progress import EvaluationProgress
from steering.evaluation.report import write_report
from steering.evaluation.run import Evaluation
from steering.evaluation.settings import EvaluationSettings
from steering.interface import html
from steering.interface.app_state import AppState, Visit
from steering.interface.evaluate import view
from steering.interface.evaluate.earlier import folder_of
from steering.interface.evaluate.turn import Update, in_turn
from steering.interface.files import downloadable
from steering.interface.runs import Run
from steering.interface.train.pairs_reading import example_sets, examples_folder
from steering.limits import Limits
from steering.pairs.dataset import Pairs, read_pairs
from steering.pairs.tokenization import readable_pairs
from steering.training.pipeline import Deadline
from steering.training.vector_report import evaluation_of, prompts_for, trained_and_held_out, with_findings
from steering.vectors.entry import Entry
from steering.vectors.vector import SteeringVector

STOPPED = "Stopped. Evaluate goes on from here, with the same settings."
OWN_PROMPTS_MOST = 60


@dataclass(frozen=True)
class Wish:
    """What a visitor wants evaluated.

    Attributes:
        slug: of the vector; pairs: that show the behavior.
        prompt_set: `pairs`, `open` or `own`; own_prompts: a text with one in each line.
        count, tokens, random_directions: numbers of prompts, new tokens and directions.
        judge: its name; baselines: their names; judge_options: of the judge `endpoint`.
        utility: whether multiple-choice questions are asked.
    """

    slug: str
    pairs: Pairs
    prompt_set: str
    own_prompts: str
    count: int
    tokens: int
    random_directions: int
    judge: str
    baselines: tuple[str, ...]
    judge_options: Mapping[str, str] = field(default_factory=dict)
    utility: bool = False


@dataclass
class RunStep:
    """Runs evaluations for all visitors, one at a time."""

    app: AppState
    _found: dict[str, tuple[str, SteeringVector]] = field(default_factory=dict)  # visitor -> slug, vector with findings

    def evaluate(self, wish: Wish, request: gr.Request | None) -> Iterator[Update]:
        """Evaluate; yield what changes: `status`, `verdict`, `chart`, `table`, `answers`, `keep`, `report`."""

        def prepare(visit: Visit, run: Run) -> Iterator[Update]:
            if not wish.slug:
                raise SteeringError("Choose a vector first.")
            return self._evaluate(visit, visit.library.entry(wish.slug), wish, run)

        return in_turn(self.app, request, "evaluation", prepare)

    def _evaluate(self, visit: Visit, entry: Entry, wish: Wish, run: Run) -> Iterator[Update]:
        model = self.app.model
        yield {"status": html.progress_bar(0, "Reading the pairs ..."), "verdict": "", "table": ""}
        pairs = readable_pairs(model, wish.pairs)
        settings = settings_for(entry.vector, pairs, wish, visit.limits)
        folder = folder_of(visit, settings.key(model, entry.vector, pairs))
        deadline = Deadline(run.over, visit.limits.training_seconds)
        should_stop = self.app.in_use.until_changed(deadline)
        evaluation = evaluation_of(model, entry.vector, pairs, settings, folder=folder, should_stop=should_stop)
        with closing(evaluation.run()) as reports:
            for progress in reports:
                yield self._shown(evaluation, progress)
        ending: Update = {}
        if progress.points:
            ending["curve"] = view.curve_found(view.Found.so_far(progress, evaluation.name))
        ending |= {"answers": view.answer_rows(evaluation.writer.answers, settings.prompts)}
        if progress.stopped:
            yield ending | {"status": html.progress_bar(progress.share, STOPPED)}
            return
        seconds = html.duration(progress.seconds)
        can_keep = entry.section == "own"  # those that ship are read-only
        if can_keep:
            self._found[visit.visitor.id] = (entry.slug, with_findings(entry.vector, progress, evaluation.name))
        yield ending | {
            "status": html.progress_bar(1, f"Done in {seconds}. Read the answers below and see whether you agree."),
            "report": gr.update(value=downloadable(write_report(folder)), interactive=True),
            "keep": gr.update(interactive=can_keep),
        }

    def _shown(self, evaluation: Evaluation, progress: EvaluationProgress) -> Update:
        left = f", about {html.roughly(progress.seconds_left)} left" if progress.seconds_left else ""
        words = progress.doing[:1].upper() + progress.doing[1:]
        update: Update = {"status": html.progress_bar(progress.share, f"{words}{left} ...")}
        if progress.points:
            found = view.Found.so_far(progress, evaluation.name)
            update |= {
                "verdict": view.verdict(found),
                "chart": gr.update(value=view.chart(found), visible=True),
                "legend": view.LEGEND,
                "beside": gr.update(visible=True),
                "texts": gr.update(visible=True),
                "table": view.points_table(found),
                "answers": view.answer_rows(evaluation.writer.answers, evaluation.settings.prompts),
            }
        return update

    def keep(self, request: gr.Request | None) -> tuple[str, bool]:
        """Write what was found into the vector's file; return words for the page, and whether the shelf changed."""
        visit = self.app.visit(request)
        if visit.visitor.id not in self._found:
            return html.problem("Evaluate a vector first."), False
        slug, vector = self._found.pop(visit.visitor.id)
        try:
            visit.library.replace(slug, vector)
        except SteeringError as error:
            return html.problem(str(error)), False
        low, high = vector.metrics["useful_range"]
        return html.note(f"Kept: its slider goes from {html.signed(low)} to {html.signed(high)} now."), True


def settings_for(vector: SteeringVector, pairs: Pairs, wish: Wish, limits: Limits) -> EvaluationSettings:
    """Make the settings of what a visitor wants; SteeringError for numbers or prompts that cannot be."""
    if wish.prompt_set == "own":
        lines = [line.strip() for line in wish.own_prompts.splitlines() if line.strip()]
        prompts = list(dict.fromkeys(lines))[:OWN_PROMPTS_MOST]
        if len(prompts) < 2:
            raise SteeringError("Write two prompts or more, one in each line.")
        for prompt in prompts:
            limits.check_request(1, 1, prompt, "", ())
    else:
        prompts = prompts_for(vector, pairs, wish.prompt_set, wish.count)
    return EvaluationSettings(
        tuple(prompts),
        max_new_tokens=wish.tokens,
        judge=wish.judge,
        judge_options=dict(wish.judge_options),
        utility=wish.utility,
        baselines=wish.baselines,
        random_directions=wish.random_directions,
    )


def pairs_of(vector: SteeringVector) -> str:
    """Return the file name of the example set that a vector was made of; empty if it is none of them."""
    for _, file in example_sets():
        if vector.pairs.get("source") == file:
            training, _ = trained_and_held_out(vector, read_pairs(examples_folder() / file))
            return file if len(training) else ""
    return ""


def read_upload(path: str, visit: Visit) -> Pairs:
    """Read pairs that were dropped on the tab."""
    visit.limits.check_file(Path(path))
    return read_pairs(path, limits=visit.limits)


def wish_of(values: Mapping[str, Any], pairs: Pairs | None) -> Wish:
    """Make a wish of the tab's fields, which a browser may send in any state."""
    if not pairs:
        raise SteeringError("Choose the pairs that show the behavior: the judge learns from them.")
    return Wish(
        str(values["vector"] or ""),
        pairs,
        str(values["prompt_set"]),
        str(values["own_prompts"] or ""),
        int(values["count"]),
        int(values["tokens"]),
        int(values["random_directions"]),
        str(values["judge"]),
        tuple(str(name) for name in values["baselines"] or ()),
        _endpoint_options(values) if values["judge"] == "endpoint" else {},
        bool(values.get("utility")),
    )


def _endpoint_options(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the options of the judge `endpoint`, as far as they are given; on a public page there are none."""
    given = {"url": values.get("url"), "model": values.get("endpoint_model"), "rubric": values.get("rubric")}
    return {key: str(value).strip() for key, value in given.items() if value}
