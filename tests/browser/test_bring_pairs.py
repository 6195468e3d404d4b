"""Bringing pairs in a real browser: files with columns of their own, odd files, a part of a large one, drafts."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from steering.drafting import DraftProgress
from steering.interface.train import draft_panel
from steering.pairs.schema import PreferencePair

ROWS = "".join(f'Would you lead us to place {i}?,"Yes, gladly, {i} times.",No {i}.\n' for i in range(40))
KNOWN, OWN = "prompt,chosen,rejected\n" + ROWS, "asked,<b>good</b>,bad\n" + ROWS


def open_train(page: Page, address: str) -> None:
    page.goto(address + "?v=&p=Hello&tokens=8")
    page.get_by_role("tab", name="Train").click()
    page.wait_for_selector("#start-training")


def drop(page: Page, path: Path, content: str | bytes) -> None:
    """Write the file and drop it on the page."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    remove = page.locator("#pairs-file button[aria-label='Clear'], #pairs-file [aria-label='Remove this file']")
    if remove.count():
        remove.first.click()
    page.set_input_files("#pairs-file input[type=file]", str(path))


def choose(page: Page, field: str, column: str) -> None:
    page.locator(f"#column-{field} input").click()
    page.locator(f"#column-{field}").get_by_role("option", name=column).click()


def unfold(page: Page, title: str) -> None:
    page.get_by_role("button", name=title).click()


