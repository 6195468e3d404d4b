"""Another model, chosen in the page: checked, loaded, its sliders made, and told to whoever has the page open."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from steering.models.loading import LanguageModel
from steering.vectors.library import Library
from tests.browser.playground import FINISHED, open_page
from tests.lora_adapter import make_adapter
from tests.serving import served
from tests.tiny_models import tiny_model


@pytest.fixture(scope="module")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model that has no chat template, of another width than the page's first model."""
    folder = tmp_path_factory.mktemp("models") / "tiny-base"
    model = tiny_model("llama", chat=False, hidden_size=64, head_dim=16)
    model.network.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def chooser_address(tmp_path: Path) -> Iterator[str]:
    """A page of its own whose visitors may choose the model; ask for it before `page`, which then closes first."""
    shelf = Library(own=tmp_path / "shelf")
    with served(tiny_model(), shelf, can_choose=True) as url:
        yield url


def write_source(page: Page, source: object) -> None:
    if not page.locator("#model-source").is_visible():
        page.locator("#model-chooser > button").click()
    page.locator("#model-source input, #model-source textarea").first.fill(str(source))


def test_a_model_is_checked_loaded_and_gets_sliders(
    chooser_address: str, page: Page, browser: Browser, base_model: Path
) -> None:
    other = browser.new_page()
    open_page(other, chooser_address, "?v=&p=My+own+words&tokens=8")
    open_page(page, chooser_address, "?tokens=8")
    write_source(page, base_model / "nowhere")
    page.locator("#check-model").click()
    expect(page.locator("#model-status [role=alert]")).to_be_visible()
    write_source(page, base_model)
    page.keyboard.press("Enter")
    expect(page.locator("#model-status")).to_contain_text("tiny-base")
    page.locator("#load-model").click()
    expect(page.locator("#model-status")).to_contain_text("tiny-base is in use")
    expect(page.locator("#model-chooser > button")).to_contain_text("tiny-base · base model")
    expect(page.locator("#model-note")).to_contain_text("continues your text")
    expect(page.locator("#sliders .foreign summary")).to_contain_text("made for other models")
    expect(page.locator("#hints")).to_be_hidden()
    assert page.locator("#sliders .slider:visible").count() == 0
    # Whoever has the page open learns of it by what he does next; his own prompt stays.
    other.locator("#generate").click()
    expect(other.locator("#advice")).to_contain_text("The model is tiny-base now")
    expect(other.locator("#prompt textarea")).to_have_value("My own words")
    expect(other.locator("#model-chooser > button")).to_contain_text("tiny-base")
    other.close()
    page.locator("#make-starters").click()
    expect(page.locator("#slider-cheerful-tiny-base")).to_be_visible()
    expect(page.locator("#hints")).to_be_visible()
    page.locator("#examples button:visible").first.click()
    page.wait_for_function(FINISHED)
    expect(page.locator("#columns .reply")).to_have_count(4)  # and the strip
    expect(page.locator("#stop-starters")).to_be_hidden(timeout=180_000)  # all are trained
    expect(page.locator("#slider-cheerful-tiny-base")).to_be_visible()
    assert "draft" not in page.locator("#sliders").inner_text()


def test_the_chooser_works_with_the_keyboard_on_a_narrow_page(
    chooser_address: str, page: Page, base_model: Path
) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    open_page(page, chooser_address, "?v=&p=Hello&tokens=8")
    page.locator("#model-chooser > button").focus()
    page.keyboard.press("Enter")
    page.locator("#model-source input, #model-source textarea").first.focus()
    page.keyboard.type(str(base_model))
    page.keyboard.press("Enter")
    expect(page.locator("#model-status")).to_contain_text("tiny-base")
    page.locator("#load-model").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#model-status")).to_contain_text("tiny-base is in use")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_an_adapter_of_the_bundled_model_gives_other_answers(
    bundled: LanguageModel, tmp_path: Path, page: Page
) -> None:
    adapter = make_adapter(tmp_path / "my-adapter", bundled.network, "HuggingFaceTB/SmolLM2-135M-Instruct")
    with served(bundled, Library(own=tmp_path / "shelf"), can_choose=True) as url:
        open_page(page, url, "?v=&p=Why+is+the+sky+blue%3F&tokens=12")
        answer = page.locator("#columns .reply").first
        page.locator("#generate").click()
        page.wait_for_function(FINISHED)
        before = answer.inner_text()
        write_source(page, adapter)
        page.locator("#check-model").click()
        expect(page.locator("#model-status")).to_contain_text("LoRA adapter")
        page.locator("#load-model").click()
        expect(page.locator("#model-status")).to_contain_text("my-adapter is in use", timeout=120_000)
        page.locator("#generate").click()
        page.wait_for_selector("#columns .reply")  # the answers of the old model went with it
        page.wait_for_function(FINISHED)
        assert answer.inner_text() != before
        page.goto("about:blank")


def test_a_strangers_page_has_only_the_model_line(page: Page, small_address: str) -> None:
    open_page(page, small_address, "?v=&p=Hello&tokens=8")
    expect(page.locator(".model-line")).to_contain_text("tiny-llama")
    expect(page.locator("#model-chooser")).to_have_count(0)
