"""The mapping dialog: what it offers, and the preview of the first pair."""

import gradio as gr
import pytest

from steering.interface.train.column_mapping import ColumnMapping, columns_of, pair_cards, preview_html
from steering.interface.train.pairs_reading import NO_COLUMNS, MappingView
from steering.pairs.layouts import MAPPING_FIELDS
from steering.pairs.preview import PairsPreview
from steering.pairs.schema import Message, PreferencePair

PAIR = PreferencePair("Lead <us>?", "Yes!", "No.", before=(Message("system", "Be brief."), Message("user", "Hi")))
FOUND = PairsPreview(
    paths={"asked": "Lead us?", "input.messages": "x" * 100, "good": "Yes!"},
    mapping={"prompt": "asked"},
    layout="",
    pair=None,
    problem="which column holds the rejected answer is not known",
)


@pytest.fixture(scope="module")
def mapping() -> ColumnMapping:
    with gr.Blocks():
        return ColumnMapping()


def by_field(mapping: ColumnMapping, updates: dict, name: str) -> dict:
    return updates[mapping.fields[[field.name for field in MAPPING_FIELDS].index(name)]]


def test_every_field_is_offered_the_columns_with_their_first_values(mapping: ColumnMapping) -> None:
    updates = mapping.show(MappingView(FOUND, open=True))
    assert set(updates) == set(mapping.outputs)
    prompt = by_field(mapping, updates, "prompt")
    assert prompt["value"] == "asked" and by_field(mapping, updates, "chosen")["value"] == ""
    assert prompt["choices"][0][1] == "" and prompt["choices"][1] == ("asked: Lead us?", "asked")
    assert len(prompt["choices"][2][0]) < 90
    assert updates[mapping.panel]["open"] and updates[mapping.read]["interactive"]
    assert "is not known" in updates[mapping.preview]


def test_without_columns_there_is_nothing_to_read(mapping: ColumnMapping) -> None:
    updates = mapping.show(NO_COLUMNS)
    assert not updates[mapping.read]["interactive"] and not updates[mapping.panel]["open"]
    assert "columns appear here" in updates[mapping.preview]


def test_it_folds_as_it_is(mapping: ColumnMapping) -> None:
    updates = mapping.show(None)
    assert set(updates) == {mapping.panel, mapping.read} and not updates[mapping.panel]["open"]


def test_only_the_fields_that_hold_a_column_are_passed_on() -> None:
    values = [" asked ", None, *[""] * (len(MAPPING_FIELDS) - 2)]
    assert columns_of(values) == {MAPPING_FIELDS[0].name: "asked"}


def test_the_first_pair_is_shown_with_all_that_leads_to_it() -> None:
    shown = preview_html(PairsPreview(paths={}, mapping={}, layout="x", pair=PAIR, problem=""))
    assert "as it will be read" in shown
    places = [shown.index(text) for text in ("Be brief.", "Hi", "Lead &lt;us&gt;?", "Yes!", "No.")]
    assert places == sorted(places)


def test_a_long_text_is_cut() -> None:
    assert len(pair_cards(PreferencePair("q" * 20_000, "a", "b"))) < 2000


def test_broken_characters_do_not_reach_the_browser(mapping: ColumnMapping) -> None:
    """A preview is shown of rows that were not checked yet."""
    pair = PreferencePair("\ud800 Lead us?", "Yes", "No")
    paths = {"asked": "\ud800", "\ud801": "x"}
    view = MappingView(
        PairsPreview(paths=paths, mapping={"prompt": "\ud801"}, layout="", pair=pair, problem=""), open=True
    )
    updates = mapping.show(view)
    repr_of_all = str([updates[field] for field in mapping.fields]) + updates[mapping.preview]
    assert "\\ud80" not in repr_of_all and "Lead us?" in repr_of_all
    str([updates[field]["choices"] for field in mapping.fields]).encode()
