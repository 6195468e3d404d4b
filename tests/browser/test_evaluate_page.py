"""Evaluating in a real browser: press once, watch the curve fill, read the answers, say whether one agrees."""

from playwright.sync_api import Page, expect


def open_evaluate(page: Page, address: str) -> None:
    page.goto(address + "?v=&p=Hello&tokens=8")
    page.get_by_role("tab", name="Evaluate").click()
    expect(page.locator("#evaluate-vector input")).to_have_value("agreeable")  # the first on the shelf
    page.locator("#evaluate-vector input").click()
    page.get_by_role("option", name="cheerful", exact=True).click()
    expect(page.locator("#evaluate-pairs input")).to_have_value("cheerful")


def set_number(page: Page, elem_id: str, value: int) -> None:
    box = page.locator(f"#{elem_id} input[type=number]")
    box.fill(str(value))
    box.press("Tab")


def small(page: Page) -> None:
    """Ask for little: 4 prompts, 8 tokens, no random directions."""
    page.get_by_role("button", name="Other pairs, prompts and settings").click()
    set_number(page, "evaluate-count", 4)
    set_number(page, "evaluate-tokens", 8)
    set_number(page, "evaluate-random", 0)


def test_from_a_vector_to_the_answers_behind_its_curve(page: Page, address: str) -> None:
    open_evaluate(page, address)
    expect(page.locator("#evaluation-chart")).to_contain_text("Behavior (judge)")  # the one in the vector's file
    small(page)
    status = page.locator("#evaluation-status")
    page.locator("#start-evaluation").click()
    expect(status).to_contain_text("Done in", timeout=180_000)
    table = page.locator("#evaluation-table")
    expect(table.locator("tbody tr")).to_have_count(13 + 6)  # multipliers; two of each baseline
    expect(table).to_contain_text("asked in the system prompt")
    expect(page.locator("#evaluation-verdict")).to_contain_text("Judge: offline. It is right on")
    expect(page.locator("#keep-range")).to_be_disabled()  # shipped vectors are read-only
    with page.expect_download() as download:
        page.locator("#evaluation-report").click()
    assert download.value.suggested_filename == "report.html"
    page.locator("#evaluation-answers [role=gridcell]").nth(5).click()
    expect(page.locator("#chosen-answer")).to_contain_text("Asked:")
    page.locator("#thumb-up").click()
    expect(page.locator("#agreement")).to_contain_text("of 1 answers")


def test_stop_and_go_on(page: Page, address: str) -> None:
    open_evaluate(page, address)
    small(page)
    status = page.locator("#evaluation-status")
    page.locator("#start-evaluation").click()
    expect(page.locator("#evaluation-table tbody tr").first).to_be_visible(timeout=120_000)
    page.locator("#stop-evaluation").click()
    expect(status).to_contain_text("Evaluate goes on from here", timeout=120_000)
    page.locator("#start-evaluation").click()
    expect(status).to_contain_text("Done in", timeout=180_000)


def test_what_is_missing_is_told(page: Page, address: str) -> None:
    open_evaluate(page, address)
    page.get_by_role("button", name="Other pairs, prompts and settings").click()
    page.get_by_label("My own", exact=True).check()
    page.locator("#evaluate-own textarea").fill("only one prompt")
    page.locator("#start-evaluation").click()
    expect(page.locator("#evaluation-status")).to_contain_text("Write two prompts or more, one in each line")


def test_a_slider_ends_where_the_text_stayed_sound(page: Page, address: str) -> None:
    page.goto(address + "?v=&p=Hello&tokens=8")
    slider = page.locator("#slider-cheerful")
    expect(slider).to_be_visible()
    low, high = (float(slider.get_attribute(end) or 0) for end in ("min", "max"))
    assert -3 <= low < 0 < high <= 3 and (low, high) != (-3, 3)
    number = page.locator("#number-cheerful")
    number.fill("3")
    number.press("Enter")
    expect(slider).to_have_attribute("max", "3")
    expect(page.locator("[data-row=cheerful] .slider-beyond")).to_contain_text("where the text stayed sound")


def test_an_experiment_runs_by_one_click(page: Page, address: str) -> None:
    open_evaluate(page, address)
    expect(page.locator("#experiments")).not_to_contain_text("Jailbreak defence")
    page.get_by_role("button", name="Experiments of the paper").click()
    expect(page.locator("#experiment-verdict")).to_contain_text("Jailbreak defence")
    page.locator("#experiment-name input").click()
    page.get_by_role("option", name="Hallucination").click()
    expect(page.locator("#experiment-about")).to_contain_text("Table 6")
    set_number(page, "experiment-prompts", 2)
    page.locator("#start-experiment").click()
    expect(page.locator("#experiment-status")).to_contain_text("Done in", timeout=120_000)
    expect(page.locator("#experiment-verdict")).to_contain_text("From -1 to +1 our score")
    expect(page.locator("#experiment-table tbody tr")).to_have_count(3)
    with page.expect_download() as download:
        page.locator("#experiment-report").click()
    assert download.value.suggested_filename == "report.html"


def test_curves_are_compared_and_units_changed(page: Page, address: str) -> None:
    open_evaluate(page, address)
    page.locator("#evaluate-others input").click()
    page.get_by_role("option", name="poetic").click()
    page.keyboard.press("Escape")
    expect(page.locator("#evaluation-chart .legendtext", has_text="poetic")).to_be_visible()
    page.get_by_role("radio", name="KL units").check()
    expect(page.locator("#evaluation-chart")).to_contain_text("multiplier in KL units")
    page.get_by_role("tab", name="Playground").click()
    page.locator("#slider-unit").select_option("dose")
    page.locator("#number-cheerful").fill("1")
    page.locator("#number-cheerful").press("Enter")
    expect(page.locator("[data-row=cheerful] .slider-unit")).to_contain_text("% of the stream")
    page.locator("#slider-unit").select_option("kl")
    expect(page.locator("[data-row=cheerful] .slider-unit")).to_contain_text("KL units")
