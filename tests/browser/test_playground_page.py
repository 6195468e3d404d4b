"""The Playground in a real browser: first sight, dragging, keys, Stop, links."""

import re

from playwright.sync_api import Page, expect

FINISHED = (
    "document.querySelectorAll('#columns .reply').length > 0 && !document.querySelector('#columns .reply.writing')"
)


def open_page(page: Page, address: str, query: str = "") -> None:
    page.goto(address + query)
    page.wait_for_selector("#columns .reply")


def titles(page: Page) -> list[str]:
    return page.locator("#columns .reply h3").all_inner_texts()


def texts(page: Page) -> list[str]:
    page.wait_for_function(FINISHED)
    return page.locator("#columns .answer").all_inner_texts()


def drag(page: Page, slug: str, share: float) -> None:
    """Drag a slider's thumb to a share of its track, with a real mouse."""
    slider = page.locator(f"#slider-{slug}")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    now = float(slider.input_value())
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * (0.5 + now / 6 * 0.95), y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * share, y, steps=15)
    page.mouse.up()


def test_first_sight_shows_answers_without_a_click(page: Page, address: str) -> None:
    open_page(page, address)
    assert titles(page)[0] == "baseline"
    assert len(titles(page)) == 3
    answers = texts(page)
    assert len(set(answers)) == 3 and all(len(answer) > 20 for answer in answers)


def test_dragging_a_slider_writes_new_answers(page: Page, address: str) -> None:
    open_page(page, address, "?v=&p=How+are+you%3F&tokens=16")
    assert titles(page) == ["baseline"]
    untouched = texts(page)
    drag(page, "cheerful", 0.9)
    page.wait_for_function("document.querySelectorAll('#columns .reply').length === 3")
    multiplier = float(page.locator("#slider-cheerful").input_value())
    assert 1.5 <= multiplier <= 3
    assert titles(page) == ["baseline", f"cheerful {multiplier:+g}", f"cheerful {-multiplier:+g}"]
    answers = texts(page)
    assert answers[0] == untouched[0] and len(set(answers)) == 3


def test_arrow_keys_move_a_slider_and_keep_the_focus(page: Page, address: str) -> None:
    open_page(page, address, "?v=&p=Hello&tokens=8")
    page.locator("#slider-cheerful").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#slider-cheerful")).to_have_value("0.75")
    expect(page.locator("#slider-cheerful")).to_be_focused()
    page.wait_for_function("document.querySelector('#columns').innerText.includes('cheerful +0.75')")


def test_a_typed_multiplier_is_kept_in_range(page: Page, address: str) -> None:
    open_page(page, address, "?v=&p=Hello&tokens=8")
    for typed, becomes in (("1e9", "3"), ("-77", "-3"), ("", "0")):
        number = page.locator(".slider-number[data-slug=cheerful]")
        number.fill(typed)
        number.press("Enter")
        expect(page.locator("#slider-cheerful")).to_have_value(becomes)
    texts(page)


def test_stop_ends_the_answers_at_once(page: Page, address: str) -> None:
    open_page(page, address, "?v=formal:1&p=Tell+me+a+very+long+story+about+a+ship.&tokens=512")
    page.wait_for_function("document.querySelector('#columns .answer').innerText.length > 20")
    page.locator("#stop").click()
    page.wait_for_function(FINISHED, timeout=5_000)
    expect(page.locator("#columns footer").first).to_contain_text("stopped")
    before = texts(page)
    page.wait_for_timeout(1_000)
    assert texts(page) == before


def test_the_address_restores_the_page(page: Page, address: str) -> None:
    open_page(page, address, "?v=cheerful:0.5&p=What+is+rain%3F&tokens=8")
    page.locator("#prompt textarea").fill("What is snow?")
    page.locator("#prompt textarea").press("Enter")
    page.wait_for_url(re.compile("snow"))
    page.get_by_role("button", name="Pin this setting").click()
    page.wait_for_url(re.compile("pin="))
    texts(page)
    page.reload()
    page.wait_for_selector("#columns .reply")
    expect(page.locator("#prompt textarea")).to_have_value("What is snow?")
    expect(page.locator("#slider-cheerful")).to_have_value("0.5")
    expect(page.locator(".pins li")).to_have_count(1)


def test_an_unsound_address_still_opens_the_page(page: Page, address: str) -> None:
    open_page(page, address, "?v=nobody:1,cheerful:nan,formal:1e9,<b>:2&mode=x&tokens=zero&seed=-5&pin=::,&p=Hi")
    expect(page.locator("#slider-formal")).to_have_value("3")
    texts(page)


def test_sweep_shows_five_strengths_of_one_vector(page: Page, address: str) -> None:
    open_page(page, address, "?v=cheerful:1&p=Hello&tokens=8&mode=sweep")
    page.wait_for_function("document.querySelectorAll('#columns .reply').length === 5")
    assert titles(page) == ["cheerful -2", "cheerful -1", "baseline", "cheerful +1", "cheerful +2"]
    texts(page)


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


def test_a_phone_needs_no_sideways_scrolling(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    open_page(page, address, "?v=cheerful:1&p=Hello&tokens=8")
    texts(page)
    for tab in ("Playground", "Train", "Vectors"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
