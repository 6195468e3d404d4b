"""The Playground's events on the server: {component: value} for what a browser sent, without a browser."""

import gradio as gr
import pytest
from starlette.datastructures import QueryParams

from steering.interface.answer_cards import MOST_TURNS, message
from steering.interface.app_state import AppState
from steering.interface.html_component import page_head
from steering.interface.playground.controls import SPECS, Controls
from steering.interface.playground.conversation import ConversationHandlers
from steering.interface.playground.examples import Example, first_example
from steering.interface.playground.handlers import SKIP, Handlers, Stamp
from steering.interface.playground.layout import lay_out
from steering.interface.playground.sliders import SliderPanel, panel_value
from steering.vectors.library import Library
from tests.generation.test_stream import vector
from tests.tiny_models import tiny_model


class Visitor:
    """A request as gradio hands it to a handler."""

    def __init__(self, session_hash="visitor", query=""):
        self.session_hash, self.query_params = session_hash, QueryParams(query)


@pytest.fixture
def handlers(tmp_path):
    app = AppState(tiny_model(), Library(own=tmp_path / "shelf", shipped=tmp_path / "none"))
    app.visitors.owner.add(vector(1, name="one"))
    with gr.Blocks():
        return Handlers(app, lay_out(app))


def write(handlers, stamp=None, answers_value=None, request=None, sliders=None, **changes):
    controls = vars(Controls("Hello", tokens=8, strip=False)) | changes
    sliders = panel_value(handlers.app.visit(), SliderPanel({"one": 2.0})) if sliders is None else sliders
    stamp = stamp or {"fresh": False, "sent_at": 1.0}
    return list(handlers.write(request or Visitor(), stamp, sliders, answers_value, *controls.values()))


def columns_of(handlers, updates):
    return updates[-1][handlers.layout.columns]


def test_the_wired_controls_are_those_of_the_dataclass_in_its_order(handlers):
    assert list(handlers.layout.controls) == list(SPECS) == list(vars(Controls()))
    for name, component in handlers.layout.controls.items():
        if name != "prompt":  # the first example's
            assert component.value == getattr(Controls, name)


def test_a_run_writes_its_columns(handlers):
    updates = write(handlers)
    assert [card["title"] for card in columns_of(handlers, updates)["columns"]] == ["baseline", "one +2", "one -2"]
    seed = handlers.layout.controls["seed"]
    assert updates[0][seed] == 0 and all(seed not in update for update in updates[1:])


def test_a_new_seed_is_drawn_by_generate_only(handlers):
    seed = handlers.layout.controls["seed"]
    assert write(handlers, {"fresh": True, "sent_at": 1.0}, new_seed=True)[0][seed] != 0
    assert write(handlers, {"fresh": False, "sent_at": 2.0}, new_seed=True)[0][seed] == 0


def test_a_request_that_was_overtaken_writes_nothing(handlers):
    write(handlers, {"fresh": False, "sent_at": 20.0})
    assert write(handlers, {"fresh": False, "sent_at": 10.0}) == [{handlers.layout.columns: SKIP}]
    assert len(write(handlers, {"fresh": False, "sent_at": 10.0}, request=Visitor("another"))) > 1


def test_stop_ends_a_run_that_has_not_come_in_yet(handlers):
    handlers.stop(Visitor(), {"sent_at": 20.0})
    cards = columns_of(handlers, write(handlers, {"fresh": True, "sent_at": 10.0}, tokens=400))["columns"]
    assert all("stopped" in card["foot"] and card["tokens"] < 400 for card in cards)


@pytest.mark.parametrize("sent", [None, 3, {}, {"fresh": 1, "sent_at": "now"}, {"sent_at": None}])
def test_an_unsound_stamp_is_an_update_sent_last(sent):
    assert Stamp.read(sent) == Stamp(False, None)


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"prompt": "x" * 20_001}, "20,001"), ({"sliders": 3}, "reload the page"), ({"tokens": "many"}, "give a number")],
)
def test_bad_input_is_answered_with_a_sentence_and_keeps_the_conversation(handlers, changes, says):
    turns = [{"user": "Hi", "answers": {"setting": "Yes."}}]
    value = columns_of(handlers, write(handlers, answers_value=message(turns=turns), **changes))
    assert says in value["problem"] and value["turns"] == turns


