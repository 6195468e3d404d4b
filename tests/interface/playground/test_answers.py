"""What a Generate decodes, and what it takes from the cache: the values of the columns panel, without a browser."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import pytest

from steering.errors import SteeringError
from steering.generation.results import Column, TokenChance
from steering.interface.answer_cards import history, message, read_turns, throttled
from steering.interface.app_state import AppState
from steering.interface.playground.answers import Strip, answer, columns_of, waiting
from steering.interface.playground.controls import Controls
from steering.interface.playground.run_export import FORMS, export_run, record_of
from steering.interface.playground.sliders import SliderPanel, read_panel
from steering.interface.playground.url_state import Pin
from steering.vectors.library import Library
from tests.generation.test_stream import vector
from tests.tiny_models import tiny_model

NAMES = {"a": "A", "b": "B"}
SAMPLING = {"tokens": 8, "penalty": 1.5, "strip": False}


class CountingApp(AppState):
    """Notes in `decoded` how many columns each request decodes; `stream`, if set, answers in the server's place."""

    decoded: list[int] = []
    stream = None

    def decode_server(self, weights):
        server = super().decode_server(weights)
        return SimpleNamespace(stream=partial(self._counted, self.stream or server.stream))

    def _counted(self, stream, prompt, columns, **options):
        self.decoded.append(len(columns))
        return stream(prompt, columns, **options)


def traced(setting, words):
    """A finished column of these words, each as likely as not."""
    chances = tuple(TokenChance(word, 0.5, 0.5) for word in words)
    return Column(setting, "".join(words), len(words), finished=True, seconds=1.0, trace=chances)


def looping_column(setting):
    return traced(setting, [" no", " more", " of", " that"] * 10)


def sound(setting):
    return traced(setting, [f" word{number}" for number in range(40)])


@pytest.fixture
def app(tmp_path):
    app = CountingApp(tiny_model(), Library(own=tmp_path / "shelf", shipped=tmp_path / "none"))
    for number, name in enumerate(NAMES.values()):
        app.visitors.owner.add(vector(1, seed=number, name=name))
    return app


def values_of(app, panel, answers_value=None, *, fresh=False, run=None, **controls):
    run = run or app.runs.begin(None)
    asked = Controls("Hello", **{**SAMPLING, **controls})
    return list(answer(app.visit(), panel, asked, answers_value, run, fresh=fresh))


def titles(value):
    return [column["title"] for column in value["columns"]]


def ids(panel, mode="compare"):
    return [(column.id, column.title) for column in columns_of(panel, mode, NAMES)]


def test_which_columns_are_wanted():
    assert ids(SliderPanel()) == [("baseline", "baseline")]
    both = SliderPanel({"a": 1.0, "b": -0.5})
    assert ids(both) == [("baseline", "baseline"), ("setting", "A +1, B -0.5"), ("opposite", "A -1, B +0.5")]
    assert ids(SliderPanel({"a": 1.0}, hidden=["opposite", "baseline"])) == [("setting", "A +1")]
    pins = [Pin({"b": 2.0}, "mine"), Pin({"a": 1.0})]
    assert ids(SliderPanel({"a": 1.0}, pins)) == [
        ("baseline", "baseline"),
        ("pin:1", "A +1"),  # takes the place of the setting that equals it
        ("opposite", "A -1"),
        ("pin:0", "mine"),
    ]
    swept = ids(SliderPanel({"a": 1.0}, active="b"), "sweep")
    assert [title for _, title in swept] == ["B -2", "B -1", "baseline", "B +1", "B +2"]
    with pytest.raises(SteeringError, match="Every column is hidden"):
        ids(SliderPanel(hidden=["baseline"]))
    with pytest.raises(SteeringError, match="no vector to sweep"):
        columns_of(SliderPanel(), "sweep", {})


def test_a_change_writes_only_what_is_not_there(app):
    asked = app.decoded = []
    first = values_of(app, SliderPanel({"a": 2.0}))[-1]
    assert titles(first) == ["baseline", "A +2", "A -2"] and asked == [3]
    second = values_of(app, SliderPanel({"a": 3.0}), first)[-1]
    assert titles(second) == ["baseline", "A +3", "A -3"] and asked == [3, 2]
    assert second["columns"][0]["text"] == first["columns"][0]["text"]
    assert values_of(app, SliderPanel({"a": 3.0}), second)[-1]["columns"] == second["columns"] and asked == [3, 2]
    third = values_of(app, SliderPanel({"a": 3.0}), second, fresh=True)[-1]
    assert asked == [3, 2, 3]
    assert [c["text"] for c in third["columns"]] == [c["text"] for c in second["columns"]]
    values_of(app, SliderPanel({"a": 3.0}), third, tokens=9)  # another question: nothing serves
    values_of(app, SliderPanel({"a": 3.0}), {**third, "key": "forged"})
    assert asked == [3, 2, 3, 3, 3]


