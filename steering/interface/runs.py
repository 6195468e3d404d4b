"""Each browser tab's latest run, and when it is over."""

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import gradio as gr
from gradio.context import LocalContext

from steering.interface.listeners import Listeners


class Runs:
    """Each session's latest run. Starting a new one ends the one before; so does stopping, and so does leaving.

    Runs are ordered by when the browser sent them (in ms since 1970), since requests may overtake each other.

    Args:
        listeners: tells whether anybody still waits for a run's answers; by default nobody ever leaves.
    """

    def __init__(self, listeners: Listeners | None = None) -> None:
        self._listeners = listeners or Listeners()
        self._latest: dict[str, float] = defaultdict(float)
        self._stopped: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def begin(self, request: gr.Request | None, sent_at: float | None = None) -> "Run":
        """Begin a run; without `sent_at` it counts as sent after all that came before."""
        session, gone = session_of(request), self._listeners.watch(streams_of(request))
        with self._lock:
            own = self._latest[session] + 1 if sent_at is None else float(sent_at)
            self._latest[session] = max(self._latest[session], own)
        return Run(
            superseded=lambda: self._latest.get(session) != own,
            stopped=lambda: self._stopped.get(session, 0) >= own,
            gone=gone,
        )

    def stop(self, request: gr.Request, sent_at: float = 0) -> None:
        """End the session's run within one token; with `sent_at`, also one sent before that has not come in yet."""
        session = session_of(request)
        with self._lock:
            self._stopped[session] = max(self._latest[session], float(sent_at))

    def forget(self, request: gr.Request) -> None:
        """End the run of a tab that was closed."""
        with self._lock:
            self._latest.pop(session_of(request), None)
            self._stopped.pop(session_of(request), None)


@dataclass(frozen=True)
class Run:
    """A run, asked while it works.

    Attributes:
        superseded: whether a newer run took its place, so that it must yield nothing more.
        stopped: whether the visitor pressed Stop.
        gone: whether nobody listens any more.
    """

    superseded: Callable[[], bool]
    stopped: Callable[[], bool]
    gone: Callable[[], bool] = lambda: False

    def over(self) -> bool:
        """Whether to stop working."""
        return self.superseded() or self.stopped() or self.gone()


def session_of(request: gr.Request | None) -> str:
    """Name the browser tab, or the program, that a request came from; `local` outside a server."""
    return getattr(request, "session_hash", None) or "local"


def streams_of(request: gr.Request | None) -> list[str]:
    """Return the keys under which the answers to the present request may be fetched, see `Listeners`."""
    session = getattr(request, "session_hash", None)
    event = LocalContext.event_id.get(None)
    return [key for key in (session, event) if key]
