"""What a visitor waits for, measured in a real browser on a real server.

    python -m tests.benchmarks.page [--seconds 10] [--json]

From starting the program to its first answer over HTTP (with the model's cache warm), from opening the page to a
usable Generate button, from Generate to the first text of four columns, and, over a real drag of some seconds, from
each move of the slider to the bars that show it: on screen, so the frame after the change is awaited.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, sync_playwright

from tests.chromium import CHROMIUM_FLAGS, chromium

WATCH = """
() => {
  window.moves = []; window.drawn = [];
  document.addEventListener('steering:slider-moved', (event) => {
    if (event.detail.live) moves.push([performance.now(), JSON.stringify(event.detail.multipliers)]);
  });
  const shows = document.querySelector('[data-shows]');
  new MutationObserver(() => requestAnimationFrame(() => setTimeout(() => {
    const known = moves.filter(([, what]) => what === shows.dataset.shows);
    if (known.length) drawn.push([performance.now() - known[known.length - 1][0], known.length === 1]);
  }))).observe(shows, { attributeFilter: ['data-shows'] });
}
"""
FIRST_TEXT = "[...document.querySelectorAll('#columns .answer')].filter((answer) => answer.innerText).length >= 4"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="how long the slider is dragged")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results: dict[str, float] = {}
    with _server() as (address, ready), sync_playwright() as playwright:
        results["server ready, s"] = ready
        browser = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(120_000)
        for name in ("page usable, cold browser, s", "page usable, warm browser, s"):
            began = time.perf_counter()
            page.goto(f"{address}?v=&p=What+should+I+do+this+weekend%3F&tokens=8&strip=0")
            page.wait_for_selector("#generate:not([disabled])")
            page.wait_for_selector("#slider-cheerful")
            results[name] = time.perf_counter() - began
            page.wait_for_selector("[data-shows]", state="attached")
            _finished(page)
        results |= _drag(page, options.seconds)
        page.goto(f"{address}?v=cheerful:1&pin=formal:1&p=Hello&tokens=16&strip=0")
        page.wait_for_function(FIRST_TEXT)
        texts = [_first_texts(page, day) for day in ("Monday", "Tuesday", "Friday", "Saturday", "Sunday")]
        results["first text of 4 columns, s"] = statistics.median(new for new, _ in texts)
        results["of a prompt asked before, s"] = statistics.median(known for _, known in texts)
        browser.close()
    if options.json:
        print(json.dumps(results))
        return
    for name, value in results.items():
        print(f"{name:36} {value:.3g}")


@contextmanager
def _server() -> Iterator[tuple[str, float]]:
    """(address, seconds until it answered) of the program, started as a user starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/"
    began = time.perf_counter()
    command = [sys.executable, "app.py", "--port", str(port)]
    server = subprocess.Popen(command, env={**os.environ, "CI": "1"}, stdout=subprocess.DEVNULL)
    try:
        while True:
            try:
                urllib.request.urlopen(address, timeout=5).read()
                break
            except OSError:
                time.sleep(0.05)
        yield address, time.perf_counter() - began
    finally:
        server.terminate()
        server.wait()


def _drag(page: Page, seconds: float) -> dict[str, float]:
    """Latency of the preview, in ms, over a drag from end to end and back."""
    page.evaluate(WATCH)
    box = page.locator("#slider-cheerful").bounding_box()
    middle, half, y = box["x"] + box["width"] / 2, 0.45 * box["width"], box["y"] + box["height"] / 2
    page.mouse.move(middle, y)
    page.mouse.down()
    began = time.perf_counter()
    while (now := time.perf_counter() - began) < seconds:
        place = 1 - abs((now % 4) - 2)  # to and fro in four seconds
        page.mouse.move(middle + half * place, y)
        page.wait_for_timeout(40)  # the driver shares the machine's cores
    page.mouse.up()
    page.wait_for_timeout(1000)
    drawn, moves = page.evaluate("drawn"), page.evaluate("moves.length")
    _finished(page)
    every, fresh = [ms for ms, _ in drawn], [ms for ms, first in drawn if first]
    return {
        "slider moves": moves,
        "previews drawn": len(drawn),
        "preview on screen, median ms": statistics.median(every),
        "preview on screen, p95 ms": statistics.quantiles(every, n=20)[-1],
        "where the slider comes first, median ms": statistics.median(fresh),
        "where the slider comes first, p95 ms": statistics.quantiles(fresh, n=20)[-1],
    }


def _first_texts(page: Page, day: str) -> list[float]:
    """Seconds to the first text of four columns for a new prompt, and for the same again."""
    _finished(page)
    page.locator("#prompt textarea").fill(f"{day} I have nothing to do; what do you say to a long walk by the river?")
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        page.locator("#generate").click()
        page.wait_for_selector("#columns .reply.writing")
        page.wait_for_function(FIRST_TEXT, polling="raf")
        seconds.append(time.perf_counter() - began)
        _finished(page)
    return seconds


def _finished(page: Page) -> None:
    page.wait_for_function("document.querySelector('.reply') && !document.querySelector('#columns .reply.writing')")


if __name__ == "__main__":
    main()