def test_the_strip_holds_the_whole_range_and_serves_the_columns(app):
    panel = SliderPanel({"a": 1.5, "b": 1.0}, active="a")
    value = values_of(app, panel, strip=True)[-1]
    strip = value["strip"]
    assert [stop["multiplier"] for stop in strip["stops"]] == [-3, -2.25, -1.5, -0.75, 0, 0.75, 1.5, 2.25, 3]
    assert strip["ended"]
    assert all(stop["done"] and stop["multipliers"].get("b") == 1.0 for stop in strip["stops"])
    for stop in strip["stops"]:
        assert values_of(app, SliderPanel(stop["multipliers"]))[-1]["columns"][1]["text"] == stop["text"]
    moved = values_of(app, SliderPanel({"a": 2.25, "b": 1.0}, active="a"), value, strip=True)
    assert moved[0]["columns"][1]["text"] == strip["stops"][7]["text"]  # at once
    assert all(later["strip"]["key"] == strip["key"] for later in moved)  # and it never goes away
    other = values_of(app, SliderPanel({"a": 2.25, "b": 2.0}, active="a"), value, strip=True)[-1]
    assert other["strip"]["key"] != strip["key"]
    assert values_of(app, panel, strip=True, mode="sweep")[-1]["strip"] is None


def test_words_are_traced_only_if_they_are_to_be_marked(app):
    marked = values_of(app, SliderPanel({"a": 2.0}))[-1]["columns"]
    assert all("".join(piece[0] for piece in card["pieces"]) == card["text"] for card in marked)
    assert any(abs(untouched - steered) > 0.01 for _, untouched, steered in marked[1]["pieces"])
    assert all(untouched == steered for _, untouched, steered in marked[0]["pieces"])
    assert all("perplexity" in card["foot"] for card in marked)
    plain = values_of(app, SliderPanel({"a": 2.0}), marks=False)[-1]["columns"]
    assert [card["text"] for card in plain] == [card["text"] for card in marked]
    assert all(card["pieces"] is None and "perplexity" not in card["foot"] for card in plain)


def test_a_broken_column_says_where_it_was_sound(app):
    def looping(prompt, columns, **options):
        """Answers that repeat themselves above multiplier 1, in place of the model's."""
        yield [
            looping_column(setting) if max(setting.values(), default=0) > 1 else sound(setting) for setting in columns
        ]

    app.stream = looping
    value = values_of(app, SliderPanel({"a": 2.0}, active="a"), strip=True)[-1]
    assert [card["warning"] for card in value["columns"]] == [
        "",
        "Broken down: this answer repeats itself. Last sound at +0.75.",
        "",
    ]
    assert "+0.75" in value["strip"]["stops"][-1]["warning"]


def test_stopping_keeps_what_was_written(app):
    run = app.runs.begin(None)
    updates = answer(
        app.visit(), SliderPanel({"a": 2.0}), Controls("Hello", **{**SAMPLING, "tokens": 400}), None, run, fresh=False
    )
    next(updates), next(updates)
    app.runs.stop(None)
    last = list(updates)[-1]
    assert all(not card["writing"] and "stopped" in card["foot"] for card in last["columns"])
    assert last["strip"] is None


def test_each_column_goes_on_from_its_own_answers(app):
    first = values_of(app, SliderPanel({"a": 2.0}))[-1]
    answers = {card["id"]: card["text"] for card in first["columns"]}
    turns = [{"user": "Hello", "answers": answers}]
    second = values_of(app, SliderPanel({"a": 2.0}), message(turns=turns))[-1]
    assert second["turns"] == turns
    for card, setting in zip(second["columns"], ({}, {"a": 2.0}, {"a": -2.0}), strict=True):
        lived = [("user", "Hello"), ("assistant", answers[card["id"]])]
        assert history(turns, card["id"]) == lived
        chosen = {app.visitors.owner.get(slug.upper()): m for slug, m in setting.items()}
        shots = app.decode_server("float16").stream(
            "Hello", [chosen], before=lived, max_new_tokens=8, repetition_penalty=1.5
        )
        assert [shot for shot in shots if not isinstance(shot, int)][-1][0].text == card["text"]
    assert history(turns, "pin:0")[1] == ("assistant", answers["setting"])
    assert history([{"user": "u", "answers": {"sweep:1": "x"}}], "pin:0")[1] == ("assistant", "x")


