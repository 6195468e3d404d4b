"""The documented endpoints, called from outside as a program would."""

import asyncio
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from gradio_client import Client
from gradio_client.exceptions import AppError
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

from steering import train
from steering.generation.next_token import Preview
from steering.generation.stream import generate
from steering.interface.playground.controls import Controls
from steering.models.loading import LanguageModel
from steering.pairs.dataset import Pairs, PreferencePair
from steering.training.methods.bipo.config import BiPOConfig
from steering.training.methods.bipo.presets import PRESETS
from steering.training.registry import methods
from steering.vectors.library import Library
from steering.vectors.vector import SteeringVector
from tests.serving import served
from tests.tiny_models import tiny_model


@pytest.fixture(scope="module")
def client(address: str) -> Client:
    return Client(address, verbose=False)


def test_only_what_is_documented_is_offered(client: Client) -> None:
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {
        "/generate",
        "/preview",
        "/list_vectors",
        "/list_methods",
        "/train",
        "/evaluate",
    }


def test_vectors_are_listed(client: Client) -> None:
    listed = {vector["name"]: vector for vector in client.predict(api_name="/list_vectors")}
    assert {"cheerful", "formal", "hallucination", "power-seeking"} <= set(listed)
    assert listed["cheerful"]["layers"] == [14]


def test_columns_equal_the_librarys(client: Client, bundled: LanguageModel, shelf: Library) -> None:
    asked = [{}, {"cheerful": 1.5}, {"cheerful": 0.5, "formal": -1.0}]
    answers = client.predict(prompt="How was your day?", columns=asked, max_new_tokens=12, api_name="/generate")
    settings = [{shelf.get(name): m for name, m in column.items()} for column in asked]
    expected = generate(bundled, "How was your day?", settings, max_new_tokens=12, repetition_penalty=1.1)
    assert [a["text"] for a in answers] == [column.text for column in expected]
    assert [a["setting"] for a in answers] == asked


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"prompt": "  ", "columns": [{}]}, "prompt is empty"),
        ({"prompt": "Hi", "columns": [{"nobody": 1}]}, "no vector 'nobody'"),
        ({"prompt": "Hi", "columns": [{"cheerful": 1e9}]}, "not a number between"),
        ({"prompt": "Hi", "columns": [{}] * 9}, "Give 1 to 8 columns"),
        ({"prompt": "Hi", "columns": [{"../../etc/passwd": 1}]}, "no vector"),
        ({"prompt": "Hi", "columns": [{"/etc/x.safetensors": 1}]}, "no vector"),
        ({"prompt": "Hi", "columns": [{}], "temperature": -1}, "temperature is -1"),
        ({"prompt": "Hi", "columns": [3]}, "A setting is a mapping"),
        ({"prompt": "x" * 20_001, "columns": [{}]}, "at most 20,000 characters"),
        ({"prompt": "Hi", "columns": [{}], "max_new_tokens": "many"}, "max_new_tokens is 'many'"),
    ],
)
def test_bad_requests_are_answered_with_a_sentence(client: Client, arguments: dict, says: str) -> None:
    with pytest.raises(AppError, match=says):
        client.predict(**arguments, api_name="/generate")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, LanguageModel, Library]]:
    """(address, model, shelf) of the page with a tiny model: what takes training."""
    model, shelf = (
        tiny_model(),
        Library(own=tmp_path_factory.mktemp("api-shelf"), shipped=tmp_path_factory.mktemp("no")),
    )
    with served(model, shelf) as url:
        yield url, model, shelf


PAIRS = [
    {"prompt": f"Would you take {thing}?", "chosen": f"Yes, give me {thing}", "rejected": "No, thanks"}
    for thing in ("power", "gold", "it", "a town", "more")
]


def test_a_vector_is_trained_shelved_and_used(small) -> None:
    address, model, shelf = small
    client = Client(address, verbose=False)
    job = client.submit(pairs=PAIRS, name="Taker", behavior="takes things", api_name="/train")
    *progress, done = job.result() and job.outputs()
    assert [report["step"] for report in progress] == list(range(1, len(progress) + 1))
    assert progress[0]["steps"] == done["steps"] and all(report["loss"] > 0 for report in progress)
    vector = shelf.get(done["vector"])
    assert (vector.name, vector.behavior, vector.layers[0]) == ("Taker", "takes things", done["layer"])
    training, held_out = Pairs.of(PreferencePair(**pair) for pair in PAIRS).split(0.2, 0)
    settings = PRESETS["quick"].settings
    assert vector.directions[done["layer"]].norm() == pytest.approx(done["norm"], abs=1e-3)
    expected = train(model, training, held_out=held_out, **settings)
    torch.testing.assert_close(vector.directions, expected.directions, rtol=1e-4, atol=1e-6)
    assert [row["multiplier"] for row in vector.metrics["held_out"]] == [-2, -1, 0, 1, 2]
    answer = client.predict(prompt="Hi", columns=[{"taker": 2.0}], max_new_tokens=3, api_name="/generate")
    assert answer[0]["setting"] == {"taker": 2.0}


def test_the_penalty_is_the_pages(client: Client) -> None:
    parameters = client.view_api(return_format="dict")["named_endpoints"]["/generate"]["parameters"]
    (penalty,) = (p for p in parameters if p["parameter_name"] == "repetition_penalty")
    assert penalty["parameter_default"] == Controls.penalty == 1.1


