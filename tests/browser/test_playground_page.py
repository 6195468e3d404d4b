"""The Playground in a real browser: first sight, dragging, keys, Stop, links."""

import gc
import re
import time
from collections.abc import Callable
from dataclasses import replace

from playwright.sync_api import Page, expect

from steering.generation.server import IDLE_SECONDS, DecodeServer
from steering.models.loading import LanguageModel
from steering.vectors.library import Library

FINISHED = (
    "document.querySelectorAll('#columns .reply').length > 0 && !document.querySelector('#columns .reply.writing')"
)

SLOW = 180_000  # ms; what comes after whole answers takes its time on a busy machine


def open_page(page: Page, address: str, query: str = "") -> None:
    page.goto(address + query)
    page.wait_for_selector("#columns .reply")


def titles(page: Page) -> list[str]:
    return page.locator("#columns .reply h3").all_inner_texts()


def texts(page: Page) -> list[str]:
    page.wait_for_function(FINISHED)
    return page.locator("#columns .answer").all_inner_texts()


def hold(page: Page, slug: str) -> Callable[[float], None]:
    """Press the mouse on a slider's thumb; what is returned moves it to a share of the track."""
    slider = page.locator(f"#slider-{slug}")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    now = float(slider.input_value())
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * (0.5 + now / 6 * 0.95), y)
    page.mouse.down()
    return lambda share: page.mouse.move(box["x"] + box["width"] * share, y, steps=15)


def drag(page: Page, slug: str, share: float) -> None:
    """Drag a slider's thumb to a share of its track, with a real mouse."""
    hold(page, slug)(share)
    page.mouse.up()


def bars(page: Page) -> list[str]:
    """Each bar of the preview: its word and both probabilities."""
    return page.locator(".chances li").evaluate_all("bars => bars.map((bar) => bar.title)")


def test_first_sight_shows_answers_without_a_click(page: Page, address: str) -> None:
    open_page(page, address)
    expect(page.locator(".masthead p")).to_contain_text("decoding", timeout=SLOW)  # which way, once it is known
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
    page.locator(".ticks button", has_text="+3").click()
    expect(page.locator(".reply.strip h3")).to_have_text("cheerful +3")
    expect(page.locator(".ticks button[aria-pressed=true]")).to_have_text("+3")
    page.locator(".ticks button", has_text="+3").dblclick()  # the setting becomes what is shown
    expect(page.locator("#slider-cheerful")).to_have_value("3")
    page.wait_for_function("document.querySelector('.reply.setting h3')?.innerText === 'cheerful +3'")


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
    page.wait_for_function(FINISHED, timeout=5_000)
    expect(page.locator("#columns footer").first).to_contain_text("stopped")
    page.locator("#slider-formal").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#columns').innerText.includes('formal +1.25')")
    page.keyboard.press("Escape")
    page.wait_for_function(FINISHED, timeout=5_000)


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


def test_answers_can_be_taken_along(page: Page, address: str) -> None:
    open_page(page, address, "?v=cheerful:1&p=Hi&tokens=8&strip=0")
    texts(page)
    page.get_by_text("Take these answers along").click()
    expect(page.locator("#export-text")).to_contain_text("steering.load_model()")
    page.locator("#export-form").get_by_text("Command line").click()
    expect(page.locator("#export-text")).to_contain_text("steering generate --prompt Hi")


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
    drag(page, "cheerful", 0.9)
    page.wait_for_function("document.querySelector('#columns').innerText.includes('cheerful +2.')")
    texts(page)
    assert not page.evaluate("window.gone")


def test_closing_the_tab_ends_the_work(page: Page, address: str, bundled: LanguageModel) -> None:
    other = page.context.new_page()
    open_page(other, address, "?v=formal:1&p=Tell+me+a+very+long+story+about+a+ship.&tokens=512")
    other.wait_for_function("document.querySelector('#columns .answer').innerText.length > 20")
    servers = [o for o in gc.get_objects() if type(o) is DecodeServer and o.model is bundled]
    assert any(server._thread for server in servers)
    other.close()
    deadline = time.monotonic() + IDLE_SECONDS + 10  # the thread ends when there has been nothing to do for a while
    while any(server._thread for server in servers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(server._thread for server in servers)


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
