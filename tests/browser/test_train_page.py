"""Training in a real browser: from an uploaded file to a slider, and what goes wrong on the way."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from steering.vectors.library import Library


def open_train(page: Page, address: str) -> None:
    page.goto(address + "?v=&p=Hello&tokens=8")
    page.get_by_role("tab", name="Train").click()
    page.wait_for_selector("#start-training")


def upload(page: Page, path: Path) -> None:
    page.set_input_files("#pairs-file input[type=file]", str(path))


def with_pairs(page: Page, address: str, pairs_file: Path) -> None:
    """The Train tab once the twenty pairs of the file are read and each effort tells its time."""
    open_train(page, address)
    upload(page, pairs_file)
    expect(page.locator("#pairs-report")).to_contain_text("20 pairs kept")
    expect(page.locator("#effort")).to_contain_text("about", timeout=120_000)


def unfold_settings(page: Page) -> None:
    """Open step 2 again, which folds when a training begins."""
    if page.locator("#method").is_hidden():
        page.locator("#step-settings > button").click()
    expect(page.locator("#method")).to_be_visible()


def advanced(page: Page) -> None:
    unfold_settings(page)
    page.get_by_role("button", name="Advanced settings").click()


def field(page: Page, elem_id: str) -> Locator:
    """The text box of this id."""
    return page.locator(f"#{elem_id} input, #{elem_id} textarea").first


def train(page: Page) -> None:
    page.locator("#start-training").click()


def stop_after(page: Page, text: str | re.Pattern[str]) -> None:
    """Stop once the status says so, and wait for the end."""
    status = page.locator("#training-status")
    expect(status).to_contain_text(text, timeout=180_000)
    page.locator("#stop-training").click()
    expect(status).to_contain_text("ive it a name and save it", timeout=180_000)


def test_from_a_file_to_a_slider(page: Page, address: str, pairs_file: Path, shelf: Library) -> None:
    with_pairs(page, address, pairs_file)
    report = page.locator("#pairs-report")
    expect(report).to_contain_text("20 pairs kept, 1 dropped")
    report.locator("summary").click()
    expect(report).to_contain_text("line 22")
    page.locator("#start-training").click()
    expect(page.locator("#training-status")).to_contain_text("Step ", timeout=120_000)
    expect(page.locator("#training-status")).to_contain_text("left")
    expect(page.locator("#training-status")).to_contain_text("ive it a name and save it", timeout=180_000)
    expect(page.locator("#training-results tbody tr")).to_have_count(5)
    expect(page.locator("#training-samples-0 .reply")).to_have_count(3)
    expect(page.locator("#training-samples-1 .reply")).to_have_count(3)
    expect(page.locator("#margin-chart")).to_contain_text("Held-out preference margin")
    field(page, "vector-name").fill("my cheer")
    page.locator("#save-vector").click()
    expect(page.locator("#saved-note")).to_contain_text("Saved as my cheer")
    page.locator("#visit-playground").click()
    expect(page.locator("#slider-my-cheer")).to_have_value("1")
    page.locator("#generate").click()
    page.wait_for_function("document.querySelector('#columns').innerText.includes('my cheer +1')")
    page.reload()
    expect(page.locator("#slider-my-cheer")).to_be_visible()
    saved = shelf.get("my-cheer")
    assert saved.metrics["held_out"][4]["preference_margin"] > saved.metrics["held_out"][0]["preference_margin"]
    assert shelf.drafts.labels() == []


def test_stop_keeps_the_best_so_far(page: Page, small_address: str, pairs_file: Path, small_shelf: Library) -> None:
    with_pairs(page, small_address, pairs_file)
    train(page)
    stop_after(page, "held-out accuracy")
    expect(page.locator("#training-status")).to_contain_text("Stopped after")
    expect(page.locator("#training-status")).to_contain_text("Train goes on from here")
    expect(page.locator("#training-results tbody tr")).to_have_count(5)
    # It was not saved: a reload loses nothing.
    assert len(small_shelf.drafts.labels()) == 1
    page.reload()
    page.get_by_role("tab", name="Train").click()
    page.locator("#open-draft").click()
    expect(page.locator("#training-results tbody tr")).to_have_count(5)
    expect(page.locator("#loss-chart")).to_contain_text("held-out pairs")  # its curves are there again
    page.locator("#save-vector").click()
    expect(page.locator("#saved-note")).to_contain_text("Saved as")


def test_each_effort_tells_its_time(page: Page, small_address: str, pairs_file: Path) -> None:
    open_train(page, small_address)
    effort = page.locator("#effort")
    expect(effort).to_contain_text("Quick")
    expect(effort).not_to_contain_text("about")
    upload(page, pairs_file)
    expect(effort).to_contain_text("As in the paper: about", timeout=120_000)
    before = effort.inner_text()
    advanced(page)
    page.locator("#setting-bipo-signs input").click()
    page.get_by_role(
        "option", name="both in every step"
    ).click()  # twice the work: only arithmetic, nothing is measured
    page.wait_for_function("text => document.querySelector('#effort').innerText !== text", arg=before, timeout=120_000)
    expect(effort.locator("input:checked")).to_have_value("quick")


def test_a_training_goes_on_where_it_was_stopped(
    page: Page, small_address: str, pairs_file: Path, small_shelf: Library
) -> None:
    with_pairs(page, small_address, pairs_file)
    drafts = len(small_shelf.drafts.labels())
    train(page)
    stop_after(page, re.compile(r"Step [2-9] of"))
    status = page.locator("#training-status")
    train(page)
    expect(status).to_contain_text("Going on after step", timeout=120_000)
    stop_after(page, "held-out accuracy")
    expect(status).to_contain_text("Going on after step")
    assert len(small_shelf.drafts.labels()) == drafts + 1  # the longer run took the place of the shorter
    advanced(page)
    page.locator("#start-over input").check()
    train(page)
    expect(status).to_contain_text("Step 1 of", timeout=120_000)
    expect(status).not_to_contain_text("Going on")
    page.locator("#stop-training").click()
    expect(status).to_contain_text("ive it a name", timeout=120_000)


@contextmanager
def server(port: int) -> Iterator[subprocess.Popen]:
    """The page as the command line serves it, in a process of its own; it inherits the test's data folder."""
    command = [sys.executable, "-m", "steering", "play", "--port", str(port)]
    with subprocess.Popen(command, env=os.environ | {"CI": "1"}, stdout=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None:
                with socket.socket() as connection:
                    if connection.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.2)
            yield process
        finally:
            process.kill()


