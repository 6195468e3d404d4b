"""Whether anybody waits for a request's answers."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from steering.interface.listeners import GRACE_SECONDS, Listeners, ListenersMiddleware


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_request_is_over_some_seconds_after_its_stream(clock) -> None:
    listeners = Listeners(clock)
    gone = listeners.watch(["session", "call"])
    clock.now = 100
    assert not gone()  # no server has shown itself
    listeners.watching = True
    assert gone()
    gone = listeners.watch(["session", "call"])
    assert not gone()
    listeners.opened("call")
    clock.now += 1000
    assert not gone()
    listeners.opened("session")
    listeners.closed("call")
    clock.now += 1000
    assert not gone()
    listeners.closed("session")
    clock.now += GRACE_SECONDS
    assert not gone()
    clock.now += 0.1
    assert gone() and not listeners.watch([])()


@pytest.mark.parametrize(
    ("path", "query", "key"),
    [
        ("/gradio_api/queue/data", b"session_hash=abc", "abc"),
        ("/behind/a/proxy/gradio_api/queue/data", b"x=1&session_hash=abc", "abc"),
        ("/gradio_api/call/train/e1", b"", "e1"),
        ("/gradio_api/call/v2/train/e1", b"", "e1"),
        ("/gradio_api/queue/data", b"", None),
        ("/gradio_api/file=/call/a", b"session_hash=abc", None),
        ("/", b"", None),
    ],
)
def test_streams_are_told_by_their_address(path, query, key) -> None:
    listeners = Listeners()
    seen = []

    async def app(scope, receive, send) -> None:
        seen.append(dict(listeners._open))  # noqa: SLF001
        raise ConnectionError

    scope = {"type": "http", "method": "GET", "path": path, "query_string": query}
    with pytest.raises(ConnectionError), ThreadPoolExecutor(1) as elsewhere:  # a browser test may have left a loop here
        elsewhere.submit(asyncio.run, ListenersMiddleware(app, listeners)(scope, None, None)).result()
    assert seen == [{key: 1} if key else {}] and not listeners._open  # noqa: SLF001
    assert listeners.watching