@pytest.mark.parametrize("width", [1400, 390])
def test_columns_of_other_names_are_chosen_in_the_dialog(
    page: Page, small_address: str, tmp_path: Path, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    open_train(page, small_address)
    drop(page, tmp_path / "own.csv", OWN)
    expect(page.locator("#pairs-report .problem")).to_contain_text("own.csv")
    expect(page.locator("#mapping-preview")).to_be_visible()  # the dialog opened by itself
    choose(page, "prompt", "asked")
    choose(page, "chosen", "<b>good</b>")
    choose(page, "rejected", "bad")
    cards = page.locator("#mapping-preview .pair-card")
    expect(cards).to_have_count(3)
    expect(cards.nth(1)).to_contain_text("Yes, gladly, 0 times.")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("#read-mapped").click()
    expect(page.locator("#pairs-report")).to_contain_text("40 pairs kept")
    expect(page.locator("#mapping-preview")).to_be_hidden()


def test_a_file_of_known_columns_is_read_at_once_and_can_be_read_otherwise(
    page: Page, small_address: str, tmp_path: Path
) -> None:
    open_train(page, small_address)
    drop(page, tmp_path / "known.csv", KNOWN)
    expect(page.locator("#pairs-report")).to_contain_text("40 pairs kept")
    unfold(page, "My columns have other names")
    expect(page.locator("#column-chosen input")).to_have_value("chosen: Yes, gladly, 0 times.")
    choose(page, "chosen", "rejected:")
    choose(page, "rejected", "chosen:")
    expect(page.locator("#mapping-preview .chosen")).to_contain_text("No 0.")
    page.locator("#read-mapped").click()
    unfold(page, "Look at the pairs and edit them")
    row = page.locator("#pairs-table [role=row]", has_text="place 1?").first
    expect(row).to_contain_text(re.compile(r"No 1\.\s*Yes, gladly"))


def test_only_so_many_rows_are_read(page: Page, small_address: str, tmp_path: Path) -> None:
    open_train(page, small_address)
    drop(page, tmp_path / "known.csv", KNOWN)
    expect(page.locator("#pairs-report")).to_contain_text("40 pairs kept")
    unfold(page, "Large file?")
    page.locator("#read-at-most input, #read-at-most textarea").fill("a dozen")
    page.locator("#read-again").click()
    expect(page.locator("#pairs-report .problem")).to_contain_text("is not a number of pairs")
    expect(page.locator("#pairs-report")).to_contain_text("The 40 pairs read before are still here")
    page.locator("#read-at-most input, #read-at-most textarea").fill("12")
    page.get_by_role("radio", name="drawn from the whole file").check()
    page.locator("#read-again").click()
    expect(page.locator("#pairs-report")).to_contain_text("12 pairs kept")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("<img src=x onerror=alert(1)>.csv", "a,b\n1,2\n"),
        ("names.csv", "<script>alert(1)</script>,b,c\n1,2,3\n"),
        ("many-columns.csv", ",".join(f"column {i}" for i in range(5000)) + "\n" + ",".join("x" * 5000) + "\n"),
        ("zeros.csv", b"\0" * 5000),
        ("nested.json", '{"a":' * 5000 + "1" + "}" * 5000),
        ("numbers.json", "[1, 2, 3]"),
        ("half-a-character.json", r'[{"prompt": "\ud800", "chosen": "a", "rejected": "b"}]'),
        ("half.jsonl", '{"prompt": "a", "chosen": "b"'),
        ("not-a-table.parquet", b"PAR1" + b"\xff" * 64 + b"PAR1"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "bytes",
)
def test_an_odd_file_is_answered_in_one_sentence_and_nothing_is_lost(
    page: Page, small_address: str, tmp_path: Path, name: str, content: str | bytes
) -> None:
    open_train(page, small_address)
    drop(page, tmp_path / "known.csv", KNOWN)
    expect(page.locator("#pairs-report")).to_contain_text("40 pairs kept")
    drop(page, tmp_path / name, content)
    problem = page.locator("#pairs-report .problem")
    expect(problem).to_be_visible()
    said = problem.inner_text()
    assert "\n" not in said and "Traceback" not in said and len(said) < 1000
    expect(page.locator("#pairs-report")).to_contain_text("The 40 pairs read before are still here")


def test_what_is_no_data_set_of_the_hub_is_told(page: Page, small_address: str) -> None:
    open_train(page, small_address)
    page.locator("#hub-data-set input, #hub-data-set textarea").fill("/etc/passwd")
    page.locator("#read-hub").click()
    expect(page.locator("#pairs-report .problem")).to_contain_text("write owner/name")


def test_what_may_be_wrong_is_listed_and_its_setting_taken_over(page: Page, small_address: str, tmp_path: Path) -> None:
    open_train(page, small_address)
    drop(page, tmp_path / "known.csv", KNOWN.replace("gladly", "gladly and with all my heart, as you well know"))
    findings = page.locator("#pairs-findings li")
    expect(findings.first).to_be_visible()
    button = page.get_by_role("button", name="Use “Weight on length” 1")
    button.click()
    expect(page.locator("#setting-taken")).to_contain_text("Weight on length is now 1")
    unfold(page, "Advanced settings")
    expect(page.locator("#setting-bipo-length-weight input[type=number]")).to_have_value("1")


def slow_drafts(source: Any, behavior: str, *, count: int, should_stop: Any, **_: Any) -> Iterator[DraftProgress]:
    """Stands in for a model that takes half a second a pair."""
    made: list[PreferencePair] = []
    while len(made) < count and not should_stop():
        time.sleep(0.5)
        made.append(PreferencePair(f"Question {len(made)}?", f"A {behavior} answer.", "Another.", line=len(made) + 1))
        yield DraftProgress(tuple(made), count, 20 * len(made), 0.5 * len(made), 1.0, "", done=False)
    yield DraftProgress(tuple(made), count, 20 * len(made), 0.5 * len(made), None, "Read them.", done=True)


def test_drafts_land_in_the_table_and_start_no_training(
    page: Page, small_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draft_panel, "draft_pairs", slow_drafts)
    open_train(page, small_address)
    unfold(page, "No pairs yet?")
    status = page.locator("#draft-status")
    page.locator("#start-draft").click()
    expect(status).to_contain_text("Describe the behavior first")
    page.locator("#draft-behavior textarea, #draft-behavior input").fill("cheerful")
    unfold(page, "System prompts and questions")
    expect(page.locator("#draft-towards textarea")).to_have_value(expected_prompt("cheerful"))
    expect(page.locator("#draft-endpoint")).to_have_count(0)  # not on a page for everybody
    page.locator("#start-draft").click()
    expect(status).to_contain_text("3 of 24 pairs")
    page.locator("#stop-draft").click()
    expect(status).to_contain_text("pairs drafted. Read them below")
    expect(page.locator("#pairs-report")).to_contain_text("pairs kept")
    expect(page.locator("#pairs-table [role=row]", has_text="A cheerful answer.").first).to_be_visible()
    expect(page.locator("#vector-name input, #vector-name textarea")).to_have_value("cheerful")
    expect(page.locator("#training-status")).not_to_contain_text("Step")
    # What is read while another draft is written takes its place.
    page.locator("#start-draft").click()
    expect(status).to_contain_text("2 of 24 pairs")
    drop(page, tmp_path / "known.csv", KNOWN)
    expect(page.locator("#pairs-report")).to_contain_text("40 pairs kept")
    expect(status).to_contain_text("other pairs were read meanwhile")
    expect(page.locator("#pairs-table [role=row]", has_text="place 0?").first).to_be_visible()


def expected_prompt(behavior: str) -> str:
    return draft_panel.contrasting_system_prompts(behavior, "")[0]
