"""What the tests of the Playground do in a browser: open it, read its answers and bars, drag a slider."""

from collections.abc import Callable

from playwright.sync_api import Page

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
