"""What happens in steps 2 and 3 of the Train tab: a training runs, is watched and measured."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.evaluation import evaluate
from steering.generation.stream import Sampling, stream
from steering.interface import html
from steering.interface.answer_cards import cards, message, throttled
from steering.interface.app_state import AppState, Run
from steering.interface.charts import loss_chart, margin_chart
from steering.interface.train.settings_step import Choices, Given
from steering.pairs.dataset import Pairs
from steering.training import Progress, default_checkpoint, training_run
from steering.vectors.vector import SteeringVector

CHART_SECONDS = 1.5  # the chart is redrawn whole each time
SAMPLE_MULTIPLIERS = (-2.0, -1.0, 0.0, 1.0, 2.0)
SAMPLE_TOKENS = 48
ENDINGS = {"": "Done", "early": "Ended early", "asked": "Stopped", "broken": "Broke off"}
GO_ON = "Train goes on from here, with the same pairs and settings."
SKIP = gr.skip()


@dataclass
class TrainingDesk:
    """Handlers of step 3, which yield (status, loss chart, margin chart, vector, results, samples)."""

    app: AppState
    choices: Choices
    _drafts: dict[Path, str] = field(default_factory=dict)

    def train(self, pairs: Pairs | None, given: Given, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        if not pairs:
            yield (
                html.problem("There are no pairs yet: take an example set, drop a file or paste rows in step 1."),
                *[SKIP] * 5,
            )
            return
        run = self.app.training_runs.begin(request)
        try:
            settings = self.choices.settings(given)
            yield from self._wait_for_the_desk(run)
            try:
                yield from self._train(pairs, settings, given, run)
            finally:
                self.app.training_news = ""
                self.app.training.release()
        except _GaveUp:
            yield html.note("Stopped before the training began."), *[SKIP] * 5
        except SteeringError as error:
            yield html.problem(str(error)), *[SKIP] * 5

    def _wait_for_the_desk(self, run: Run) -> Iterator[tuple[Any, ...]]:
        """One training at a time: two would only slow each other down."""
        while not self.app.training.acquire(timeout=0.5):
            if run.over():
                raise _GaveUp
            news = self.app.training_news
            text = f"Another training is running{news}. Yours starts by itself when it ends."
            yield html.note(text if news else "A moment: the speed of this machine is being measured."), *[SKIP] * 5
        self.app.training_news = ", just begun"

    def _train(self, pairs: Pairs, settings: dict[str, Any], given: Given, run: Run) -> Iterator[tuple[Any, ...]]:
        training, held_out = pairs.split(float(given[self.choices.holdout]), settings.get("seed", 0))
        watch = _Watch()
        yield html.progress_bar(0, "Reading the pairs ..."), *watch.charts(), None, "", message()
        method = given[self.choices.method]
        job = {"model": self.app.model, "pairs": training, "held_out": held_out, "method": method, **settings}
        checkpoint = default_checkpoint(**job)
        anew = bool(given[self.choices.anew])
        draft = self._draft(checkpoint, pairs, anew)
        drafts = self.app.library.drafts
        with closing(training_run(**job, should_stop=run.over, checkpoint=checkpoint, fresh=anew)) as reports:
            for progress in reports:
                watch.hear(progress)
                if progress.vector is not None:  # kept on disk at once: a closed tab or a killed server loses nothing
                    drafts.keep(draft, progress.vector)
                self.app.training_news = watch.news
                if watch.due:
                    yield watch.status(), *watch.charts(), *[SKIP] * 3
                elif progress.stage == "preparing":
                    yield watch.status(), *[SKIP] * 5
        if not progress.step:
            drafts.discard(draft)
            raise _GaveUp
        vector, summary = progress.vector, _summary(progress)
        yield html.progress_bar(1, f"{summary} Writing sample answers ..."), *watch.charts(), *[SKIP] * 3
        yield from self._samples(vector, (held_out or training)[0].prompt, run)  # something to read meanwhile
        if held_out:
            yield html.progress_bar(1, f"{summary} Measuring it on the held-out pairs ..."), *[SKIP] * 5
            results = [result.as_dict() for result in evaluate(self.app.model, vector, held_out)]
            vector.metrics = {**vector.metrics, "held_out": results}
        drafts.keep(draft, vector)
        vector.extra["draft"] = draft
        table = html.results_table(vector.metrics.get("held_out", []), len(held_out))
        advice = [GO_ON] * (progress.stopped == "asked")
        notes = "".join(map(html.note, filter(None, [progress.note, *advice])))
        done = html.progress_bar(1, f"{summary} Give it a name and save it.") + notes
        yield done, SKIP, SKIP, vector, table, SKIP

    def _draft(self, checkpoint: Path | None, pairs: Pairs, anew: bool) -> str:
        """Where the run keeps its vector: one that goes on takes the place of its earlier, shorter self."""
        if anew or checkpoint is None or not checkpoint.is_file() or checkpoint not in self._drafts:
            token = self.app.library.drafts.begin(Path(pairs.report.source).stem)
            self._drafts |= {checkpoint: token} if checkpoint else {}
            return token
        return self._drafts[checkpoint]

    def _samples(self, vector: SteeringVector, asked: str, run: Run) -> Iterator[tuple[Any, ...]]:
        columns = [{vector: m} if m else {} for m in SAMPLE_MULTIPLIERS]
        kinds = ["baseline" if not m else "setting" if m > 0 else "opposite" for m in SAMPLE_MULTIPLIERS]
        named = _Titles(columns)
        sampling = Sampling(max_new_tokens=SAMPLE_TOKENS, repetition_penalty=1.1)
        options = {"sampling": sampling, "should_stop": run.superseded, "weights": "float16"}
        written = stream(self.app.model, asked, columns, **options)
        for snapshot in throttled(written):
            yield *[SKIP] * 5, named.on(cards(snapshot, kinds, f"Asked: {asked}"))


class _Watch:
    """What is shown of a run while it goes on.

    Attributes:
        due: whether the charts should be drawn with the latest report: the first point at once, then now and then.
        news: how far it is, for those who wait.
    """

    def __init__(self) -> None:
        self.due, self.news = False, ", just begun"
        self._latest = Progress("preparing")
        self._curve: list[dict[str, Any]] = []
        self._drawn = float("-inf")
        self._first: tuple[int, float] | None = None  # step and time of the first report
        self._layers = self._told = ""

    def hear(self, progress: Progress) -> None:
        self._latest = progress
        if progress.settings:  # it is prepared, and this note stays
            layer = progress.settings["layer"]
            self._layers = f"layer {layer}" if isinstance(layer, int) else f"layers {', '.join(map(str, layer))}"
            self._told = progress.note
        if progress.loss is not None:
            self._curve.append(_point(progress))
        if progress.vector is not None and self._curve:  # of a run that went on, it knows the steps before
            first = self._curve[0]["step"]
            earlier = progress.vector.metrics.get("curve", [])
            self._curve = [point for point in earlier if point["step"] < first] + self._curve
        now = time.monotonic()
        if progress.stage == "training":
            self._first = self._first or (progress.step, now)
            left = f", {self._left}" if self._left else ""
            self.news = f" (step {progress.step} of {progress.total_steps}{left})"
        late = now - self._drawn > CHART_SECONDS or progress.held_out is not None
        self.due = progress.stage == "training" and late
        if self.due:
            self._drawn = now

    def charts(self) -> tuple[Any, Any]:
        total = self._latest.total_steps
        return loss_chart(self._curve, total), margin_chart(self._curve, total)

    def status(self) -> str:
        progress = self._latest
        if progress.stage == "preparing":
            share = progress.step / progress.total_steps if progress.total_steps else 0
            looking = "" if progress.settings else progress.note
            text = looking or "Measuring the untouched model ..."
            return html.progress_bar(share, text) + self._note()
        parts = [f"Step {progress.step} of {progress.total_steps}", self._layers]
        if self._left:
            parts.insert(1, self._left)
        parts += [f"loss {progress.loss:.3f}", f"vector norm {progress.norm:.1f}"]
        measured = next((point["held_out"] for point in reversed(self._curve) if "held_out" in point), [])
        if measured:
            each = [f"{100 * r['preference_accuracy']:.0f} % at {r['multiplier']:+g}" for r in measured]
            parts.append(f"held-out accuracy {' and '.join(each)}")
        return html.progress_bar(progress.step / progress.total_steps, " · ".join(parts)) + self._note()

    @property
    def _left(self) -> str:
        """Told from the second report on: what came before the first step would be taken for many times itself."""
        step, began = self._first
        done = self._latest.step - step
        if not done:
            return ""
        rest = self._latest.total_steps - self._latest.step
        return f"about {html.duration((time.monotonic() - began) / done * rest)} left"

    def _note(self) -> str:
        latest = self._latest.note if self._latest.stage == "training" else ""
        return "".join(map(html.note, filter(None, [self._told, latest])))


def _point(progress: Progress) -> dict[str, Any]:
    """A report as a point of the curve, in the form in which vectors keep it."""
    point: dict[str, Any] = {"step": progress.step, "loss": progress.loss}
    if progress.held_out:
        point |= {"held_out_loss": progress.held_out_loss, "held_out": [r.as_dict() for r in progress.held_out]}
    return point


def _summary(done: Progress) -> str:
    return (
        f"{ENDINGS[done.stopped]} after {done.step} of {done.total_steps} steps, {html.duration(done.seconds)}: "
        f"{html.where(done.vector)}."
    )


class _GaveUp(Exception):
    """The visitor pressed Stop before there was anything to keep."""


@dataclass
class _Titles:
    """Sample columns are titled by multiplier alone: the vector has no name yet."""

    columns: Sequence[dict[SteeringVector, float]]
    titles: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.titles = [f"{next(iter(c.values())):+g}" if c else "0: untouched" for c in self.columns]

    def on(self, shown: dict[str, Any]) -> dict[str, Any]:
        for card, title in zip(shown["columns"], self.titles, strict=True):
            card["title"] = title
        return shown
