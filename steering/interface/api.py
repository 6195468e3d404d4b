"""The endpoints that programs and agents call: typed, described, the same as the page does."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.generation.results import Column
from steering.generation.sampling import Sampling
from steering.interface.api_training import described_methods, plain_errors, train_for
from steering.interface.app_state import AppState
from steering.interface.playground.controls import DEFAULT_TOKENS, LONGEST_PROMPT, MOST_TOKENS, Controls
from steering.interface.playground.sliders import MAX_COLUMNS, fitting
from steering.intervention.additions import Setting
from steering.models.chat_template import DEFAULT_SYSTEM_PROMPT


def document(app: AppState) -> None:
    """Offer the endpoints, and the same as tools of the Model Context Protocol."""

    def generate(
        prompt: str,
        columns: list[dict[str, float]],
        system: str = DEFAULT_SYSTEM_PROMPT,
        max_new_tokens: int = DEFAULT_TOKENS,
        temperature: float = 0.0,
        seed: int = 0,
        repetition_penalty: float = Controls.penalty,
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
            repetition_penalty: Above 1 makes words said before rarer; the default is the page's.
            weights: "float16" as on the page, or "full" for the model's own weights, which is slower on a CPU.

        Returns:
            One {setting, text, tokens} per column.
        """
        with plain_errors():
            _check(prompt=prompt, system=system)
            sampling = Sampling(
                min(_whole(max_new_tokens, "max_new_tokens"), MOST_TOKENS),
                temperature=temperature,
                repetition_penalty=repetition_penalty,
                seed=seed,
            )
            server = app.decode_server(weights)
            answers: list[Column] = []
            for update in server.stream(prompt, _settings(app, columns), system=system, sampling=sampling):
                answers = answers if isinstance(update, int) else update  # a number is the place in the queue
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
        with plain_errors():
            _check(prompt=prompt, system=system)
            top = max(1, min(_whole(top, "top"), 100))
            result = app.preview("float16").next_token(prompt, _setting(app, setting), system=system, top=top)
        lists = {"baseline": result.baseline, "steered": result.steered}
        return {"kl": result.kl, **{name: [vars(chance) for chance in chances] for name, chances in lists.items()}}

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

    def list_methods() -> list[dict[str, Any]]:
        """List the ways to train a vector, with the presets and settings of each.

        Returns:
            One {name, label, description, presets, settings} per method. `name`, a preset's name and a setting's name
            are what `train` takes. A setting is {name, label, help, unit, type, range, default}; its type is `layers`,
            `integer`, `number`, `flag` or `choice`.
        """
        return described_methods()

    def train(
        pairs: list[dict[str, str]],
        name: str,
        behavior: str = "",
        effort: str = "",
        seed: int = 0,
        method: str = "bipo",
        settings: dict[str, Any] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Train a steering vector on preference pairs and put it on the shelf; tells its progress.

        Args:
            pairs: At least one {prompt, chosen, rejected}: chosen shows the behavior, rejected its opposite.
            name: What the vector is to be called.
            behavior: What it moves, in a few words.
            effort: A preset of the method, of bipo "quick" (about a minute on a laptop), "standard" or "paper"; by
                default its first.
            seed: Of all that is left to chance.
            method: "bipo", or another of `list_methods`.
            settings: Single settings of the method, which win over the effort's, such as {"layer": 12}.

        Returns:
            {step, steps, loss, seconds_left} while it trains; at the end {vector, layer, norm, steps, seconds}, where
            `vector` is the name that `generate` takes.
        """
        yield from train_for(app, pairs, name, behavior, effort, seed, method, settings)

    gr.api(generate, api_name="generate", concurrency_id="generate")
    gr.api(preview, api_name="preview", concurrency_id="preview", concurrency_limit=4)
    gr.api(list_vectors, api_name="list_vectors")
    gr.api(list_methods, api_name="list_methods")
    gr.api(train, api_name="train", concurrency_id="train", concurrency_limit=1)


def _settings(app: AppState, columns: list[dict[str, float]]) -> list[Setting]:
    if not isinstance(columns, list) or not 1 <= len(columns) <= MAX_COLUMNS:
        raise SteeringError(f"Give 1 to {MAX_COLUMNS} columns, each a mapping of vector names to multipliers.")
    return [_setting(app, column) for column in columns]


def _setting(app: AppState, column: dict[str, float]) -> Setting:
    if not isinstance(column, dict):
        raise SteeringError("A setting is a mapping of vector names to multipliers, such as {'cheerful': 1.5}.")
    return {app.library.get(str(name), files=False): multiplier for name, multiplier in column.items()}


def _check(**texts: str) -> None:
    for name, text in texts.items():
        if not isinstance(text, str) or len(text) > LONGEST_PROMPT:
            raise SteeringError(f"{name} must be a text of at most {LONGEST_PROMPT:,} characters.")


def _whole(number: object, name: str) -> int:
    if isinstance(number, bool) or not isinstance(number, int | float) or number != number // 1:
        raise SteeringError(f"{name} is {str(number)[:40]!r}; give a whole number.")
    return int(number)
