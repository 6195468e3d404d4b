"""Who listens to what the page sends, so that work nobody waits for can end.

gradio begins a request when it is posted, whether or not anybody ever asks for its answers. `ListenersMiddleware` sees
the streams on which answers are fetched; `Listeners.gone` says whether a request's stream is closed, or never came.
"""

import re
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Receive, Scope, Send

GRACE_SECONDS = 5.0
"""Between a request and the stream on which its answers are fetched, or between two such streams: a slow network takes
about one. With a training step of some seconds, work that nobody waits for ends within ten."""
MOST_REMEMBERED = 10_000
SESSION_STREAM = re.compile(r"/queue/data/?$")
CALL_STREAM = re.compile(r"/call/(?:v2/)?[^/]+/([^/]+)/?$")
"""The two addresses of gradio's answers: of a browser's session, and of one call of a program (gradio/routes.py)."""


class Listeners:
    """Open streams, by session (of a browser, or of gradio_client) or by the id of a call.

    Args:
        clock: seconds that go on; another one for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()
        self._closed: OrderedDict[str, float] = OrderedDict()
        self.watching = False

    def opened(self, key: str) -> None:
        """Note a stream that begins."""
        with self._lock:
            self._open[key] += 1

    def closed(self, key: str) -> None:
        """Note a stream that ended."""
        with self._lock:
            self._open[key] -= 1
            if self._open[key] <= 0:
                del self._open[key]
            self._closed[key] = self._clock()
            self._closed.move_to_end(key)
            while len(self._closed) > MOST_REMEMBERED:
                self._closed.popitem(last=False)

    def gone(self, keys: Sequence[str], began: float) -> bool:
        """Tell whether nobody has listened under any of these keys for `GRACE_SECONDS`.

        Args:
            keys: the request's session and the id of its call; none where there is no server.
            began: when the request began, by `now`.
        """
        if not keys or not self.watching:
            return False
        with self._lock:
            if any(self._open[key] > 0 for key in keys if key in self._open):
                return False
            latest = max([began, *(self._closed[key] for key in keys if key in self._closed)])
        return self._clock() - latest > GRACE_SECONDS

    def watch(self, keys: Sequence[str]) -> Callable[[], bool]:
        """Return a `should_stop` for a request that begins now: True once nobody listens, see `gone`."""
        began = self.now()
        return lambda: self.gone(keys, began)

    def now(self) -> float:
        """Return the clock's time, in seconds."""
        return self._clock()


class ListenersMiddleware:
    """Tell `Listeners` of the streams that begin and end (ASGI)."""

    def __init__(self, app: ASGIApp, listeners: Listeners) -> None:
        self.app, self.listeners = app, listeners

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; while a stream of answers is open, say so."""
        if scope["type"] == "http":
            self.listeners.watching = True
        key = _stream_of(scope)
        if not key:
            await self.app(scope, receive, send)
            return
        self.listeners.opened(key)
        try:
            await self.app(scope, receive, send)
        finally:
            self.listeners.closed(key)


def _stream_of(scope: Scope) -> str:
    """Return the session or call whose answers a request fetches; empty for any other request."""
    if scope["type"] != "http" or scope["method"] != "GET":
        return ""
    if SESSION_STREAM.search(scope["path"]):
        return next(iter(parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [])), "")
    call = CALL_STREAM.search(scope["path"])
    return call.group(1) if call else ""
