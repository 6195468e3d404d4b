"""Step 3 of the Train tab: a training runs, is watched and measured.

`RunStep.train` trains through `training.pipeline.run` and yields the parts of the page that change, by name: `status`
(HTML), `charts` (visible or not), `loss_chart`, `margin_chart`, `unsaved` (the run's vector, see `UnsavedRun`),
`results` (HTML) and `samples` (answer cards).
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.evaluation.pair_margins import PairMargin, suspects
from steering.generation.sampling import Sampling
from steering.interface import html
from steering.interface.answer_cards import cards, message, throttled
from steering.interface.app_state import AppState, Visit
from steering.interface.playground.answers import waiting
from steering.interface.playground.controls import DEFAULT_REPETITION_PENALTY
from steering.interface.runs import Run
from steering.interface.train import misfits
from steering.interface.train.save_step import UnsavedRun
from steering.interface.train.setting_control import Values
from steering.interface.train.settings_step import SettingsStep
from steering.interface.train.training_view import TrainingView, summary
from steering.interface.training_queue import NobodyWaits
from steering.pairs.dataset import Pairs, PreferencePair
from steering.pairs.tokenization import readable_pairs
from steering.training import default_checkpoint, pipeline
from steering.training.progress import Progress
from steering.training.registry import Method
from steering.vectors.vector import SteeringVector

SAMPLE_KINDS = ("opposite", "baseline", "setting")
"""Kinds of the sample columns, one for each of SAMPLE_MULTIPLIERS, which colour them (see `answer_cards.card`)."""
SAMPLE_TOKENS = 96
"""Most tokens of a sample answer: enough to judge it by, some seconds for three columns on two CPU cores."""
SAMPLE_MULTIPLIERS = (-1.5, 0.0, 1.5)
"""Where sample answers are written: strong enough to be told apart, and sound."""
SAMPLE_PROMPTS = 2
"""Held-out prompts that are answered, those first whose pairs the vector moves most."""
SAMPLE_SAMPLING = Sampling(max_new_tokens=SAMPLE_TOKENS, repetition_penalty=DEFAULT_REPETITION_PENALTY)
"""Greedy, with the Playground's repetition penalty, so that samples read as answers will read there."""
CONTINUE_HINT = "Train goes on from here, with the same pairs and settings."
NO_PAIRS = "There are no pairs yet: take an example set, drop a file or paste rows in step 1."
NOT_MEASURED = "No pairs were held out, so it was not measured."

Update = dict[str, Any]

logger = logging.getLogger(__name__)


