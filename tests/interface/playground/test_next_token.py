"""The preview's words and bars, and what it answers to an unsound request."""

import json

import pytest

from steering.generation.next_token import NextToken
from steering.generation.results import TokenChance
from steering.interface.app_state import AppState
from steering.interface.playground.next_token import (
    MOST_BARS,
    UNREADABLE,
    forecast,
    label,
    next_token_panel,
)
from steering.vectors.library import Library
from tests.generation.test_stream import vector
from tests.tiny_models import tiny_model


@pytest.fixture
def ask(tmp_path):
    app = AppState(tiny_model(), Library(own=tmp_path / "shelf", shipped=tmp_path / "none"))
    app.visitors.owner.add(vector(1, name="one"))
    panel = next_token_panel(app)

    def asked(**changes):
        request = {"prompt": "Hello", "system": "", "multipliers": {"one": 3.0}, "turns": [], "full": True, **changes}
        return panel.next_token(json.dumps(request))

    return asked


def test_the_bars_are_those_of_the_preview_in_the_untouched_order(ask):
    answer = ask()
    assert MOST_BARS - 2 <= len(answer["chances"]) <= MOST_BARS  # of tokens that look alike, one is shown
    assert "The first word moves" in answer["forecast"]
    untouched = [chance["untouched"] for chance in answer["chances"]]
    assert untouched == sorted(untouched, reverse=True)
    assert any(chance["untouched"] != chance["steered"] for chance in answer["chances"])
    resting = ask(multipliers={})
    assert "Drag a slider" in resting["forecast"]
    assert all(chance["untouched"] == chance["steered"] for chance in resting["chances"])
    turns = [{"user": "Hi", "answers": {"setting": "Yes."}}]
    assert ask(turns=turns)["chances"] != answer["chances"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"multipliers": {"nobody": 1}}, "no longer on the shelf"),
        ({"multipliers": {"one": 1e9}}, "not a number between"),
        ({"multipliers": 3}, "unreadable"),
        ({"turns": [3]}, "unreadable"),
        ({"prompt": " "}, "prompt is empty"),
        ({"prompt": "word " * 500}, "reads at most"),
    ],
)
def test_an_unsound_request_is_answered_with_a_sentence(ask, changes, says):
    answer = ask(**changes)
    assert says in answer["forecast"] and answer["chances"] == []


@pytest.mark.parametrize("request_", ["{", "3", "null", "[" * 100_000, 7, None])
def test_what_is_no_request_is_answered_with_a_sentence(tmp_path, request_):
    panel = next_token_panel(AppState(tiny_model(), Library(own=tmp_path / "shelf")))
    assert panel.next_token(request_) == {"forecast": UNREADABLE, "chances": []}


def moved(kl, **chances):
    both = tuple(TokenChance(text, *shares) for text, shares in chances.items())
    return NextToken(both, both, kl, 0.0)


def test_the_forecast_in_words():
    assert forecast(moved(0.001, I=(0.6, 0.61))) == "This setting hardly moves the first word."
    answer = forecast(moved(0.5, I=(0.62, 0.14), Oh=(0.004, 0.336), A=(0.1, 0.0001)))
    assert answer == "The first word moves clearly: “Oh” rises from 0.4 % to 34 %, “I” falls from 62 % to 14 %."
    assert "far: “B” rises from under 0.1 % to 99 %." in forecast(moved(4.0, B=(0.0001, 0.99)))
    assert "a little" in forecast(moved(0.05, I=(0.6, 0.5), A=(0.1, 0.2)))


def test_invisible_tokens_are_named():
    assert [label(token) for token in (" Hello", "", "\n", "  ")] == ["Hello", "(end)", "(new line)", "(space)"]
