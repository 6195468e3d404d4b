"""The endpoints that programs and agents call: typed, described, the same as the page does."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.generation.results import Column
from steering.generation.sampling import Sampling
from steering.interface.api_evaluation import EvaluationRequest, evaluate_for
from steering.interface.api_training import TrainingRequest, described_methods, plain_errors, train_for
from steering.interface.app_state import AppState, Visit
from steering.interface.playground.controls import DEFAULT_TOKENS, LONGEST_PROMPT, Controls
from steering.interface.playground.sliders import fitting, most_columns
from steering.interface.runs import streams_of
from steering.intervention.additions import Setting
from steering.limits import Limits
from steering.models.chat_template import DEFAULT_SYSTEM_PROMPT

TRAININGS_AT_ONCE = 16
"""Calls of `train` that gradio lets in; our own queue tells each its place, and lets one train at a time."""


def document(app: AppState) -> None:
    """Offer the endpoints, and the same as tools of the Model Context Protocol."""
    default_tokens = min(DEFAULT_TOKENS, app.limits.new_tokens or DEFAULT_TOKENS)

    def generate(
        prompt: str,
        columns: list[dict[str, float]],
        system: str = DEFAULT_SYSTEM_PROMPT,
        max_new_tokens: int = default_tokens,
        temperature: float = 0.0,
        seed: int = 0,
        repetition_penalty: float = Controls.penalty,
        weights: str = "float16",
        request: gr.Request | None = None,
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
            visit = app.program_visit(request)
            _check(prompt=prompt, system=system)
            sampling = Sampling(
                _whole(max_new_tokens, "max_new_tokens"),
                temperature=temperature,
                repetition_penalty=repetition_penalty,
                seed=seed,
            )
            server = app.decode_server(weights)
            answers: list[Column] = []
            settings, gone = _settings(visit, columns), app.listeners.watch(streams_of(request))
            for update in server.stream(prompt, settings, system=system, sampling=sampling, should_stop=gone):
                answers = answers if isinstance(update, int) else update  # a number is the place in the queue
        return [
            {"setting": column, "text": answer.text, "tokens": answer.tokens}
            for column, answer in zip(columns, answers, strict=False)  # none where nobody waits for them
        ]

    def preview(
        prompt: str,
        setting: dict[str, float],
        system: str = DEFAULT_SYSTEM_PROMPT,
        top: int = 10,
        request: gr.Request | None = None,
    ) -> dict:
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
            chosen = _setting(app.program_visit(request), setting)
            result = app.preview("float16").next_token(prompt, chosen, system=system, top=top)
        lists = {"baseline": result.baseline, "steered": result.steered}
        return {"kl": result.kl, **{name: [vars(chance) for chance in chances] for name, chances in lists.items()}}

    def list_vectors(request: gr.Request | None = None) -> list[dict[str, Any]]:
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
            for entry in fitting(app.program_visit(request))
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
        request: gr.Request | None = None,
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
            {waiting, seconds} while others train first: the place in the queue, and about how long; {step, steps, loss,
            seconds_left} while it trains; at the end {vector, layer, norm, steps, seconds}, where
            `vector` is the name that `generate` takes.
        """
        wanted = TrainingRequest(pairs, name, behavior, effort, seed, method, settings)
        yield from train_for(app, wanted, request)

    def evaluate(
        vector: str,
        pairs: list[dict[str, str]],
        prompts: list[str] | None = None,
        multipliers: list[float] | None = None,
        judge: str = "offline",
        baselines: list[str] | None = None,
        request: gr.Request | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Evaluate a vector by what the model writes with it; tells its progress. Takes minutes.

        Args:
            vector: Its name, as `list_vectors` tells it.
            pairs: Ten or more {prompt, chosen, rejected} that show the behavior; the judge learns from them.
            prompts: What is answered, two or more; by default prompts of the pairs that it was not trained on.
            multipliers: Where it is measured; by default from -4 to 4.
            judge: "offline", "refusal", "length", "lists" or "language".
            baselines: Some of "system prompt", "few-shot", "mean difference", "random"; by default all.

        Returns:
            {waiting, seconds} while others come first; {share, doing, seconds_left} while it runs; at the end {vector,
            judge, points, summary, seconds, complete}. A point has behavior, fluency, relevance, composite and kl, each
            with its 95 % interval; the summary has useful_range, recommended, effective, comparisons and sentences.
        """
        wanted = EvaluationRequest(vector, pairs, prompts, multipliers, judge, baselines)
        yield from evaluate_for(app, wanted, request)

    for endpoint in (generate, train, evaluate):
        endpoint.__doc__ = _with_limits(endpoint.__doc__ or "", app.limits)
    gr.api(generate, api_name="generate", concurrency_id="generate")
    gr.api(preview, api_name="preview", concurrency_id="preview", concurrency_limit=4)
    gr.api(list_vectors, api_name="list_vectors")
    gr.api(list_methods, api_name="list_methods")
    gr.api(evaluate, api_name="evaluate", concurrency_id="evaluate-api", concurrency_limit=TRAININGS_AT_ONCE)
    gr.api(train, api_name="train", concurrency_id="train-api", concurrency_limit=TRAININGS_AT_ONCE)


def _with_limits(described: str, limits: Limits) -> str:
    """Add the limits of a public page to the description of an endpoint, before its arguments."""
    words = limits.words() if limits.training_seconds is not None else ""
    return described.replace("\n\n", f"\n\n        Limits here: {words}.\n\n", 1) if words else described


def _settings(visit: Visit, columns: list[dict[str, float]]) -> list[Setting]:
    most = most_columns(visit)
    if not isinstance(columns, list) or not 1 <= len(columns) <= most:
        raise SteeringError(f"Give 1 to {most} columns, each a mapping of vector names to multipliers.")
    return [_setting(visit, column) for column in columns]


def _setting(visit: Visit, column: dict[str, float]) -> Setting:
    if not isinstance(column, dict):
        raise SteeringError("A setting is a mapping of vector names to multipliers, such as {'cheerful': 1.5}.")
    return {visit.library.get(str(name), files=False): multiplier for name, multiplier in column.items()}


def _check(**texts: str) -> None:
    for name, text in texts.items():
        if not isinstance(text, str) or len(text) > LONGEST_PROMPT:
            raise SteeringError(f"{name} must be a text of at most {LONGEST_PROMPT:,} characters.")


def _whole(number: object, name: str) -> int:
    if isinstance(number, bool) or not isinstance(number, int | float) or number != number // 1:
        raise SteeringError(f"{name} is {str(number)[:40]!r}; give a whole number.")
    return int(number)