@dataclass
class RunStep:
    """Runs trainings for all visitors, one at a time."""

    app: AppState
    settings_step: SettingsStep
    _draft_ids: dict[Path, str] = field(default_factory=dict)  # by checkpoint, of the runs that wrote one

    def train(self, pairs: Pairs | None, values: Values, request: gr.Request | None = None) -> Iterator[Update]:
        """Train a vector on the pairs with the settings of step 2; yield what changes on the page.

        Whatever ends it (the end, Stop, an error, a closed tab), the next training can begin.
        """
        if not pairs:
            yield {"status": html.problem(NO_PAIRS)}
            return
        run = self.app.training_runs.begin(request)
        try:
            method, settings = self.settings_step.chosen_method(values), self.settings_step.settings(values)
            holdout = float(values[self.settings_step.holdout])
            start_over = bool(values[self.settings_step.start_over])
            visit = self.app.visit(request)
            self.app.visitors.check_room()
            with closing(self.app.training.turn(visit.visitor.id, run.over)) as turn:
                for place in turn:
                    if not place.place:
                        break
                    yield {"status": html.note(place.words())}
                yield from self._train(visit, method, settings, pairs, holdout, run, start_over=start_over)
        except (NobodyWaits, _StoppedBeforeTraining):
            yield {"status": html.note("Stopped before the training began.")}
        except SteeringError as error:
            yield {"status": html.problem(str(error))}
        except Exception:  # a model or a method may fail in any way; the bar must not stand still as if it went on
            logger.exception("a training failed")
            yield {"status": html.problem("The training failed; the server's log says why.")}

    def _train(
        self,
        visit: Visit,
        method: Method,
        settings: dict[str, Any],
        pairs: Pairs,
        holdout: float,
        run: Run,
        *,
        start_over: bool,
    ) -> Iterator[Update]:
        seed = method.config(settings).seed
        training, held_out = readable_pairs(self.app.model, pairs).split(holdout, seed)
        view = TrainingView()
        yield _charts(view) | {
            "status": html.progress_bar(0, "Reading the pairs ..."),
            "unsaved": None,
            "results": "",
            **{f"samples_{number}": message() for number in range(SAMPLE_PROMPTS)},
            "charts": gr.update(visible=False),
            "misfits": gr.update(visible=False),
            "step_pairs": gr.update(open=False),
            "step_settings": gr.update(open=False, label=f"2  {method.label}"),
            "start": gr.update(variant="primary"),
            "save": gr.update(variant="secondary"),
        }
        arguments: dict[str, Any] = {
            "model": self.app.model,
            "pairs": training,
            "held_out": held_out,
            "method": method.name,
        }
        checkpoint = default_checkpoint(**arguments, folder=visit.visitor.checkpoints, **settings)
        draft_id = self._draft_id(visit, checkpoint, pairs, start_over=start_over)

        def save_draft(vector: SteeringVector) -> None:  # at once: a closed tab or a killed server loses nothing
            visit.library.drafts.keep(draft_id, vector)

        reports = self.app.run_training(
            **arguments,
            **settings,
            save=save_draft,
            should_stop=run.over,
            checkpoint=checkpoint,
            fresh=start_over,
            limits=visit.limits,
        )
        try:
            with closing(reports):
                for progress in reports:
                    if progress.stage in ("preparing", "training") and progress.vector is not None:
                        save_draft(progress.vector)
                    yield from self._show(progress, view)
                    if progress.stage == "measuring" and run.gone():
                        return  # the draft is kept; nobody reads the figures
        except pipeline.NothingTrained as nothing:
            visit.library.drafts.discard(draft_id)
            if nothing.stopped == "asked":
                raise _StoppedBeforeTraining from nothing
            raise
        vector = _vector(progress)
        results = vector.metrics.get("held_out", [])
        yield {
            "status": _ending(progress, "Writing sample answers ..."),
            "unsaved": UnsavedRun(vector, draft_id),
            "results": html.results_table(results, len(held_out)) or html.note(NOT_MEASURED),
            "start": gr.update(variant="secondary"),
            "save": gr.update(variant="primary"),
            **misfits.shown(progress.pair_margins, pairs),
        }
        for number, pair in enumerate(_most_moved(held_out or training, progress.pair_margins)):
            yield from self._samples(f"samples_{number}", vector, pair, run)
        yield {"status": _ending(progress, "Read the answers, give it a name and save it.")}

    def _show(self, progress: Progress, view: TrainingView) -> Iterator[Update]:
        """Show one report."""
        if progress.stage in ("preparing", "training"):
            view.add(progress)
            self.app.training.status = view.status
            if progress.stage == "preparing":
                yield {"status": view.html()}
            elif view.due:
                charts = _charts(view) if view.has_curve else {}
                yield {"status": view.html(), **charts, "charts": gr.update(visible=view.has_curve)}
        elif progress.stage == "trained":
            text = f"{summary(progress, _vector(progress))} Measuring ..."
            yield {"status": html.progress_bar(1, text), **_charts(view)}
        elif progress.stage == "measuring":
            where = f"batch {progress.step} of {progress.total_steps}"
            text = f"Measuring the vector on the held-out pairs, {where} ..."
            yield {"status": html.progress_bar(progress.step / progress.total_steps, text)}

    def _samples(self, part: str, vector: SteeringVector, pair: PreferencePair, run: Run) -> Iterator[Update]:
        """Answer one prompt at each of SAMPLE_MULTIPLIERS, in the queue with the Playground's visitors.

        A failure costs only the samples: the vector is measured and can be saved without them.
        """
        columns = [{vector: multiplier} if multiplier else {} for multiplier in SAMPLE_MULTIPLIERS]
        asked = f"Asked: {pair.prompt}"
        try:
            server = self.app.decode_server("float16")
            answers = server.stream(
                pair.prompt,
                columns,
                before=pair.before,
                sampling=SAMPLE_SAMPLING,
                should_stop=lambda: run.superseded() or run.gone(),
            )
            for update in throttled(answers):
                if isinstance(update, int):  # its place in the queue
                    yield {part: message(waiting(update) or asked)}
                    continue
                value = cards(update, SAMPLE_KINDS, asked)
                for card, multiplier in zip(value["columns"], SAMPLE_MULTIPLIERS, strict=True):
                    card["title"] = f"{multiplier:+g}" if multiplier else "0: untouched"
                yield {part: value}
        except Exception as error:  # a model may fail in any way, and there is a vector to be measured
            logger.warning("no sample answers were written", exc_info=True)
            reason = str(error) if isinstance(error, SteeringError) else "the model failed; the server's log says how."
            yield {part: message(problem=f"No sample answers were written: {reason}")}

    def _draft_id(self, visit: Visit, checkpoint: Path | None, pairs: Pairs, *, start_over: bool) -> str:
        """Return the draft in which the run stores its vector: a run that continues replaces its shorter draft."""
        continues = checkpoint is not None and checkpoint.is_file() and not start_over
        if continues and checkpoint in self._draft_ids:
            return self._draft_ids[checkpoint]
        draft_id = visit.library.drafts.begin(Path(pairs.report.source).stem)
        if checkpoint is not None:
            self._draft_ids[checkpoint] = draft_id
        return draft_id


def _vector(progress: Progress) -> SteeringVector:
    """Return the vector of a report of the stage `trained` or a later one."""
    assert progress.vector is not None
    return progress.vector


def _charts(view: TrainingView) -> Update:
    return dict(zip(("loss_chart", "margin_chart"), view.charts(), strict=True))


def _most_moved(pairs: Pairs, margins: Sequence[PairMargin]) -> list[PreferencePair]:
    """Choose the pairs with different prompts that the vector moves most; the first ones where that is not known."""
    order = [pairs[margin.index] for margin in reversed(suspects(margins))] or list(pairs)
    return list({pair.conversation: pair for pair in reversed(order)}.values())[::-1][:SAMPLE_PROMPTS]


def _ending(progress: Progress, to_do: str) -> str:
    """Render how the run ended and what to do next."""
    notes = [progress.note, CONTINUE_HINT if progress.stopped in ("asked", "time") else ""]
    bar = html.progress_bar(1, f"{summary(progress, _vector(progress))} {to_do}")
    return bar + "".join(html.note(text) for text in notes if text)


class _StoppedBeforeTraining(Exception):
    """The visitor pressed Stop before there was anything to save."""
