"""What happens on the Train tab: reading pairs, running a training, keeping its vector."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gradio as gr

from steering import paths
from steering.errors import SteeringError
from steering.evaluation import evaluate
from steering.generation import Sampling, stream
from steering.interface import words
from steering.interface.charts import loss_chart, margin_chart
from steering.interface.columns import cards, message, throttled
from steering.interface.mixer import mixer_value, read_mixer
from steering.interface.studio import Run, Studio
from steering.pairs import Pairs, PreferencePair, parse_pairs, read_pairs
from steering.training import Progress, training_run
from steering.training.efforts import EFFORTS
from steering.vectors import SteeringVector

TABLE_ROWS = 100
CHART_SECONDS = 1.5  # the chart is redrawn whole each time
SAMPLE_MULTIPLIERS = (-2.0, -1.0, 0.0, 1.0, 2.0)
SAMPLE_TOKENS = 48
COLUMN_HINTS = {"prompt": "question", "chosen": "matching", "rejected": "not_matching"}
METHOD_LABELS = {"bipo": "BiPO: optimise the vector in both directions"}
SKIP = gr.skip()


def example_sets() -> list[tuple[str, str]]:
    """(label, file) of the example sets that ship with the project."""
    folder = paths.shipped("assets") / "examples"
    return [(path.stem.replace("-", " "), path.name) for path in sorted(folder.glob("*.csv"))]


@dataclass
class TrainingDesk:
    """Handlers of the Train tab."""

    studio: Studio

    # ---- pairs: whatever goes wrong, the pairs read before stay

    def read_example(self, name: str | None, before: Pairs | None) -> tuple[Any, ...]:
        if name not in {file for _, file in example_sets()}:
            return (*self._unread("Choose an example set.", before), SKIP)
        stem = Path(name).stem
        return (
            *self._read(lambda: read_pairs(paths.shipped("assets") / "examples" / name), before),
            stem.replace("-", " "),
        )

    def read_file(
        self, file: str | None, prompt: str, chosen: str, rejected: str, before: Pairs | None
    ) -> tuple[Any, ...]:
        if not file:
            return self._unread("Drop a file first.", before) if before is None else (SKIP,) * 4
        return self._read(lambda: read_pairs(file, columns=_columns(prompt, chosen, rejected)), before)

    def read_text(self, text: str, prompt: str, chosen: str, rejected: str, before: Pairs | None) -> tuple[Any, ...]:
        if not (text or "").strip():
            return self._unread("Paste rows into the box first, with a first line that names the columns.", before)
        return self._read(lambda: parse_pairs(text, columns=_columns(prompt, chosen, rejected)), before)

    def _read(self, reader: Any, before: Pairs | None) -> tuple[Any, ...]:
        try:
            pairs = reader()
        except SteeringError as error:
            return self._unread(str(error), before)
        stem = Path(pairs.report.source).stem
        name = SKIP if stem in ("pasted text", "table") else stem.replace("_", " ").replace("-", " ")
        return pairs, words.report(pairs.report), pairs[:TABLE_ROWS].to_rows(), name

    @staticmethod
    def _unread(why: str, before: Pairs | None) -> tuple[Any, ...]:
        kept = words.note(f"The {len(before)} pairs read before are still here.") if before else ""
        return SKIP, words.problem(why) + kept, SKIP, SKIP

    def edited(self, rows: Sequence[Sequence[Any]], before: Pairs | None) -> tuple[Any, Any]:
        """The table's rows in place of the pairs it shows; the pairs past the table stay as they are."""
        shown = list(before[:TABLE_ROWS]) if before else []
        merged = []
        for number, row in enumerate(rows, start=1):
            texts = [str(cell or "") for cell in row]
            old = shown[number - 1] if number <= len(shown) else None
            new = PreferencePair(*texts, before=old.before if old else (), line=number)
            if any(text.strip() for text in texts):
                merged.append(new)
        rest = before[TABLE_ROWS:] if before else ()
        merged += [replace(pair, line=len(rows) + i) for i, pair in enumerate(rest, start=1)]
        try:
            pairs = Pairs.of(merged, source=before.report.source if before else "the table")
        except SteeringError as error:
            return SKIP, words.problem(str(error))
        if not pairs:
            return SKIP, words.problem("The table is empty; write at least one pair.")
        return pairs, words.report(pairs.report)

    # ---- training

    def train(
        self,
        pairs: Pairs | None,
        method: str,
        effort: str,
        layer: float,
        batch_size: float | None,
        learning_rate: float | None,
        beta: float | None,
        holdout: float,
        seed: float | None,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """Yields (status, loss chart, margin chart, vector, results, samples)."""
        if not pairs:
            yield (
                words.problem("There are no pairs yet: take an example set, drop a file or paste rows in step 1."),
                *[SKIP] * 5,
            )
            return
        run = self.studio.training_runs.begin(request)
        try:
            settings = dict(EFFORTS[effort if effort in EFFORTS else "quick"].settings)
            settings |= {"layer": int(layer), "batch_size": int(batch_size or 4), "beta": 0.1 if beta is None else beta}
            settings |= {"seed": int(seed or 0)}
            if learning_rate:
                settings["learning_rate"] = float(learning_rate)
            yield from self._wait_for_the_desk(run)
            try:
                yield from self._train(pairs, method, settings, float(holdout), run)
            finally:
                self.studio.training_news = ""
                self.studio.training.release()
        except _GaveUp:
            yield words.note("Stopped before the training began."), *[SKIP] * 5
        except SteeringError as error:
            yield words.problem(str(error)), *[SKIP] * 5

    def _wait_for_the_desk(self, run: Run) -> Iterator[tuple[Any, ...]]:
        """One training at a time: two would only slow each other down."""
        while not self.studio.training.acquire(timeout=0.5):
            if run.over():
                raise _GaveUp
            news = self.studio.training_news
            yield words.note(f"Another training is running{news}. Yours starts by itself when it ends."), *[SKIP] * 5

    def _train(
        self, pairs: Pairs, method: str, settings: dict[str, Any], holdout: float, run: Run
    ) -> Iterator[tuple[Any, ...]]:
        studio = self.studio
        training, held_out = pairs.split(holdout, settings["seed"])
        yield words.progress_bar(0, "Reading the pairs ..."), *_charts(), None, "", message()
        history: list[Progress] = []
        drawn = 0.0
        vector = None
        draft = studio.library.drafts.begin(Path(pairs.report.source).stem)
        with closing(
            training_run(studio.model, training, held_out, method, should_stop=run.over, **settings)
        ) as reports:
            for progress in reports:
                history.append(progress)
                if progress.vector is not None:  # kept on disk at once: a closed tab or a killed server loses nothing
                    vector = progress.vector
                    studio.library.drafts.keep(draft, vector)
                left = f", {words.duration(progress.seconds_left)} left" if progress.seconds_left else ""
                studio.training_news = f" (step {progress.step} of {progress.total_steps}{left})"
                due = time.monotonic() - drawn > CHART_SECONDS or progress.held_out
                if due and progress.stage == "training":
                    drawn = time.monotonic()
                    yield _status(progress), *_charts(history), SKIP, SKIP, SKIP
                elif progress.stage == "preparing":
                    text = progress.note or "Measuring the untouched model ..."
                    yield words.progress_bar(0, text), *[SKIP] * 5
        done = history[-1]
        if not done.step:
            studio.library.drafts.discard(draft)
            raise _GaveUp
        stopped = done.step < done.total_steps
        summary = (
            f"{'Stopped' if stopped else 'Done'} after {done.step} of {done.total_steps} steps, "
            f"{words.duration(done.seconds)}: {_where(vector)}."
        )
        yield words.progress_bar(1, f"{summary} Measuring it on the held-out pairs ..."), *_charts(history), *[SKIP] * 3
        if held_out:
            results = [result.as_dict() for result in evaluate(studio.model, vector, held_out)]
            vector.metrics = {**vector.metrics, "held_out": results}
        studio.library.drafts.keep(draft, vector)
        vector.extra["draft"] = draft
        table = words.results_table(vector.metrics.get("held_out", []), len(held_out))
        asked = (held_out or training)[0].prompt
        yield words.progress_bar(1, f"{summary} Writing sample answers ..."), SKIP, SKIP, vector, table, SKIP
        columns = [{vector: m} if m else {} for m in SAMPLE_MULTIPLIERS]
        kinds = ["baseline" if not m else "setting" if m > 0 else "opposite" for m in SAMPLE_MULTIPLIERS]
        named = _Titles(columns)
        sampling = Sampling(max_new_tokens=SAMPLE_TOKENS, repetition_penalty=1.1)
        for snapshot in throttled(stream(studio.model, asked, columns, sampling=sampling, should_stop=run.superseded)):
            shown = cards(snapshot, kinds, f"Asked: {asked}")
            yield *[SKIP] * 5, named.on(shown)
        yield words.progress_bar(1, f"{summary} Give it a name and save it."), *[SKIP] * 5

    # ---- keeping

    def save(self, vector: SteeringVector | None, name: str, behavior: str, mixer: Any) -> tuple[Any, ...]:
        """Puts the vector on the shelf and its slider, at +1, on the Playground."""
        if vector is None:
            return words.problem("There is nothing to save yet: train a vector first."), SKIP, SKIP, SKIP
        if not (name or "").strip():
            return words.problem("The vector needs a name: write one and save again."), SKIP, SKIP, SKIP
        try:
            draft = vector.extra.pop("draft", None)
            fresh = replace(vector, name=name.strip(), behavior=(behavior or "").strip())
            entry = self.studio.library.add(fresh)
            if draft:
                self.studio.library.drafts.discard(draft)
            multipliers, pins, _ = read_mixer(mixer)
            panel = mixer_value(self.studio, {entry.slug: fresh.default_multiplier}, pins, entry.slug)
        except SteeringError as error:
            return words.problem(str(error)), SKIP, SKIP, SKIP
        text = words.note(f"Saved as {entry.vector.name}. Its slider is on the Playground, set to +1.")
        return text, panel, gr.update(visible=True), None

    def list_drafts(self) -> tuple[Any, Any]:
        choices = [(label, token) for token, label in self.studio.library.drafts.labels()]
        value = choices[0][1] if choices else None
        return gr.update(visible=bool(choices)), gr.update(choices=choices, value=value)

    def open_draft(self, token: str | None) -> tuple[Any, ...]:
        try:
            vector = self.studio.library.drafts.open(token or "")
        except SteeringError as error:
            return SKIP, words.problem(str(error)), SKIP, SKIP
        vector.extra["draft"] = token
        table = words.results_table(vector.metrics.get("held_out", [])) or words.note("It was not measured to the end.")
        return vector, table, vector.name, words.note(f"Opened: {_where(vector)}. Give it a name and save it.")


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


def _charts(history: Sequence[Progress] = ()) -> tuple[Any, Any]:
    return loss_chart(history), margin_chart(history)


def _status(progress: Progress) -> str:
    left = f"about {words.duration(progress.seconds_left)} left" if progress.seconds_left is not None else ""
    text = (
        f"Step {progress.step} of {progress.total_steps} · {left} · loss {progress.loss:.3f} · "
        f"vector norm {progress.norm:.1f}"
    )
    if progress.held_out:
        text += " · held-out accuracy " + " and ".join(
            f"{100 * r.preference_accuracy:.0f} % at {r.multiplier:+g}" for r in progress.held_out
        )
    return words.progress_bar(progress.step / progress.total_steps, text)


def _where(vector: SteeringVector) -> str:
    return f"a vector of norm {vector.norm:.1f} at layer {', '.join(map(str, vector.layers))}"


def _columns(prompt: str, chosen: str, rejected: str) -> dict[str, str] | None:
    named = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    given = {role: column.strip() for role, column in named.items() if (column or "").strip()}
    return given or None
