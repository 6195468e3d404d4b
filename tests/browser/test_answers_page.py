"""The Playground's answers in a real browser: columns, the strip, Stop, conversations, several visitors."""

import gc
import re
import time

from playwright.sync_api import Page, expect

from steering.generation.server import IDLE_SECONDS, DecodeServer
from steering.models.loading import LanguageModel
from tests.browser.playground import FINISHED, SLOW, drag, hold, open_page, texts, titles


def test_stop_ends_the_answers_at_once(page: Page, address: str) -> None:
    open_page(page, address, "?v=formal:1&p=Tell+me+a+very+long+story+about+a+ship.&tokens=512")
    page.wait_for_function("document.querySelector('#columns .answer').innerText.length > 20")
    page.locator("#stop").click()
    page.wait_for_function(FINISHED, timeout=60_000)
    expect(page.locator("#columns footer").first).to_contain_text("stopped")
    before = texts(page)
    page.wait_for_timeout(1_000)
    assert texts(page) == before


def test_sweep_shows_five_strengths_of_one_vector(page: Page, address: str) -> None:
    open_page(page, address, "?v=cheerful:1&p=Hello&tokens=8&mode=sweep")
    page.wait_for_function("document.querySelectorAll('#columns .reply').length === 5")
    assert titles(page) == ["cheerful -2", "cheerful -1", "baseline", "cheerful +1", "cheerful +2"]
    texts(page)


def test_dragging_flips_through_whole_answers_without_generating(page: Page, address: str) -> None:
    open_page(page, address, "?v=cheerful:1.5&active=cheerful&p=How+are+you%3F&tokens=16")
    page.wait_for_function("document.querySelector('.reply.strip footer')?.innerText.includes('drag the slider')")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    move, texts_at = hold(page, "cheerful"), {}
    for share in (0.95, 0.75, 0.5, 0.25, 0.05):
        move(share)
        texts_at[page.locator(".reply.strip h3").inner_text()] = page.locator(".reply.strip .answer").inner_text()
    assert len(texts_at) == 5 and len(set(texts_at.values())) >= 4 and all(texts_at.values())
    assert asked and all("component_server" in url for url in asked)  # the preview's
    page.mouse.up()
    texts(page)
    page.locator(".ticks button", has_text="+2").click()
    expect(page.locator(".reply.strip h3")).to_have_text("cheerful +2")
    expect(page.locator(".ticks button[aria-pressed=true]")).to_have_text("+2")
    page.locator(".ticks button", has_text="+2").dblclick()  # the setting becomes what is shown
    expect(page.locator("#slider-cheerful")).to_have_value("2")
    page.wait_for_function("document.querySelector('.reply.setting h3')?.innerText === 'cheerful +2'")


def test_changed_words_are_marked_until_the_switch_is_off(page: Page, address: str) -> None:
    open_page(page, address, "?v=cheerful:2&p=How+are+you%3F&tokens=24&strip=0")
    texts(page)
    assert page.locator(".reply.setting .raised").count() > 0
    assert page.locator(".reply.baseline .raised, .reply.baseline .lowered").count() == 0
    assert "steered" in page.locator(".reply.setting .raised").first.get_attribute("title")
    expect(page.locator(".legend")).to_be_visible()
    expect(page.locator(".reply.setting footer")).to_contain_text("perplexity")
    page.locator("#marks input").uncheck()
    expect(page.locator(".legend")).to_have_count(0)
    expect(page.locator(".answer .raised, .answer .lowered")).to_have_count(0)
    page.wait_for_url(re.compile("marks=0"))


def test_columns_are_pinned_renamed_and_removed(page: Page, address: str) -> None:
    open_page(page, address, "?v=cheerful:1&p=Hello&tokens=8&strip=0")
    texts(page)
    page.get_by_role("button", name="Pin this setting").click()
    page.locator(".reply.pin button[title=Rename]").click()
    page.keyboard.type("sunny <b>${1+1}</b>")
    page.keyboard.press("Enter")
    expect(page.locator(".pins li span")).to_have_text("sunny <b>${1+1}</b>")
    drag(page, "cheerful", 0.3)
    page.wait_for_function("document.querySelectorAll('#columns .reply').length === 4")
    assert titles(page)[-1] == "sunny <b>${1+1}</b>"
    page.get_by_role("button", name="Remove the column cheerful +1").or_(
        page.locator(".reply.opposite button[title=Remove]")
    ).first.click()
    page.wait_for_function("document.querySelectorAll('#columns .reply').length === 3")
    page.wait_for_url(re.compile("hide=opposite"))
    page.reload()
    page.wait_for_function("document.querySelectorAll('#columns .reply').length === 3")
    assert "sunny <b>${1+1}</b>" in titles(page)
    page.get_by_role("button", name="Show the column opposite again").click()
    page.wait_for_function("document.querySelectorAll('#columns .reply').length === 4")
    page.locator(".reply.pin button[title=Remove]").click()
    page.wait_for_function("document.querySelectorAll('#columns .reply').length === 3")
    texts(page)


