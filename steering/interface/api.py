"""The endpoints that programs and agents call: typed, described, the same as the page does."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.evaluation import evaluate
from steering.generation.results import Column
from steering.generation.sampling import Sampling
from steering.interface.app_state import AppState
from steering.interface.playground.controls import DEFAULT_TOKENS, LONGEST_PROMPT, MOST_TOKENS
from steering.interface.playground.sliders import MAX_COLUMNS, fitting
from steering.intervention.additions import Setting
from steering.models.chat_template import DEFAULT_SYSTEM_PROMPT
from steering.pairs.dataset import Pairs, PreferencePair
from steering.training import training_run
from steering.training.methods.bipo.config import one_or_all
from steering.training.methods.bipo.presets import EFFORTS

HOLDOUT = 0.2
MOST_PAIRS = 5000


def document(app: AppState) -> None:
    """Offer the endpoints, and the same as tools of the Model Context Protocol."""

    def settings_of(columns: list[dict[str, float]]) -> list[Setting]:
        if not isinstance(columns, list) or not 1 <= len(columns) <= MAX_COLUMNS:
            raise SteeringError(f"Give 1 to {MAX_COLUMNS} columns, each a mapping of vector names to multipliers.")
        return [setting_of(column) for column in columns]

    def setting_of(column: dict[str, float]) -> Setting:
        if not isinstance(column, dict):
            raise SteeringError("A setting is a mapping of vector names to multipliers, such as {'cheerful': 1.5}.")
        return {app.library.get(str(name), files=False): m for name, m in column.items()}

    def generate(
        prompt: str,
        columns: list[dict[str, float]],
        system: str = DEFAULT_SYSTEM_PROMPT,
        max_new_tokens: int = DEFAULT_TOKENS,
        temperature: float = 0.0,
        seed: int = 0,
        repetition_penalty: float = 1.0,
        weights: str = "float16",
    ) -> list[dict[str, Any]]:
        """Answer one prompt under several settings of steering vectors, side by side.

        Args:
            prompt: What the model is asked.
            columns: One setting per answer, vector name to multiplier; {} is the untouched model.
            system: System prompt.
            max_new_tokens: Most tokens an answer may have.
            temperature: 0 is greedy.
            seed: Of the random numbers, shared by all columns.
            repetition_penalty: Above 1 makes words said before rarer.
            weights: "float16" as on the page, or "full" for the model's own weights, which is slower on a CPU.

        Returns:
            One {setting, text, tokens} per column.
        """
        with _plainly():
            _check(prompt=prompt, system=system)
            sampling = Sampling(
                min(_whole(max_new_tokens, "max_new_tokens"), MOST_TOKENS),
                temperature=temperature,
                repetition_penalty=repetition_penalty,
                seed=seed,
            )
            server = app.decode_server(weights)
            answers: list[Column] = []
            for news in server.stream(prompt, settings_of(columns), system=system, sampling=sampling):
                answers = answers if isinstance(news, int) else news
        return [
            {"setting": column, "text": answer.text, "tokens": answer.tokens}
            for column, answer in zip(columns, answers, strict=True)
        ]

    def preview(prompt: str, setting: dict[str, float], system: str = DEFAULT_SYSTEM_PROMPT, top: int = 10) -> dict:
        """Tell the next word after a prompt, untouched and steered, without writing an answer.

        Args:
            prompt: What the model is asked.
            setting: Vector name to multiplier.
            system: System prompt.
            top: How many of the most probable tokens to tell.

        Returns:
            {kl, baseline, steered}: how far the setting moves the distribution, in nats, and the most probable tokens
            of either model, each {text, untouched, steered} with its two probabilities.
        """
        with _plainly():
            _check(prompt=prompt, system=system)
            top = max(1, min(_whole(top, "top"), 100))
            found = app.preview("float16").next_token(prompt, setting_of(setting), system=system, top=top)
        lists = {"baseline": found.baseline, "steered": found.steered}
        return {"kl": found.kl, **{name: [vars(chance) for chance in chances] for name, chances in lists.items()}}

    def list_vectors() -> list[dict[str, Any]]:
        """List the steering vectors on the shelf that fit the model.

        Returns:
            One {name, behavior, layers, default_multiplier} per vector; `name` is what `generate` takes.
        """
        return [
            {
                "name": entry.slug,
                "behavior": entry.vector.behavior,
                "layers": list(entry.vector.layers),
                "default_multiplier": entry.vector.default_multiplier,
            }
            for entry in fitting(app)
        ]

    def train(
        pairs: list[dict[str, str]], name: str, behavior: str = "", effort: str = "quick", seed: int = 0
    ) -> Iterator[dict[str, Any]]:
        """Train a steering vector on preference pairs and put it on the shelf; tells its progress.

        Args:
            pairs: At least one {prompt, chosen, rejected}: chosen shows the behavior, rejected its opposite.
            name: What the vector is to be called.
            behavior: What it moves, in a few words.
            effort: "quick" (about a minute on a laptop), "standard" or "paper".
            seed: Of the order of pairs and the signs drawn.

        Returns:
            {step, steps, loss, seconds_left} while it trains; at the end {vector, layer, norm, steps, seconds}, where
            `vector` is the name that `generate` takes.
        """
        yield from _train(app, pairs, name, behavior, effort, seed)

    gr.api(generate, api_name="generate", concurrency_id="generate")
    gr.api(preview, api_name="preview", concurrency_id="preview", concurrency_limit=4)
    gr.api(list_vectors, api_name="list_vectors")
    gr.api(train, api_name="train", concurrency_id="train", concurrency_limit=1)


def _train(
    app: AppState, rows: list[dict[str, str]], name: str, behavior: str, effort: str, seed: int
) -> Iterator[dict[str, Any]]:
    with _plainly():
        pairs = _pairs(rows)
        if effort not in EFFORTS:
            raise SteeringError(f"There is no effort {effort!r}; choose one of: {', '.join(EFFORTS)}.")
        if not str(name).strip():
            raise SteeringError("The vector needs a name.")
        if not app.training.acquire(blocking=False):
            raise SteeringError(f"Another training is running{app.training_news}; try again when it has ended.")
        try:
            app.training_news = ", just begun"
            training, held_out = pairs.split(HOLDOUT, seed)
            settings = {"seed": seed, **EFFORTS[effort].settings}
            reports = training_run(app.model, training, held_out, **settings)
            for progress in reports:
                if progress.stage == "training":
                    app.training_news = f" (step {progress.step} of {progress.total_steps})"
                    left, steps = round(progress.seconds_left, 1), progress.total_steps
                    yield {"step": progress.step, "steps": steps, "loss": progress.loss, "seconds_left": left}
            vector = replace(progress.vector, name=str(name).strip()[:80], behavior=str(behavior).strip()[:200])
            if held_out:
                results = [result.as_dict() for result in evaluate(app.model, vector, held_out)]
                vector.metrics = {**vector.metrics, "held_out": results}
            entry = app.library.add(vector)
        finally:
            app.training_news = ""
            app.training.release()
    yield {
        "vector": entry.slug,
        "layer": one_or_all(vector.layers),
        "norm": round(vector.norm, 3),
        "steps": progress.step,
        "seconds": round(progress.seconds, 1),
    }


def _pairs(rows: list[dict[str, str]]) -> Pairs:
    if not isinstance(rows, list) or not 1 <= len(rows) <= MOST_PAIRS:
        raise SteeringError(f"Give 1 to {MOST_PAIRS:,} pairs, each with prompt, chosen and rejected.")
    made = []
    for number, row in enumerate(rows, start=1):
        texts = [row.get(role) if isinstance(row, dict) else None for role in ("prompt", "chosen", "rejected")]
        if not all(isinstance(text, str) and text.strip() and len(text) <= LONGEST_PROMPT for text in texts):
            raise SteeringError(
                f"Pair {number} is unsound: prompt, chosen and rejected must be texts of at most {LONGEST_PROMPT:,} "
                "characters, none of them empty."
            )
        made.append(PreferencePair(*texts, line=number))
    return Pairs.of(made, source="the API")


def _check(**texts: str) -> None:
    for name, text in texts.items():
        if not isinstance(text, str) or len(text) > LONGEST_PROMPT:
            raise SteeringError(f"{name} must be a text of at most {LONGEST_PROMPT:,} characters.")


def _whole(number: object, name: str) -> int:
    if isinstance(number, bool) or not isinstance(number, int | float) or number != number // 1:
        raise SteeringError(f"{name} is {str(number)[:40]!r}; give a whole number.")
    return int(number)


@contextmanager
def _plainly() -> Iterator[None]:
    """What went wrong as one sentence for the caller, without a traceback in the log."""
    try:
        yield
    except SteeringError as error:
        raise gr.Error(str(error), print_exception=False) from error
