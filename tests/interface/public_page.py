"""A public page on a tiny model, and what the tests of strangers do on it."""

import csv
import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steering.interface.app import build, launch_options
from steering.interface.app_state import AppState
from steering.interface.public_visitors import Visitors
from steering.limits import Limits
from steering.models.loading import LanguageModel
from tests.raw_client import RawClient, file_data

DEFAULTS = object()


@dataclass(frozen=True)
class PublicPage:
    """A public page that is being served."""

    address: str
    app: AppState
    folder: Path

    def stranger(self) -> RawClient:
        """Somebody who opened the page."""
        return RawClient(self.address).enter()


@contextmanager
def public_page(model: LanguageModel, folder: Path, limits: Limits, **options: Any) -> Iterator[PublicPage]:
    """Serve a public page whose visitors' folders lie in `folder`."""
    visitors = Visitors(folder / "visitors", limits, published=folder / "published", **options)
    app = AppState(model, visitors)
    page = build(app)
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", **launch_options(app))
    yield PublicPage(url, app, folder)
    page.close()


def pairs_csv(count: int, mark: str = "") -> bytes:
    """A file of pairs whose texts hold the mark."""
    text = io.StringIO()
    rows = [(f"Would you take {n} {mark}?", f"Yes, give me {n} {mark}", f"No {n}, thanks") for n in range(count)]
    csv.writer(text).writerows([("prompt", "chosen", "rejected"), *rows])
    return text.getvalue().encode()


def values_of(client: RawClient, number: int) -> list[Any]:
    """What a browser would send to an endpoint of a page that nobody has touched."""
    return [client.components[each]["props"].get("value") for each in client.endpoints[number]["inputs"]]


def sent(client: RawClient, number: int, **changed: Any) -> list[Any]:
    """The same, with the values of some components, by their id with `_` for `-`, replaced."""
    ids = [str(client.components[each]["props"].get("elem_id")) for each in client.endpoints[number]["inputs"]]
    values = [
        changed.get(id.replace("-", "_"), value) for id, value in zip(ids, values_of(client, number), strict=True)
    ]
    return values


def bring(client: RawClient, data: bytes, name: str = "pairs.csv") -> list[Any]:
    """Upload a file of pairs and let the page read it."""
    (path,) = client.upload(name, data).json()
    number = client.of("pairs-file", "upload")
    return client.call(number, sent(client, number, pairs_file=file_data(path)))[-1]


def train(client: RawClient, **settings: Any) -> list[list[Any]]:
    """Press Train, and read what the page shows."""
    number = client.of("start-training")
    return client.call(number, sent(client, number, **settings))


def save(client: RawClient, name: str, behavior: str = "") -> list[Any]:
    """Save what was trained."""
    number = client.of("save-vector")
    return client.call(number, sent(client, number, vector_name=name, behavior=behavior))[-1]


def files_under(folder: Path) -> dict[str, str]:
    """Each file in a folder with a hash of its content; locks are no content."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
