"""The Playground in a real browser: first sight, sliders, the preview, examples, links."""

import re
from dataclasses import replace

from playwright.sync_api import Page, expect

from steering.vectors.library import Library
from tests.browser.playground import SLOW, bars, drag, hold, open_page, texts, titles


def test_first_sight_shows_answers_without_a_click(page: Page, address: str) -> None:
    open_page(page, address)
    expect(page.locator(".model-line")).to_contain_text("decoding", timeout=SLOW)  # which way, once it is known
    assert titles(page)[0] == "baseline"
    assert len(titles(page)) == 4  # the last one flips through the slider's range; all were written ahead
    answers = texts(page)
    assert len(set(answers[:3])) == 3 and all(len(answer) > 20 for answer in answers)
    expect(page.locator("#advice")).to_contain_text("written ahead")


def test_dragging_a_slider_writes_new_answers(page: Page, address: str) -> None:
    open_page(page, address, "?v=&p=How+are+you%3F&tokens=16")
    assert titles(page) == ["baseline"]
    untouched = texts(page)
    drag(page, "cheerful", 0.9)
    page.wait_for_function("document.querySelectorAll('#columns .reply').length >= 3")  # the strip may have come, too
    multiplier = float(page.locator("#slider-cheerful").input_value())
    assert 1.5 <= multiplier <= 3
    assert titles(page)[:3] == ["baseline", f"cheerful {multiplier:+g}", f"cheerful {-multiplier:+g}"]
    answers = texts(page)[:3]
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
        # What the server sends meanwhile draws the sliders anew, as this does.
        page.evaluate("document.querySelector('#slider-unit').dispatchEvent(new Event('change', { bubbles: true }))")
        number.press("Enter")
        expect(page.locator("#slider-cheerful")).to_have_value(becomes)
    texts(page)


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


def test_the_first_word_moves_while_a_slider_is_dragged(page: Page, address: str) -> None:
    open_page(page, address, "?v=&p=What+should+I+do+this+weekend%3F&tokens=8&strip=0")
    page.wait_for_function("document.querySelectorAll('.chances li').length === 10")
    expect(page.locator(".forecast")).to_contain_text("Drag a slider")  # the link's sliders are at 0
    texts(page)
    before, answers = bars(page), page.locator("#columns h3").all_inner_texts()
    move = hold(page, "cheerful")
    move(0.9)
    page.wait_for_function("document.querySelector('.forecast').innerText.includes('rises from')")
    up = bars(page)
    move(0.1)
    page.wait_for_function(
        "up => [...document.querySelectorAll('.chances li')].some((b, i) => b.title !== up[i])", arg=up
    )
    page.wait_for_timeout(500)
    down = bars(page)
    assert before != up != down and len(up) == len(down) == 10
    assert not any("e+" in bar for bar in before + up + down)  # one of them has 9.5 %
    assert page.locator("#columns h3").all_inner_texts() == answers  # nothing was generated yet
    page.mouse.up()
    page.wait_for_function("document.querySelectorAll('#columns .reply').length === 3")


def test_a_typed_prompt_moves_the_bars(page: Page, address: str) -> None:
    open_page(page, address, "?v=&p=Hello&tokens=8")
    page.wait_for_function("document.querySelectorAll('.chances li').length === 10")
    before = bars(page)
    page.locator("#prompt textarea").fill("The capital of France is")
    page.wait_for_function("title => document.querySelector('.chances li').title !== title", arg=before[0])
    page.locator("#prompt textarea").fill("")
    page.wait_for_function("document.querySelector('.forecast').innerText.includes('Write a prompt')")


def test_the_address_holds_every_control(page: Page, address: str) -> None:
    query = "?v=cheerful:0.5&p=Hi&sys=Be+brief.&tokens=16&temperature=0.7&top_p=0.9&penalty=1.2&seed=7&full=1&strip=0"
    open_page(page, address, query)
    first = texts(page)
    page.locator("#slider-cheerful").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_url(re.compile("cheerful%3A0.75"))
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(re.compile("cheerful%3A0.5"))
    texts(page)
    elsewhere = page.context.new_page()
    elsewhere.goto(page.url)
    elsewhere.wait_for_selector("#columns .reply")
    assert texts(elsewhere) == first
    assert elsewhere.locator("#columns footer").count() == 3
    elsewhere.get_by_text("System prompt, sampling; full-precision weights in use").click()
    expect(elsewhere.locator("#system textarea")).to_have_value("Be brief.")
    expect(elsewhere.locator("#seed input")).to_have_value("7")
    expect(elsewhere.locator("#full-weights input")).to_be_checked()
    elsewhere.close()


def test_a_link_of_another_model_says_so(page: Page, address: str) -> None:
    open_page(page, address, "?v=&p=Hi&tokens=8&model=Other-7B")
    expect(page.locator("#advice")).to_contain_text("made with the model Other-7B; this page runs SmolLM2")


def test_examples_say_what_to_look_for(page: Page, address: str) -> None:
    open_page(page, address, "?v=&p=Hi&tokens=8")
    page.get_by_role("button", name="A poet at the kettle").click()
    expect(page.locator("#prompt textarea")).to_have_value("How do I make a cup of tea?")
    expect(page.locator("#slider-poetic")).to_have_value("1.5")
    expect(page.locator("#advice")).to_contain_text("becomes a poem")
    page.wait_for_function("document.querySelector('#columns').innerText.includes('poetic +1.5')")


def test_hints_stay_away_once_put_away(page: Page, address: str) -> None:
    open_page(page, address, "?v=&p=Hi&tokens=8")
    page.get_by_role("button", name="Got it").click()
    expect(page.locator("#hints")).to_be_hidden()
    page.reload()
    page.wait_for_selector("#columns .reply")
    expect(page.locator("#hints")).to_be_hidden()


def test_what_a_vector_calls_itself_is_text_never_code(page: Page, address: str, shelf: Library) -> None:
    hostile = "${document.title='hacked'}<img src=x onerror=alert(1)>`{{this}}"
    source = shelf.get("cheerful")
    entry = shelf.add(replace(source, name=hostile[:60], behavior=hostile))
    try:
        open_page(page, address, "?v=&p=Hi&tokens=8")
        expect(page.locator(".slider-hint", has_text="hacked").first).to_have_text(hostile)
        page.get_by_role("tab", name="Vectors").click()
        page.locator(".shelf button", has_text="hacked").click()
        expect(page.locator(".vector h2")).to_contain_text("${document")
        assert page.title() == "Steering Playground"
    finally:
        shelf.delete(entry.slug)


def test_a_phone_needs_no_sideways_scrolling(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    open_page(page, address, "?v=cheerful:1&p=Hello&tokens=8")
    texts(page)
    for tab in ("Playground", "Train", "Vectors", "Evaluate"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
