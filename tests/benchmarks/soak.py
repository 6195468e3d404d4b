"""A public page under many visitors at once, for minutes: no error, no growth, every answer its own.

    python -m tests.benchmarks.soak --minutes 10 --visitors 12

Starts the page on the bundled model as `STEERING_PUBLIC=1 steering play` does, in a process of its own. Each visitor is
a thread that opens the page, drags, generates, uploads pairs, trains, saves, and closes the tab at random, in the
middle of an answer or a training, too. Told at the end: what was done, how long it took, the server's memory and open
files from minute to minute, and each line of its log that is no greeting.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.interface.public_page import bring, pairs_csv, save, sent
from tests.raw_client import RawClient

PORT = 7977
PROMPTS = [
    "How was your day?",
    "What is a good breakfast?",
    "Who should lead us?",
    "Tell me about rain.",
    "Are you sure?",
]
VECTORS = ("cheerful", "formal", "power-seeking")
GREETINGS = ("Running on", "To create a public link", "Launching MCP", "Streamable HTTP", "Closing server")


class Told:
    """What the visitors saw, together."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.done: Counter[str] = Counter()
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.wrong: list[str] = []
        self.first: dict[str, str] = {}  # what was asked -> the first answer to it

    def count(self, what: str, seconds: float) -> None:
        with self.lock:
            self.done[what] += 1
            self.seconds[what].append(seconds)

    def complain(self, text: str) -> None:
        with self.lock:
            self.wrong.append(text[:300])

    def check_answer(self, key: str, text: str) -> None:
        """Greedy answers to the same question begin alike, whoever else is answered in the same batch."""
        with self.lock:
            first = self.first.setdefault(key, text)
        if first.split()[:3] != text.split()[:3]:
            self.complain(f"another answer to {key}: {first[:60]!r}, {text[:60]!r}")


class Visitor(threading.Thread):
    """One visitor, until the time is over."""

    def __init__(self, number: int, address: str, config: dict, told: Told, until: float) -> None:
        super().__init__(daemon=True)
        self.number, self.address, self.config, self.told, self.until = number, address, config, told, until
        self.random = random.Random(number)
        self.mark = f"MARK{number}X"
        self.secret = ""
        self.saved: set[str] = set()

    def run(self) -> None:
        while time.monotonic() < self.until:
            try:
                self.visit()
            except (httpx.TransportError, KeyError, IndexError, TypeError, ValueError) as error:
                self.told.complain(f"visitor {self.number}: {error!r}")

    def visit(self) -> None:
        """Open the page, do some of what can be done, close it."""
        began = time.monotonic()
        client = RawClient(self.address, self.config).enter(self.secret)
        self.secret = client.secret
        client.call(client.named("restore"), [])
        self.told.count("open", time.monotonic() - began)
        stop_beating = threading.Event()
        beats = threading.Thread(target=self.beat, args=(client, stop_beating), daemon=True)
        beats.start()
        for _ in range(self.random.randint(1, 5)):
            action = self.random.choices(
                [self.drag, self.generate, self.ask, self.upload, self.train], [4, 4, 2, 2, 1]
            )[0]
            began = time.monotonic()
            if action(client) and time.monotonic() < self.until:
                self.told.count(action.__name__, time.monotonic() - began)
            time.sleep(self.random.uniform(0.2, 2.0))
            if time.monotonic() > self.until:
                break
        stop_beating.set()
        client.http.close()

    def beat(self, client: RawClient, stop: threading.Event) -> None:
        """Keep the tab's connection open, as a browser does."""
        try:
            with httpx.stream("GET", f"{self.address}gradio_api/heartbeat/{client.session}", timeout=60) as lines:
                for _ in lines.iter_lines():
                    if stop.is_set():
                        return
        except httpx.TransportError:
            return

    def setting(self) -> dict[str, float]:
        return {self.random.choice(VECTORS): self.random.choice([-1.5, -1.0, 1.0, 1.5])}

    def drag(self, client: RawClient) -> bool:
        ticket = self.ticket(client)
        for step in range(self.random.randint(3, 12)):
            request = {"prompt": self.random.choice(PROMPTS), "system": "", "turns": [], "ticket": ticket}
            request["multipliers"] = {"cheerful": step / 4}
            answer = client.ask("next-token", "next_token", json.dumps(request)).json()
            if not answer["chances"]:
                self.told.complain(f"no forecast: {answer}")
        return True

    def ticket(self, client: RawClient) -> str:
        return client.call(client.named("restore"), [])[-1][0]["ticket"]

    def generate(self, client: RawClient) -> bool:
        prompt, setting = f"{self.random.choice(PROMPTS)}", self.setting()
        ((slug, multiplier),) = setting.items()
        sliders = {"sliders": [{"slug": slug, "multiplier": multiplier}], "pins": [], "active": slug, "hidden": []}
        number = client.of("generate")
        values = sent(client, number, prompt=prompt, sliders=sliders, tokens=24, strip=self.random.random() < 0.3)
        leave_after = self.random.randint(1, 8) if self.random.random() < 0.25 else 10**6
        shown: list[Any] = []
        for answer in client.stream(number, values):
            shown.append(answer)
            if len(shown) > leave_after:
                return False  # the tab is closed in the middle
        panel = shown[-1][0]
        if not isinstance(panel, dict) or panel.get("problem"):
            if "waiting already" not in str(panel):
                self.told.complain(f"no answers: {str(panel)[:200]}")
            return False
        if panel["asked"] != prompt:
            self.told.complain(f"asked {prompt!r}, got the answers to {panel['asked']!r}")
        for card in panel["columns"]:
            self.told.check_answer(json.dumps([prompt, card["multipliers"]]), card["text"])
        return True

    def ask(self, client: RawClient) -> bool:
        prompt, setting = self.random.choice(PROMPTS), self.setting()
        answer = client.call(client.named("generate"), [prompt, [{}, setting], "", 16, 0.0, 0, 1.1, "float16"])[-1]
        if answer[0] == "error":
            if "waiting already" not in answer[1]:
                self.told.complain(answer[1])
            return False
        for column in answer[0]:
            self.told.check_answer(json.dumps(["", prompt, column["setting"]]), column["text"])
        return True

    def upload(self, client: RawClient) -> bool:
        shown = str(bring(client, pairs_csv(12, self.mark)))
        if "12 pairs kept" not in shown or self.mark not in shown:
            self.told.complain(f"the upload was not read: {shown[:200]}")
        if "MARK" in shown.replace(self.mark, ""):
            self.told.complain("somebody else's pairs")
        return True

    def train(self, client: RawClient) -> bool:
        bring(client, pairs_csv(12, self.mark))
        number = client.of("start-training")
        values = sent(client, number, effort="quick", setting_bipo_max_steps=self.random.choice([2, 4, 24]))
        leave_after = self.random.randint(1, 6) if self.random.random() < 0.4 else 10**6
        shown: list[Any] = []
        for answer in client.stream(number, values):
            shown.append(answer)
            if len(shown) > leave_after:
                return False
        last = shown[-1]
        if "waiting already" in str(last):
            return False
        if "Read the answers" not in str(last):
            self.told.complain(f"the training ended with {str(last)[:300]}")
            return False
        name = f"{self.mark} {len(self.saved)}"
        said = str(save(client, name))
        if f"Saved as {self.mark}" in said:
            self.saved.add(name)
        elif "the most here" not in said:
            self.told.complain(f"not saved: {said[:200]}")
        listed = str(client.call(client.of("shelf", "select"), [{"selected": ""}]))
        if "MARK" in listed.replace(self.mark, ""):
            self.told.complain("somebody else's vector is on the shelf")
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--visitors", type=int, default=12)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as data:
        log = Path(data) / "log"
        environment = {"STEERING_PUBLIC": "1", "CI": "1", "STEERING_DATA_DIR": data, "GRADIO_SERVER_PORT": str(PORT)}
        environment["GRADIO_TEMP_DIR"] = str(Path(data) / "uploads")
        command = [sys.executable, "-m", "steering", "play"]
        with log.open("w") as output:
            server = subprocess.Popen(command, env={**os.environ, **environment}, stdout=output, stderr=output)
        try:
            soak(server, options, log)
        finally:
            server.terminate()
            server.wait(60)


