"""Step 1 of the Train tab: pairs are read and edited; whatever goes wrong, those read before stay."""

import json
from pathlib import Path

import gradio as gr
import pytest

from steering.interface.train.data_step import (
    TABLE_ROWS,
    DataStep,
    apply_edits,
    example_sets,
    read_example,
    read_file,
    read_text,
)
from steering.pairs.dataset import Message, Pairs, PreferencePair
from steering.pairs.readers import READERS

NO_NAMES = ("", "", "")
ROWS = "prompt,chosen,rejected\nLead?,Yes!,No.\nRule?,Gladly.,Never.\n"


def test_the_file_picker_offers_what_can_be_read() -> None:
    with gr.Blocks():
        assert DataStep.build().file.file_types == list(READERS)


def test_an_example_set_proposes_name_and_behavior() -> None:
    label, file = example_sets()[0]
    update = read_example(file, None)
    assert len(update["pairs"]) > 50 and "pairs kept" in update["report"]
    assert update["table"][0] == update["pairs"].to_rows()[0]
    assert update["name"] == update["behavior"] == label


@pytest.mark.parametrize("name", [None, "", "../../README.md", "none.csv"])
def test_only_shipped_example_sets_are_read(name: str | None) -> None:
    assert set(read_example(name, None)) == {"report"}


def test_a_file_is_read_by_its_column_names(tmp_path: Path) -> None:
    path = tmp_path / "my_own-pairs.csv"
    path.write_text("asked,good,bad\nLead?,Yes!,No.\n")
    assert "column" in read_file(str(path), *NO_NAMES, None)["report"]
    update = read_file(str(path), " asked ", "good", "bad", None)
    assert update["pairs"].to_rows() == update["table"] == [["Lead?", "Yes!", "No."]]
    assert update["name"] == "my own pairs" and "behavior" not in update


def test_without_a_file_nothing_changes(pairs: Pairs) -> None:
    assert "Drop a file first" in read_file(None, *NO_NAMES, None)["report"]
    assert read_file(None, *NO_NAMES, pairs) == {}


def test_pasted_rows_propose_no_name() -> None:
    update = read_text(ROWS, *NO_NAMES, None)
    assert len(update["pairs"]) == 2 and "name" not in update
    assert "Paste rows into the box first" in read_text("  ", *NO_NAMES, None)["report"]


def test_a_failure_keeps_the_pairs_read_before(pairs: Pairs) -> None:
    update = read_text("a,b\n1,2\n", *NO_NAMES, pairs)
    assert set(update) == {"report"}
    assert 'role="alert"' in update["report"] and "The 8 pairs read before are still here" in update["report"]


def test_edits_replace_what_the_table_shows() -> None:
    earlier = (Message("user", "Hi"), Message("assistant", "Hello!"))
    many = Pairs.of(PreferencePair(f"Question {i}?", "Yes", "No", before=earlier) for i in range(TABLE_ROWS + 5))
    rows = many[:TABLE_ROWS].to_rows()
    rows[0][1] = "Gladly"
    rows[1] = ["", None, ""]  # an emptied row goes
    rows.append(["A new one?", "Yes", "No"])
    edited = apply_edits(rows, many)["pairs"]
    assert len(edited) == TABLE_ROWS + 5
    assert edited[0].chosen == "Gladly" and edited[0].before == earlier
    assert "Question 1?" not in {pair.prompt for pair in edited}
    by_prompt = {pair.prompt: pair for pair in edited}
    assert by_prompt["A new one?"].before == ()
    assert by_prompt[f"Question {TABLE_ROWS + 4}?"].before == earlier  # past the table


def test_edits_that_leave_nothing_are_refused(pairs: Pairs) -> None:
    assert "write at least one pair" in apply_edits([["", "", ""]], None)["report"]
    unsound = apply_edits([["Lead?", "Never.", "Never."]], pairs)
    assert set(unsound) == {"report"} and "chosen equals rejected" in unsound["report"]


def test_rows_become_pairs_without_any_read_before() -> None:
    assert apply_edits([["Lead?", "Yes", "No"]], None)["pairs"].report.source == "the table"


def test_earlier_turns_are_mentioned(tmp_path: Path) -> None:
    path = tmp_path / "turns.json"
    turns = [{"role": role, "content": "Hi"} for role in ("user", "assistant", "user")]
    path.write_text(json.dumps([{"prompt": turns, "chosen": "Yes", "rejected": "No"}]))
    assert "1 pair has earlier turns" in read_file(str(path), *NO_NAMES, None)["report"]