@pytest.mark.parametrize("turns", [5, [None], [{"user": "x"}], [{"user": "x", "answers": 3}]])
def test_unsound_turns_are_refused(turns):
    with pytest.raises(SteeringError, match="reload the page"):
        read_turns({"turns": turns})


def test_too_many_turns_are_refused():
    with pytest.raises(SteeringError, match="21 turns and 20 are the most"):
        read_turns({"turns": [{"user": "x", "answers": {}}] * 21})


@pytest.mark.parametrize("sent", [None, 3, {}, {"sliders": [{}]}, {"sliders": [], "pins": [{"setting": 3}]}])
def test_unsound_sliders_are_refused(sent):
    with pytest.raises(SteeringError, match="reload the page"):
        read_panel(sent)


@pytest.mark.parametrize(
    ("field", "sent", "says"),
    [
        ("tokens", "many", "tokens is 'many'"),
        ("temperature", float("nan"), "temperature is nan"),
        ("prompt", "x" * 20_001, "20,001 characters"),
        ("system", "x" * 20_001, "system prompt has"),
    ],
)
def test_unsound_controls_are_refused(field, sent, says):
    values = {**vars(Controls("Hello")), field: sent}
    with pytest.raises(SteeringError, match=says):
        Controls.read(values)


def test_what_the_page_shows_can_be_export_run(app):
    answers_value = values_of(app, SliderPanel({"a": 2.0}))[-1]
    record = record_of("some/model", answers_value)
    assert (record.prompt, record.model, record.weights) == ("Hello", "some/model", "float16")
    assert [column.setting for column in record.columns] == [{}, {"a": 2.0}, {"a": -2.0}]
    assert record.sampling == Controls("Hello", **SAMPLING).sampling
    assert all(column.text and column.fluency for column in record.columns)
    for form in FORMS:
        assert "Hello" in export_run("some/model", answers_value, form).value
    for nothing in (None, message(), {"columns": [3], "run": {}}, {**answers_value, "run": {"weights": 7}}):
        assert export_run("some/model", nothing, "JSON").value.endswith((".", "full, float16."))


HOSTILE = [
    {"columns": 5},
    {"columns": [None, 3, {}, {"id": "setting", "multipliers": {}, "text": 7, "broken": 3}]},
    {"columns": None, "strip": []},
    {"columns": [], "strip": {"stops": 7}},
    {"columns": [], "strip": {"stops": [None, {"id": "setting", "done": True}]}},
]


@pytest.mark.parametrize("answers_value", HOSTILE)
def test_an_unsound_panel_is_decoded_again(app, answers_value):
    key = values_of(app, SliderPanel({"a": 2.0}))[-1]["key"]
    answers_value = {**answers_value, "key": key, "run": {}}
    value = values_of(app, SliderPanel({"a": 2.0}), answers_value, strip=True)[-1]
    assert len(value["columns"]) == 3 and all(card["done"] for card in value["columns"])
    assert export_run("m", answers_value, "JSON").value.endswith(".")


def test_a_vector_replaced_under_its_name_is_decoded_again(app):
    first = values_of(app, SliderPanel({"a": 2.0}))[-1]
    app.visitors.owner.delete("a")
    app.visitors.owner.add(vector(1, seed=9, name="A"))
    second = values_of(app, SliderPanel({"a": 2.0}), first)[-1]
    assert second["columns"][1]["text"] != first["columns"][1]["text"]


def test_words_for_the_queue():
    assert [waiting(place) for place in (0, 1, 2, 3)] == [
        "",
        "Others are being answered; yours is next.",
        "Others are being answered; 1 waits before you.",
        "Others are being answered; 2 wait before you.",
    ]


def test_snapshots_are_thinned_out_but_never_the_last_or_a_place():
    updates = [2, 1, 0, *([f"shot {i}"] for i in range(100))]
    assert list(throttled(iter(updates))) == [2, 1, 0, ["shot 0"], ["shot 99"]]


@pytest.mark.parametrize(
    ("useful", "multiplier", "stops"),
    [
        ([-2.0, 1.0], 0.5, [-2, -1.5, -1, -0.5, 0, 0.25, 0.5, 0.75, 1]),
        ([-4.0, 0.5], 0.5, [-3, -2.25, -1.5, -0.75, 0, 0.25, 0.5]),
        ([-2.0, 1.0], 2.0, [-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2]),  # typed beyond the end
    ],
)
def test_the_strip_ends_where_the_slider_does(app, useful, multiplier, stops):
    visit = app.visit()
    vector = visit.library.get("a")
    visit.library.replace("a", dataclasses.replace(vector, metrics={**vector.metrics, "useful_range": useful}))
    strip = Strip.of(SliderPanel({"a": multiplier}, active="a"), {"a": "A"}, app.visit())
    assert strip.stops == stops
