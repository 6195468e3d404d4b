"""Two browsers on a public page: each has a shelf of its own, and finds it again."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from steering.limits import Limits
from tests.browser.conftest import Watched
from tests.interface.public_page import PublicPage, public_page
from tests.tiny_models import tiny_model


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PublicPage]:
    with public_page(tiny_model(), tmp_path_factory.mktemp("public"), Limits.public()) as page:
        yield page


@pytest.fixture
def other(browser: Browser) -> Iterator[Page]:
    """Another visitor's browser."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.set_default_timeout(180_000)
    watched = Watched(page)
    yield page
    context.close()
    assert not watched.outside and not watched.complaints(), watched.complaints()


def open_tab(page: Page, public: PublicPage, tab: str) -> None:
    page.goto(public.address + "?v=&p=Hello&tokens=8")
    page.wait_for_selector("#sliders .slider, #sliders p, #shared-note")
    page.get_by_role("tab", name=tab).click()


def trained(page: Page, public: PublicPage, pairs_file: Path) -> None:
    open_tab(page, public, "Train")
    page.set_input_files("#pairs-file input[type=file]", str(pairs_file))
    expect(page.locator("#pairs-report")).to_contain_text("20 pairs kept")
    page.locator("#start-training").click()
    expect(page.locator("#training-status")).to_contain_text("ive it a name and save it", timeout=180_000)


def test_each_visitor_has_a_shelf_and_finds_it_again(
    page: Page, other: Page, public: PublicPage, pairs_file: Path, tmp_path: Path
) -> None:
    trained(page, public, pairs_file)
    page.locator("#vector-name textarea, #vector-name input").first.fill("only mine")
    page.locator("#save-vector").click()
    expect(page.locator("#saved-note")).to_contain_text("Saved as only mine")
    expect(page.locator("#saved-note")).to_contain_text("kept for 24 hours")
    trained(page, public, pairs_file)  # and is not saved
    for visitor, sees in ((page, True), (other, False)):
        open_tab(visitor, public, "Vectors")
        mine = visitor.locator("#shelf button", has_text="only mine")
        expect(mine).to_have_count(int(sees))
        visitor.get_by_role("tab", name="Playground").click()
        expect(visitor.locator("#slider-only-mine")).to_have_count(int(sees))
        visitor.get_by_role("tab", name="Train").click()
        expect(visitor.locator("#drafts")).to_be_visible(visible=sees)
    open_tab(page, public, "Vectors")
    page.locator("#shelf button", has_text="only mine").click()
    with page.expect_download() as download:
        page.locator("#download-vector").click()
    download.value.save_as(tmp_path / "mine.safetensors")
    assert (tmp_path / "mine.safetensors").stat().st_size > 500
    page.locator("#delete-vector").click()
    expect(page.locator("#shelf button", has_text="only mine")).to_have_count(0)
    page.locator("#undo-delete").click()
    expect(page.locator("#shelf button", has_text="only mine")).to_have_count(1)


def test_a_link_to_a_vector_of_somebody_elses_says_what_is_missing(other: Page, public: PublicPage) -> None:
    other.goto(public.address + "?v=only-theirs:1.5&p=Hello&tokens=8")
    expect(other.locator("#advice")).to_contain_text("also uses only-theirs, not on this shelf")


def test_a_link_can_be_copied_where_the_clipboard_is_closed(page: Page, public: PublicPage) -> None:
    page.goto(public.address + "?v=&p=Hello&tokens=8")
    page.wait_for_selector("#columns .reply")
    assert page.evaluate("steeringPage.link()") == page.url
    assert page.evaluate("STEERING_SPACE") == ""
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.locator("#copy-link").click()
    expect(page.locator("#link-to-copy")).to_have_value(re.compile(r"^http://127.0.0.1.*p=Hello"))


def test_the_page_says_that_it_is_shared_and_what_is_kept(page: Page, public: PublicPage) -> None:
    page.goto(public.address)
    expect(page.locator("#shared-note")).to_contain_text("what you make is yours alone, and kept for 24 hours")
    page.get_by_text("What is this?").click()
    expect(page.locator("#help")).to_contain_text("no other visitor sees it")
    expect(page.locator("#help")).to_contain_text("200 pairs")
    page.get_by_role("tab", name="Train").click()
    expect(page.locator("#training-status")).to_contain_text("a training may have 200 pairs and 2 min")
    expect(page.locator("#effort")).not_to_contain_text("paper")
    expect(page.locator("#start-starters")).to_have_count(0)