def test_a_training_goes_on_after_the_server_was_killed(page: Page, pairs_file: Path, own_shelf: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/"
    with server(port) as process:
        with_pairs(page, address, pairs_file)
        train(page)
        until = time.monotonic() + 180
        while not list(own_shelf.glob("checkpoints/*")) and time.monotonic() < until:
            page.wait_for_timeout(200)
        process.send_signal(signal.SIGKILL)
        process.wait()
    page.goto("about:blank")  # the page of a killed server complains
    page.watched.errors.clear()  # type: ignore[attr-defined]
    with server(port):
        with_pairs(page, address, pairs_file)
        train(page)
        expect(page.locator("#training-status")).to_contain_text("Going on after step", timeout=120_000)
        page.goto("about:blank")


def test_variants_are_trained(page: Page, small_address: str, pairs_file: Path) -> None:
    with_pairs(page, small_address, pairs_file)
    advanced(page)
    field(page, "several-layers").fill("12, up")
    train(page)
    expect(page.locator("#training-status .problem")).to_contain_text("not a list such as")
    field(page, "several-layers").fill("12, 14")
    page.get_by_role("radio", name="only in the answer").check()
    page.locator("#setting-bipo-signs input").click()
    page.get_by_role("option", name="both in every step").click()
    page.locator("#setting-bipo-l2 input").fill("0.1")
    field(page, "setting-bipo-patience").fill("1")
    train(page)
    expect(page.locator("#training-status")).to_contain_text("layers 12, 14", timeout=120_000)
    stop_after(page, re.compile(r"Step \d+ of"))
    expect(page.locator("#training-status")).to_contain_text("at layers 12, 14")


def test_another_method_trains_from_the_page(
    page: Page, small_address: str, pairs_file: Path, small_shelf: Library
) -> None:
    with_pairs(page, small_address, pairs_file)
    advanced(page)
    expect(page.locator("#setting-bipo-beta")).to_be_visible()
    page.locator("#method input").click()
    page.get_by_role("option", name="CAA").click()
    expect(page.locator("#method-description")).to_contain_text("Nothing is optimised")
    expect(page.locator("#effort")).to_be_hidden()  # there is none to choose
    expect(page.locator("#training-time")).to_contain_text(re.compile(r"Takes about \d+ s"))
    expect(page.locator("#setting-bipo-beta")).to_be_hidden()
    page.locator("#setting-caa-position input").click()
    page.get_by_role("option", name="the answer's last token").click()
    page.locator("#layer input").click()
    page.get_by_role("option", name="3", exact=True).click()
    train(page)
    status = page.locator("#training-status")
    expect(status).to_contain_text("ive it a name and save it", timeout=120_000)
    expect(status).to_contain_text("at layer 3")
    expect(page.locator("#loss-chart")).to_be_hidden()  # it has no loss
    expect(page.locator("#training-results tbody tr")).to_have_count(5)
    field(page, "vector-name").fill("my mean")
    page.locator("#save-vector").click()
    expect(page.locator("#saved-note")).to_contain_text("Saved as my mean")
    method = small_shelf.get("my-mean").method
    assert method["name"] == "caa" and method["position"] == "last"
    unfold_settings(page)
    page.locator("#method input").click()
    page.get_by_role("option", name="BiPO").click()
    expect(page.locator("#effort")).to_contain_text("As in the paper: about", timeout=120_000)


def test_standard_looks_for_the_layer(page: Page, small_address: str, pairs_file: Path) -> None:
    with_pairs(page, small_address, pairs_file)
    page.get_by_role("radio", name="Standard").check()
    train(page)
    expect(page.locator("#training-status")).to_contain_text("Looking for the layer that steers best", timeout=120_000)
    stop_after(page, re.compile(r"Step \d+ of"))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.csv", b"", "empty"),
        ("picture.csv", bytes(range(256)) * 20, "binary"),
        ("other.csv", b"a,b,c\n1,2,3\n", "column"),
        ("single.csv", b"prompt\nhello\n", "there are prompts but no answers"),
        ("same.csv", b"prompt,chosen,rejected\nq,x,x\nr,y,y\n", "chosen equals rejected"),
        ("long.csv", b"prompt,chosen,rejected\nq," + b"a" * 50_000 + b",b\n", "too long"),
        ("broken.parquet", b"PAR1 and nothing else", "broken.parquet"),
        ("deep.json", b"[" * 100_000, "deep.json"),
    ],
)
def test_bad_files_are_answered_and_nothing_is_lost(
    page: Page, small_address: str, pairs_file: Path, tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    with_pairs(page, small_address, pairs_file)
    page.locator("#pairs-file button[aria-label='Clear'], #pairs-file [aria-label='Remove this file']").first.click()
    (tmp_path / name).write_bytes(content)
    upload(page, tmp_path / name)
    problem = page.locator("#pairs-report .problem")
    expect(problem).to_contain_text(says)
    assert "Traceback" not in problem.inner_text()
    expect(page.locator("#pairs-report")).to_contain_text("The 20 pairs read before are still here")


def test_pasted_rows_and_edits_in_the_table(page: Page, small_address: str) -> None:
    open_train(page, small_address)
    page.locator("#pasted textarea").fill("prompt,chosen,rejected\nLead?,Yes!,No.\nRule?,Gladly.,Never.\n")
    page.locator("#read-pasted").click()
    expect(page.locator("#pairs-report")).to_contain_text("2 pairs kept")
    page.get_by_role("button", name="Look at the pairs and edit them").click()
    cell = page.locator("#pairs-table span[data-editable]", has_text="Gladly.").first
    cell.dblclick()
    page.keyboard.press("Control+A")
    page.keyboard.type("Never.")
    page.keyboard.press("Enter")
    expect(page.locator("#pairs-report")).to_contain_text("1 pair kept")


def test_training_without_pairs_says_what_to_do(page: Page, small_address: str) -> None:
    open_train(page, small_address)
    page.locator("#start-training").click()
    expect(page.locator("#training-status")).to_contain_text("There are no pairs yet")


def test_a_second_tab_waits_for_its_turn(page: Page, small_address: str, pairs_file: Path) -> None:
    other = page.context.new_page()
    for tab in (page, other):
        with_pairs(tab, small_address, pairs_file)
    page.locator("#start-training").click()
    expect(page.locator("#training-status")).to_contain_text("Step 1", timeout=120_000)
    other.locator("#start-training").click()
    expect(other.locator("#training-status")).to_contain_text("Another training is running")
    page.locator("#stop-training").click()
    expect(other.locator("#training-status")).to_contain_text("Step ", timeout=120_000)
    other.close()


def test_earlier_turns_are_mentioned(page: Page, small_address: str, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    rows = [
        {"prompt": [*turns, {"role": "user", "content": f"Question {i}?"}], "chosen": "Yes!", "rejected": "No."}
        for i in range(3)
    ]
    (tmp_path / "turns.json").write_text(json.dumps(rows))
    open_train(page, small_address)
    upload(page, tmp_path / "turns.json")
    expect(page.locator("#pairs-report")).to_contain_text("3 pairs have earlier turns of a conversation")
