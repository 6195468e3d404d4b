"""A client that knows only HTTP: it lists all endpoints of a page and calls them with whatever it likes."""

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from gradio_client.utils import apply_diff


class RawClient:
    """One stranger on a page.

    Args:
        address: of the page; config: its description, if it is at hand.

    Attributes:
        session: the name of a browser tab, which gradio lets a client choose.
        endpoints: gradio's description of each event of the page, by its number.
        components: the page's components by number.
        secret: what the page gave to remember the visitor by; empty before `enter`.
    """

    def __init__(self, address: str, config: dict | None = None) -> None:
        self.http = httpx.Client(base_url=address, timeout=60)
        self.session = secrets.token_hex(8)
        config = config or self.http.get("config").json()
        self.endpoints: dict[int, dict] = {each["id"]: each for each in config["dependencies"]}
        self.components: dict[int, dict] = {each["id"]: each for each in config["components"]}
        self.secret = ""

    def named(self, name: str) -> int:
        """Number of the endpoint with this name."""
        return next(number for number, each in self.endpoints.items() if each["api_name"] == name)

    def component(self, elem_id: str) -> int:
        """Number of the component with this id in the page."""
        return next(number for number, each in self.components.items() if each["props"].get("elem_id") == elem_id)

    def of(self, elem_id: str, event: str = "click") -> int:
        """Number of the endpoint that an event of a component starts."""
        target = [self.component(elem_id), event]
        return next(number for number, each in self.endpoints.items() if target in each["targets"])

    def enter(self, secret: str = "") -> "RawClient":
        """Open the page as a browser does that remembers this secret."""
        (self.secret,) = self.call(self.named("enter"), [secret])[-1]
        return self

    def call(self, number: int, data: list[Any], *, session: str = "") -> list[list[Any]]:
        """Call an endpoint; return the data of each of its answers, an error as ["error", what it says]."""
        return list(self.stream(number, data, session=session))

    def stream(self, number: int, data: list[Any], *, session: str = "") -> Iterator[list[Any]]:
        """Call an endpoint and yield the data of its answers as they come."""
        session = session or self.session
        body = {"fn_index": number, "data": data, "session_hash": session}
        if self.endpoints[number].get("queue") is False:
            answer = self.http.post("gradio_api/run/predict", json=body)
            yield answer.json().get("data") or ["error", answer.text]
            return
        joined = self.http.post("gradio_api/queue/join", json=body)
        if joined.status_code != 200:
            yield ["error", joined.text]
            return
        event = joined.json()["event_id"]
        shown: list[Any] | None = None  # gradio sends what changed since the answer before
        with self.http.stream("GET", "gradio_api/queue/data", params={"session_hash": session}) as answers:
            for line in answers.iter_lines():
                message = json.loads(line[6:]) if line.startswith("data: ") else {}
                if message.get("event_id") not in (event, None):
                    continue
                if message.get("msg") in ("process_generating", "process_completed"):
                    output = message["output"]
                    if not message["success"] or "data" not in output:
                        yield ["error", output.get("error")]
                    elif message["msg"] == "process_completed" or shown is None:
                        shown = output["data"]
                        yield shown
                    else:
                        shown = [apply_diff(*each) for each in zip(shown, output["data"], strict=True)]
                        yield shown
                if message.get("msg") in ("process_completed", "close_stream", "unexpected_error"):
                    return

    def upload(self, name: str, data: bytes) -> httpx.Response:
        """Upload a file."""
        return self.http.post("gradio_api/upload", files={"files": (name, data)})

    def ask(self, elem_id: str, function: str, data: Any) -> httpx.Response:
        """Call a component's own function on the server."""
        body = {
            "session_hash": self.session,
            "component_id": self.component(elem_id),
            "fn_name": function,
            "data": data,
        }
        return self.http.post("gradio_api/component_server", json=body)

    def file(self, path: Path | str) -> httpx.Response:
        """Ask for a file of the server by its path."""
        return self.http.get(f"gradio_api/file={path}")


def file_data(path: str) -> dict[str, Any]:
    """What a browser sends for a file that it uploaded."""
    return {"path": path, "orig_name": Path(path).name, "meta": {"_type": "gradio.FileData"}}
