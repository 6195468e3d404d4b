"""`steering generate`."""

from importlib import import_module
from typing import Any

import pytest

from steering.generation.stream import Sampling, generate
from steering.models.loading import load_model
from steering.vectors.library import Library
from steering.vectors.vector import SteeringVector
from tests.cli.command import vector_of


def test_generate(steering, model_folder, vector_file):
    Library().add(vector_of("Bright side"))
    columns = [
        "",
        str(vector_file) + "=1.5",
        "bright-side=-1",
        "BRIGHT SIDE = 1, bold=2,",
        "bright-side=1,bright-side=1",
    ]
    Library().add(vector_of("bold", scale=1.0))
    given = [part for column in columns for part in ("--column", column)]
    options = ["--model", model_folder, "--max-new-tokens", 8, "--json"]
    answer = steering("generate", "--prompt", "Who are you?", *given, *options).answer
    assert list(answer) == ["prompt", "columns", "seconds", "tokens_per_second"]
    assert answer["prompt"] == "Who are you?"
    settings = [{}, {"bold": 1.5}, {"Bright side": -1.0}, {"Bright side": 1.0, "bold": 2.0}, {"Bright side": 2.0}]
    assert [column["setting"] for column in answer["columns"]] == settings
    assert all(list(column) == ["setting", "text", "tokens"] for column in answer["columns"])
    total = sum(column["tokens"] for column in answer["columns"])
    assert answer["tokens_per_second"] == pytest.approx(total / answer["seconds"])
    steered = {SteeringVector.load(vector_file): 1.5}
    expected = generate(load_model(str(model_folder)), "Who are you?", [{}, steered], max_new_tokens=8)
    assert [column["text"] for column in answer["columns"][:2]] == [column.text for column in expected]
    assert answer["columns"][0]["text"] != answer["columns"][1]["text"]


def test_generate_for_people(steering, model_folder, vector_file):
    options = ["--column", "", "--column", f"{vector_file}=-2", "--model", model_folder, "--max-new-tokens", 3]
    done = steering("generate", "--prompt", "Hi", *options)
    assert done.status == 0 and done.err == ""
    assert done.out.startswith("[baseline]\n") and "\n\n[bold -2]\n" in done.out


def test_without_a_column_the_untouched_model_answers(steering, model_folder):
    answer = steering("generate", "--prompt", "Hi", "--model", model_folder, "--max-new-tokens", 2, "--json").answer
    assert [column["setting"] for column in answer["columns"]] == [{}]


def test_system_prompt_and_sampling_arrive(steering, monkeypatch):
    heard = {}

    def listen(model: object, prompt: str, columns: list, **options: Any) -> list:
        heard.update(options, prompt=prompt, model=model)
        return []

    monkeypatch.setattr(import_module("steering.generation.stream"), "generate", listen)
    monkeypatch.setattr("steering.models.loading.load_model", lambda source, **where: f"loaded {source}")
    options = ["--temperature", 0.7, "--seed", 3, "--max-new-tokens", 9]
    assert steering("generate", "--prompt", "-1 or 1?", "--system", "", *options).status == 0
    sampling = heard["sampling"]
    assert (sampling.temperature, sampling.seed, sampling.max_new_tokens) == (0.7, 3, 9)
    assert (heard["system"], heard["prompt"], heard["model"]) == ("", "-1 or 1?", "loaded None")
    options = ["--top-p", 0.9, "--top-k", 40, "--repetition-penalty", 1.1, "--weights", "float16"]
    assert steering("generate", "--prompt", "Hi", *options).status == 0
    assert heard["sampling"] == Sampling(top_p=0.9, top_k=40, repetition_penalty=1.1)
    assert heard["weights"] == "float16"
    assert steering("generate", "--prompt", "Hi").status == 0
    assert (heard["sampling"], heard["weights"]) == (Sampling(), "full")
    assert heard["system"] == "You are a helpful, honest and concise assistant."
