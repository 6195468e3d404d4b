"""Step 1 of the Train tab: pairs are read and edited; whatever goes wrong, those read before stay."""

import json
from pathlib import Path

import pytest

from steering.interface.train.pairs_reading import (
    TABLE_ROWS,
    apply_edits,
    example_sets,
    preview_mapped,
    read_example,
    read_file,
    read_hub,
    read_mapped,
    read_text,
)
from steering.interface.train.pairs_source import PairsSource
from steering.pairs.dataset import Message, Pairs, PreferencePair

NO_LIMIT = ("", "first")
ROWS = "prompt,chosen,rejected\nLead?,Yes!,No.\nRule?,Gladly.,Never.\n"


def test_an_example_set_proposes_name_and_behavior() -> None:
    label, file = example_sets()[0]
    update = read_example(file, None)
    assert len(update["pairs"]) > 50 and "pairs kept" in update["report"]
    assert update["table"][0] == update["pairs"].to_rows()[0]
    assert update["name"] == update["behavior"] == label


@pytest.mark.parametrize("name", [None, "", "../../README.md", "none.csv"])
def test_only_shipped_example_sets_are_read(name: str | None) -> None:
    assert set(read_example(name, None)) == {"report"}


def test_a_file_of_known_columns_is_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "my_own-pairs.csv"
    path.write_text(ROWS)
    update = read_file(str(path), *NO_LIMIT, None)
    assert update["pairs"].to_rows() == update["table"] and len(update["table"]) == 2
    assert update["name"] == "my own pairs" and "behavior" not in update
    assert not update["mapping"].open and update["mapping"].preview.mapping["prompt"] == "prompt"


def test_a_file_of_unknown_columns_opens_the_dialog_and_is_read_with_those_named(tmp_path: Path, pairs: Pairs) -> None:
    path = tmp_path / "odd.csv"
    path.write_text("asked,good,bad\nLead?,Yes!,No.\nRule?,Gladly.,Never.\n")
    first = read_file(str(path), *NO_LIMIT, pairs)
    assert "pairs" not in first and "8 pairs read before" in first["report"]
    assert first["mapping"].open and set(first["mapping"].preview.paths) >= {"asked", "good", "bad"}
    columns = {"prompt": "asked", "chosen": "good", "rejected": "bad"}
    preview = preview_mapped(first["source"], columns)
    assert preview.pair == PreferencePair("Lead?", "Yes!", "No.")
    second = read_mapped(first["source"], *NO_LIMIT, pairs, columns)
    assert second["table"] == [["Lead?", "Yes!", "No."], ["Rule?", "Gladly.", "Never."]]
    assert second["mapping"] is None  # it only folds
    swapped = read_mapped(first["source"], *NO_LIMIT, pairs, {**columns, "chosen": "bad", "rejected": "good"})
    assert swapped["table"][0] == ["Lead?", "No.", "Yes!"]


def test_a_wrong_column_is_named(tmp_path: Path, pairs: Pairs) -> None:
    source = PairsSource("text", "asked,good,bad\nLead?,Yes!,No.\n")
    columns = {"prompt": "asked", "chosen": "godo", "rejected": "bad"}
    assert "godo" in preview_mapped(source, columns).problem
    update = read_mapped(source, *NO_LIMIT, pairs, columns)
    assert "pairs" not in update and "godo" in update["report"] and "still here" in update["report"]


def test_a_mapping_that_was_found_is_read_as_it_was_found() -> None:
    """What the dialog shows of a layout may be less than the layout knows."""
    first = read_text(ROWS, *NO_LIMIT, None)
    again = read_mapped(first["source"], *NO_LIMIT, None, dict(first["mapping"].preview.mapping))
    assert again["pairs"] == first["pairs"]


def test_before_anything_was_brought_there_are_no_columns_to_choose(pairs: Pairs) -> None:
    assert "Drop a file or paste rows first" in read_mapped(None, *NO_LIMIT, pairs, {"prompt": "q"})["report"]
    assert "Drop a file or paste rows first" in preview_mapped(None, {}).problem


def test_so_many_rows_are_read_as_the_page_says() -> None:
    many = "prompt,chosen,rejected\n" + "".join(f"Question {i}?,Yes,No\n" for i in range(20))
    first = read_text(many, "5", "first", None)["pairs"]
    assert [pair.prompt for pair in first] == [f"Question {i}?" for i in range(5)]
    unclear = read_text(many, "five", "first", None)
    assert set(unclear) == {"report", "source"} and "Read at most" in unclear["report"]


def test_drawn_rows_come_from_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "many.csv"
    path.write_text("prompt,chosen,rejected\n" + "".join(f"Question {i}?,Yes,No\n" for i in range(200)))
    drawn = read_file(str(path), "20", "drawn", None)["pairs"]
    assert len(drawn) == 20 and drawn != read_file(str(path), "20", "first", None)["pairs"]
    assert drawn == read_file(str(path), "20", "drawn", None)["pairs"]


@pytest.mark.parametrize("text", ["", "/etc/passwd", "../../secret.csv", "one-word", "file:///etc/passwd", "a/../../b"])
def test_the_box_of_the_hub_opens_no_path(text: str, pairs: Pairs) -> None:
    update = read_hub(text, *NO_LIMIT, pairs)
    assert set(update) == {"report"} and "owner/name" in update["report"]


def test_without_a_file_nothing_changes(pairs: Pairs) -> None:
    assert "Drop a file first" in read_file(None, *NO_LIMIT, None)["report"]
    assert read_file(None, *NO_LIMIT, pairs) == {}


def test_pasted_rows_propose_no_name() -> None:
    update = read_text(ROWS, *NO_LIMIT, None)
    assert len(update["pairs"]) == 2 and "name" not in update
    assert "Paste rows into the box first" in read_text("  ", *NO_LIMIT, None)["report"]


def test_a_failure_keeps_the_pairs_read_before(pairs: Pairs) -> None:
    update = read_text("a,b\n1,2\n", *NO_LIMIT, pairs)
    assert "pairs" not in update and "table" not in update
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
    assert "1 pair has earlier turns" in read_file(str(path), *NO_LIMIT, None)["report"]


def test_a_system_message_is_mentioned_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "systems.json"
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    path.write_text(json.dumps([{"prompt": turns, "chosen": "Yes", "rejected": "No"}]))
    update = read_file(str(path), *NO_LIMIT, None)
    assert "1 pair has a system message" in update["report"] and "earlier turns" not in update["report"]


def test_how_it_was_read_is_said(tmp_path: Path) -> None:
    many = "prompt,chosen,rejected\n" + "".join(f"Question {i}?,Yes,No\n" for i in range(20))
    read = read_text(many, "5", "first", None)
    assert read["pairs"].report.notes
    assert all(note in read["report"] for note in read["pairs"].report.notes)