def test_a_conversation_goes_on_in_every_column_and_can_be_edited(page: Page, address: str) -> None:
    open_page(page, address, "?v=cheerful:2&p=What+is+rain%3F&tokens=12&strip=0")
    first = texts(page)
    page.locator("#follow-up").click()
    expect(page.locator("#prompt textarea")).to_have_value("")
    expect(page.locator("#prompt textarea")).to_be_focused()
    page.keyboard.type("And snow?")
    page.keyboard.press("Enter")
    page.wait_for_selector(".reply .thread .said")
    second = texts(page)
    assert page.locator(".reply .thread .said").all_inner_texts() == first
    assert page.locator(".reply .thread .asked").all_inner_texts()[:2] == ["What is rain?", "And snow?"]
    assert second != first
    page.get_by_role("button", name="Edit turn 1").click()
    expect(page.locator("#prompt textarea")).to_have_value("What is rain?")
    page.keyboard.press("Enter")
    page.wait_for_selector("#columns .reply")
    assert texts(page) == first and page.locator(".thread .said").count() == 0


def test_keys_generate_and_stop(page: Page, address: str) -> None:
    open_page(page, address, "?v=formal:1&p=Tell+me+a+very+long+story+about+a+ship.&tokens=512&strip=0")
    page.wait_for_function("document.querySelector('#columns .answer').innerText.length > 20")
    page.keyboard.press("Escape")
    page.wait_for_function(FINISHED, timeout=60_000)
    expect(page.locator("#columns footer").first).to_contain_text("stopped")
    page.locator("#slider-formal").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#columns').innerText.includes('formal +1.25')")
    page.keyboard.press("Escape")
    page.wait_for_function(FINISHED, timeout=60_000)


def test_answers_can_be_taken_along(page: Page, address: str) -> None:
    open_page(page, address, "?v=cheerful:1&p=Hi&tokens=8&strip=0")
    texts(page)
    page.get_by_text("Take these answers along").click()
    expect(page.locator("#export-text")).to_contain_text("steering.load_model()")
    page.locator("#export-form").get_by_text("Command line").click()
    expect(page.locator("#export-text")).to_contain_text("steering generate --prompt Hi")


def test_two_visitors_at_once_see_only_their_own(page: Page, address: str) -> None:
    open_page(page, address, "?v=cheerful:2&p=What+is+rain%3F&tokens=24&strip=0")
    other = page.context.new_page()
    open_page(other, address, "?v=formal:2&p=What+is+snow%3F&tokens=24&strip=0")
    page.locator("#generate").click()
    other.locator("#generate").click()
    for visitor, name in ((page, "cheerful"), (other, "formal")):
        texts(visitor)
        assert titles(visitor) == ["baseline", f"{name} +2", f"{name} -2"]
    assert not set(texts(page)) & set(texts(other))
    other.close()


def test_what_was_begun_before_does_not_come_back(page: Page, address: str) -> None:
    """The strip is still being written when it is switched off, and when a follow-up begins."""
    query = "?v=cheerful:2&active=cheerful&p=Tell+me+a+long+story+about+rain.&tokens=160"
    open_page(page, address, query)
    expect(page.locator(".reply.strip footer")).to_contain_text("preparing", timeout=SLOW)
    page.locator("#strip input").uncheck()
    expect(page.locator(".reply.strip")).to_have_count(0)
    page.wait_for_timeout(2_000)
    expect(page.locator(".reply.strip")).to_have_count(0)
    page.locator("#strip input").check()
    expect(page.locator(".reply.strip footer")).to_contain_text("preparing", timeout=SLOW)
    page.locator("#follow-up").click()
    expect(page.locator(".turns li")).to_have_count(1)
    page.wait_for_timeout(2_000)
    expect(page.locator(".turns li")).to_have_count(1)
    expect(page.locator("#columns .reply")).to_have_count(0)
    page.get_by_role("button", name="Start over").click()
    expect(page.locator(".turns li")).to_have_count(0)


def test_the_strip_stays_while_columns_are_written(page: Page, address: str) -> None:
    open_page(page, address, "?v=cheerful:1.5&active=cheerful&p=How+are+you%3F&tokens=16")
    page.wait_for_function("document.querySelector('.reply.strip footer')?.innerText.includes('drag the slider')")
    page.evaluate("""() => { window.gone = false; new MutationObserver(() => {
        if (!document.querySelector('.reply.strip')) window.gone = true;
    }).observe(document.querySelector('#columns'), { childList: true, subtree: true }); }""")
    drag(page, "cheerful", 0.99)
    page.wait_for_function("document.querySelector('#columns').innerText.includes('cheerful +2')")
    texts(page)
    assert not page.evaluate("window.gone")


def test_closing_the_tab_ends_the_work(page: Page, address: str, bundled: LanguageModel) -> None:
    other = page.context.new_page()
    open_page(other, address, "?v=formal:1&p=Tell+me+a+very+long+story+about+a+ship.&tokens=512")
    other.wait_for_function("document.querySelector('#columns .answer').innerText.length > 20")
    servers = [o for o in gc.get_objects() if type(o) is DecodeServer and o.model is bundled]
    assert any(server.is_running for server in servers)
    other.close()
    deadline = time.monotonic() + IDLE_SECONDS + 10  # the thread ends when there has been nothing to do for a while
    while any(server.is_running for server in servers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(server.is_running for server in servers)


def test_an_empty_and_a_huge_prompt_are_answered_with_a_sentence(page: Page, address: str) -> None:
    open_page(page, address, "?v=&p=Hello&tokens=8")
    texts(page)
    page.locator("#prompt textarea").fill("   ")
    page.locator("#generate").click()
    expect(page.locator("#columns .problem")).to_contain_text("The prompt is empty")
    page.locator("#prompt textarea").fill("word " * 3_990)
    page.locator("#prompt textarea").fill("a b c d e f g h " * 1_200)
    page.locator("#generate").click()
    expect(page.locator("#columns .problem")).to_contain_text("reads at most")
