"""A real server and a real Chromium for the page's tests."""

import csv
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

from steering import paths
from steering.training.methods.bipo.layer_sweep import sweep_layers
from steering.training.methods.bipo.step import Trainer
from steering.vectors.library import Library
from tests.chromium import CHROMIUM_FLAGS, chromium
from tests.serving import served
from tests.tiny_models import tiny_model

expect.set_options(timeout=120_000)  # as long as a busy machine may take; only a failure waits that long


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


class Watched:
    """What a page asked the network for, and what its console complained about."""

    def __init__(self, page: Page) -> None:
        self.outside: list[str] = []
        self.errors: list[str] = []
        page.on("request", self._request)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)

    def _request(self, request: Request) -> None:
        if not request.url.startswith(("http://127.0.0.1", "data:", "blob:")):
            self.outside.append(request.url)

    def complaints(self) -> list[str]:
        """Errors but for the requests that a reload breaks off."""
        known = ("AbortError", "Connection errored out", "net::ERR_ABORTED", "ERR_INCOMPLETE_CHUNKED_ENCODING")
        return [error for error in self.errors if not any(word in error for word in known)]


@pytest.fixture(scope="session")
def small_shelf(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(own=tmp_path_factory.mktemp("small-shelf"))


@pytest.fixture(scope="session")
def small_address(small_shelf: Library) -> Iterator[str]:
    """The page with a random model of 16 layers that takes half a second a step: for what is not about the model."""
    model = tiny_model(num_hidden_layers=16)
    step = Trainer.step

    def unhurried(trainer: Trainer, *arguments: object) -> object:
        time.sleep(0.5 if trainer.scorer.model is model else 0)
        return step(trainer, *arguments)

    def unhurried_sweep(swept: object, *arguments: object, **options: object) -> object:
        time.sleep(5 if swept is model else 0)  # so that a busy browser sees that it is going on
        return sweep_layers(swept, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch, served(model, small_shelf) as url:
        patch.setattr(Trainer, "step", unhurried)
        patch.setattr("steering.training.methods.bipo.train.sweep_layers", unhurried_sweep)
        yield url


@pytest.fixture
def watched(page: Page) -> Watched:
    return page.watched  # type: ignore[attr-defined]


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh visitor. Whatever the test did: no request left the machine, and the console stayed clean."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(180_000)  # a busy machine is slow, not wrong
    page.watched = Watched(page)  # type: ignore[attr-defined]
    yield page
    context.close()
    assert not page.watched.outside, page.watched.outside  # type: ignore[attr-defined]
    assert not page.watched.complaints(), page.watched.complaints()  # type: ignore[attr-defined]


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    """Twenty pairs of an example set as a stranger's file: BiPO's column names, a byte-order mark, one bad row.

    The first question names the test, so that no training goes on from the checkpoint that another test left.
    """
    source = paths.shipped("assets") / "examples" / "cheerful.csv"
    with source.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:21]
    rows[0][0] += f" ({tmp_path.name})"
    path = tmp_path / "my cheerful pairs.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([["question", "matching", "not_matching"], *rows, ["No answer?", "", "none"]])
    return path
