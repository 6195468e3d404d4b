"""The documented endpoints, called from outside as a program would."""

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from steering.generation import generate
from steering.library import Library
from steering.models import LanguageModel


@pytest.fixture(scope="module")
def client(address: str) -> Client:
    return Client(address, verbose=False)


def test_only_what_is_documented_is_offered(client: Client) -> None:
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {
        "/generate",
        "/preview",
        "/list_vectors",
        "/train",
    }


def test_vectors_are_listed(client: Client) -> None:
    listed = {vector["name"]: vector for vector in client.predict(api_name="/list_vectors")}
    assert {"cheerful", "formal", "hallucination", "power-seeking"} <= set(listed)
    assert listed["cheerful"]["layers"] == [14]


def test_columns_equal_the_librarys(client: Client, bundled: LanguageModel, shelf: Library) -> None:
    asked = [{}, {"cheerful": 1.5}, {"cheerful": 0.5, "formal": -1.0}]
    answers = client.predict(prompt="How was your day?", columns=asked, max_new_tokens=12, api_name="/generate")
    settings = [{shelf.get(name): m for name, m in column.items()} for column in asked]
    expected = generate(bundled, "How was your day?", settings, max_new_tokens=12)
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
    ],
)
def test_bad_requests_are_answered_with_a_sentence(client: Client, arguments: dict, says: str) -> None:
    with pytest.raises(AppError, match=says):
        client.predict(**arguments, api_name="/generate")