def test_an_example_sets_prompt_and_sliders_and_leaves_the_pins(handlers):
    layout, pin = handlers.layout, {"setting": {"one": 1.0}, "name": "mine"}
    sliders = panel_value(handlers.app.visit(), SliderPanel({"one": 2.0})) | {"pins": [pin], "hidden": ["opposite"]}
    updates = handlers.choose_example(Example("label", "A prompt?", {"one": -1.5}, "Look here."), Visitor(), sliders)
    assert updates[layout.controls["prompt"]] == "A prompt?" and "Look here." in updates[layout.advice]
    panel = updates[layout.sliders]
    assert [slider["multiplier"] for slider in panel["sliders"]] == [-1.5] and panel["active"] == "one"
    assert panel["pins"] == [{"setting": {"one": 1.0}, "title": "one +1", "name": "mine"}]
    assert panel["hidden"] == ["opposite"]
    assert "reload" in handlers.choose_example(Example("", "", {}, ""), Visitor(), None)[layout.columns]["problem"]


def test_the_page_is_restored_from_its_address(handlers):
    layout = handlers.layout
    query = "v=one:1.5&p=Hi&tokens=16&marks=0&mode=sweep&model=Other"
    updates = handlers.restore(Visitor(query=query))
    restored = {name: updates[component] for name, component in layout.controls.items()}
    assert Controls(**restored) == Controls("Hi", "sweep", tokens=16, marks=False)
    assert updates[layout.sliders]["sliders"][0]["multiplier"] == 1.5
    assert "made with the model Other" in updates[layout.advice]
    untouched = handlers.restore(Visitor())
    assert untouched[layout.controls["prompt"]] == first_example(handlers.app.visit()).prompt


def test_a_pin_gets_its_title_from_the_server(handlers):
    title = handlers.layout.sliders.pin_title
    assert title('{"setting": {"one": 1.5}}') == "one +1.5" and title('{"setting": {}}') == "baseline"
    assert [title(sent) for sent in ("", "3", "{}", '{"setting": {"one": "x"}}', "[" * 100_000)] == [""] * 5


def test_python_names_only_functions_that_the_scripts_define(handlers):
    page = gr.Blocks()
    with page:
        from steering.interface.playground.tab import build

        build(handlers.app, page.load)
    scripts = {fn.js for fn in page.fns.values() if isinstance(fn.js, str)}
    names = {script.partition("steeringPage.")[2].partition("(")[0] for script in scripts}
    assert {"writeUrl", "stampGenerate", "stampUpdate", "stampStop", "copyUrl", "start"} <= names
    for name in names:
        assert f" {name}: " in page_head() or f"steeringPage.{name} = " in page_head()


def test_a_follow_up_makes_a_turn_of_the_answers(handlers):
    layout, conversation = handlers.layout, ConversationHandlers(handlers.app, handlers.layout)
    value = columns_of(handlers, write(handlers))
    updates = conversation.follow_up(value, Visitor())
    turns = updates[layout.columns]["turns"]
    assert turns == [
        {"user": "Hello", "answers": {card["id"]: card["text"] for card in value["columns"] if card["text"]}}
    ]
    assert updates[layout.controls["prompt"]] == "" and updates[layout.start_over]["visible"]
    again = conversation.follow_up(message(turns=turns), Visitor())
    assert list(again) == [layout.columns] and "no answer to follow up" in again[layout.columns]["note"]
    full = value | {"turns": turns * MOST_TURNS}
    assert "the most" in conversation.follow_up(full, Visitor())[layout.columns]["note"]
    assert "reload" in conversation.follow_up({"turns": 3}, Visitor())[layout.columns]["problem"]


def test_a_past_turn_is_edited_and_those_from_there_on_forgotten(handlers):
    layout, conversation = handlers.layout, ConversationHandlers(handlers.app, handlers.layout)
    turns = [{"user": text, "answers": {"setting": "Yes."}} for text in ("first", "second")]
    updates = conversation.edit(message(turns=turns, edit=1), Visitor())
    assert updates[layout.columns]["turns"] == turns[:1] and updates[layout.controls["prompt"]] == "second"
    assert updates[layout.start_over]["visible"]
    assert not conversation.edit(message(turns=turns, edit=0), Visitor())[layout.start_over]["visible"]
    for sent in (None, message(turns=turns), message(turns=turns, edit=9), message(turns=turns, edit="x")):
        assert conversation.edit(sent, Visitor()) == {layout.columns: SKIP}
    assert not conversation.start_over(Visitor())[layout.start_over]["visible"]


def test_a_conversation_ends_the_run_that_is_under_way(handlers):
    run = handlers.app.runs.begin(Visitor())
    ConversationHandlers(handlers.app, handlers.layout).start_over(Visitor())
    assert run.superseded()