def soak(server: subprocess.Popen, options: argparse.Namespace, log: Path) -> None:
    address = f"http://127.0.0.1:{PORT}/"
    while True:
        try:
            config = httpx.get(f"{address}config", timeout=30).json()
            break
        except httpx.TransportError:
            assert server.poll() is None, log.read_text()
            time.sleep(0.5)
    told, until = Told(), time.monotonic() + 60 * options.minutes
    visitors = [Visitor(number, address, config, told, until) for number in range(options.visitors)]
    for visitor in visitors:
        visitor.start()
    process = psutil.Process(server.pid)
    samples = []
    while time.monotonic() < until:
        samples.append((process.memory_info().rss / 1e6, process.num_fds(), process.num_threads()))
        print(f"{len(samples) / 2:5.1f} min: {samples[-1][0]:,.0f} MB, {samples[-1][1]} files", flush=True)
        time.sleep(min(30, max(0.0, until - time.monotonic())))
    for visitor in visitors:
        visitor.join(120)
    time.sleep(15)
    samples.append((process.memory_info().rss / 1e6, process.num_fds(), process.num_threads()))
    print(f"  at rest: {samples[-1][0]:,.0f} MB, {samples[-1][1]} files, {samples[-1][2]} threads")
    for what, count in sorted(told.done.items()):
        seconds = sorted(told.seconds[what])
        print(f"{what:10} {count:5} times, median {seconds[len(seconds) // 2]:.2f} s, longest {seconds[-1]:.1f} s")
    print(f"wrong: {len(told.wrong)}", *told.wrong[:20], sep="\n  ")
    lines = [line for line in log.read_text().splitlines() if line.strip() and not any(g in line for g in GREETINGS)]
    print(f"lines in the server's log: {len(lines)}", *lines[:40], sep="\n  ")


if __name__ == "__main__":
    main()