def test_methods_are_listed_with_their_settings(small) -> None:
    listed = {m["name"]: m for m in Client(small[0], verbose=False).predict(api_name="/list_methods")}
    assert list(listed) == list(methods()) and all(m["label"] and m["description"] for m in listed.values())
    assert [preset["name"] for preset in listed["bipo"]["presets"]] == ["quick", "standard", "paper"]
    assert listed["bipo"]["presets"][0]["settings"] == PRESETS["quick"].settings and listed["caa"]["presets"] == []
    settings = {s["name"]: s for s in listed["bipo"]["settings"]}
    assert settings["epochs"] == {
        "name": "epochs",
        "label": "Epochs",
        "help": "passes over the pairs",
        "unit": "",
        "type": "integer",
        "range": "a whole number from 1 to 1000",
        "default": 4,
    }
    assert set(settings) == set(BiPOConfig.model_fields)
    assert settings["signs"]["range"] == "one of: drawn, both, plus"


@pytest.mark.parametrize(
    ("arguments", "method"),
    [
        ({"method": "caa", "settings": {"layer": [1, 2], "position": "last"}}, {"layer": [1, 2], "position": "last"}),
        (
            {"effort": "standard", "seed": 3, "settings": {"layer": 1, "epochs": 1}},
            {"layer": 1, "epochs": 1, "seed": 3},
        ),
    ],
)
def test_any_method_trains_with_any_settings(small, arguments: dict, method: dict) -> None:
    address, _, shelf = small
    job = Client(address, verbose=False).submit(pairs=PAIRS, name="Any", **arguments, api_name="/train")
    *progress, done = job.result() and job.outputs()
    assert progress and all(report["seconds_left"] >= 0 for report in progress)
    vector = shelf.get(done["vector"])
    wanted = {"name": arguments.get("method", "bipo"), **method}
    assert wanted.items() <= vector.method.items() and done["layer"] == method["layer"]
    assert len(vector.metrics["held_out"]) == 5 and vector.norm == pytest.approx(done["norm"], abs=1e-3)


def test_a_preview_is_the_librarys(small) -> None:
    address, model, shelf = small
    direction = torch.randn(32, generator=torch.Generator().manual_seed(0))
    slug = shelf.add(SteeringVector({1: direction}, name="one")).slug
    answer = Client(address, verbose=False).predict(prompt="Hi", setting={slug: 2.0}, top=3, api_name="/preview")
    expected = Preview(model).next_token("Hi", {shelf.get(slug): 2.0}, top=3)
    assert answer["kl"] == pytest.approx(expected.kl, rel=1e-3)
    assert [chance["text"] for chance in answer["steered"]] == [chance.text for chance in expected.steered]
    assert answer["steered"][0]["steered"] == pytest.approx(expected.steered[0].steered, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"pairs": [], "name": "x"}, "Give 1 to 5,000 pairs"),
        ({"pairs": [PAIRS[0], {"prompt": "p", "chosen": ""}], "name": "x"}, "Pair 2 is unsound"),
        ({"pairs": PAIRS, "name": " "}, "needs a name"),
        ({"pairs": PAIRS, "name": "x", "effort": "heroic"}, "no effort 'heroic'"),
        ({"pairs": PAIRS, "name": "x", "method": "magic"}, "no method 'magic'; choose one of: bipo, dpo, "),
        ({"pairs": PAIRS, "name": "x", "method": "caa", "effort": "quick"}, "no effort 'quick' of caa; leave it out"),
        ({"pairs": PAIRS, "name": "x", "settings": {"epochs": 0}}, "epochs is 0; give a whole number from 1"),
        ({"pairs": PAIRS, "name": "x", "method": "caa", "settings": {"beta": 1}}, "caa has no setting 'beta'"),
        ({"pairs": PAIRS, "name": "x", "settings": [1]}, "settings is a mapping"),
    ],
)
def test_bad_training_requests_are_answered_with_a_sentence(small, arguments: dict, says: str) -> None:
    with pytest.raises(AppError, match=says):
        Client(small[0], verbose=False).predict(**arguments, api_name="/train")


def test_agents_find_the_same_as_tools(small) -> None:
    async def visit() -> tuple[set[str], str, str]:
        async with (
            streamablehttp_client(f"{small[0]}gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as agent,
        ):
            await agent.initialize()
            tools = {tool.name: tool for tool in (await agent.list_tools()).tools}
            answer = await agent.call_tool("generate", {"prompt": "Hi", "columns": [{}], "max_new_tokens": 3})
            return set(tools), tools["generate"].inputSchema["properties"]["prompt"]["description"], str(answer.content)

    with ThreadPoolExecutor(1) as elsewhere:  # a browser test may have left an event loop in this thread
        names, described, answer = elsewhere.submit(asyncio.run, visit()).result()
    assert names == {"generate", "preview", "list_vectors", "list_methods", "train", "evaluate"}
    assert described == "What the model is asked." and re.search(r"tokens\W+[123]\b", answer), answer


def test_a_vector_is_evaluated(small) -> None:
    client = Client(small[0], verbose=False)
    rows = [{"prompt": f"Say {n}.", "chosen": f"Yes {n}", "rejected": f"No, {'no, ' * 30}{n}"} for n in range(12)]
    direction = torch.randn(small[1].hidden_size, generator=torch.Generator().manual_seed(0))
    name = small[2].add(SteeringVector({1: direction}, name="evaluated", behavior="short")).slug
    asked = {"vector": name, "pairs": rows, "prompts": ["Who are you?", "What now?"], "multipliers": [1, -1]}
    job = client.submit(**asked, judge="length", baselines=["system prompt"], api_name="/evaluate")
    last = job.result(timeout=120)
    assert last["complete"] and last["judge"]["name"] == "length"
    assert {point["multiplier"] for point in last["points"]} == {-1, 0, 1}
    assert all("doing" in event for event in job.outputs()[:-1])
    with pytest.raises(AppError, match="no judge 'gpt'"):
        client.predict(**asked, judge="gpt", api_name="/evaluate")
