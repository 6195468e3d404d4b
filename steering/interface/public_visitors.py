"""The visitors of a public page: each has a private folder.

It is named after a hash of a secret that only the visitor's browser knows, or after the account of who logged in. A
request belongs to the visitor whose browser showed the secret when the page was opened; nothing in a request can name
another visitor's folder.
"""

import contextlib
import hashlib
import hmac
import logging
import os
import re
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from steering.errors import SteeringError
from steering.interface.visitors import Visitor, published_folder
from steering.limits import LimitExceeded, Limits
from steering.vectors.library import Library
from steering.vectors.reader import VectorReader

SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
"""What `secrets.token_urlsafe(32)` makes: 256 bits."""
MOST_SESSIONS = 10_000
"""Tabs that are remembered, as many as gradio keeps states of."""
SEEN_EVERY = 60.0
"""Seconds between two notes on disk that a visitor is still there."""
SWEEP_SECONDS = 600.0
"""Between two looks for what may be deleted."""
DISK_SECONDS = 10.0
"""For which a sum over the visitors' files is believed."""
RELOAD = "This page was opened before the server was started anew; reload it."

logger = logging.getLogger(__name__)


class Visitors:
    """The visitors of a public page. May be used by several threads.

    Args:
        folder: holds one folder a visitor.
        limits: what each may ask for and keep.
        published: folder of the vectors that everybody sees; shipped: of those that come with the project.
        uploads: folder in which the server puts what is uploaded; it counts as visitors' files.
        clock: seconds since 1970; another one for tests.

    Attributes:
        owner: the shelf that the page's owner fills: its own vectors are the published ones.
    """

    is_public = True

    def __init__(
        self,
        folder: Path,
        limits: Limits | None = None,
        *,
        published: Path | None = None,
        shipped: Path | None = None,
        uploads: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder, self.limits = folder.absolute(), limits or Limits.public()
        self.published = (published or published_folder()).absolute()
        self._shipped, self._uploads, self._clock = shipped, uploads, clock
        self._reader = VectorReader()
        self.owner = Library(self.published, shipped, reader=self._reader)
        self._key = secrets.token_bytes(32)  # of tickets
        self._lock = threading.RLock()
        self._visitors: dict[str, Visitor] = {}
        self._seen: dict[str, float] = {}
        self._visitor_of_session: OrderedDict[str, str] = OrderedDict()
        self._disk: tuple[float, int] = (0.0, 0)

    def enter(self, secret: object, session: str, account: str = "") -> str:
        """Let the session be that of the visitor who knows the secret; return the secret to remember.

        Args:
            secret: what the browser remembered; a new one is made for a browser that remembers none.
            session: the tab's, see `runs.session_of`.
            account: identity of a visitor who logged in, whose shelf is then the same in every browser.
        """
        known = secret if isinstance(secret, str) and SECRET.fullmatch(secret) else secrets.token_urlsafe(32)
        id = _hashed("account", account) if account else _hashed("secret", known)
        with self._lock:
            self._visitor_of_session[session] = id
            self._visitor_of_session.move_to_end(session)
            while len(self._visitor_of_session) > MOST_SESSIONS:
                self._visitor_of_session.popitem(last=False)
        if account:
            self._move_vectors(_hashed("secret", known), id)
        self._visitor(id)
        return known

    def of_session(self, session: str) -> Visitor:
        """Return the visitor who entered in this tab; SteeringError where nobody did."""
        with self._lock:
            id = self._visitor_of_session.get(session)
        if id is None:
            raise SteeringError(RELOAD)
        return self._visitor(id)

    def of_program(self, session: str) -> Visitor:
        """Return the visitor of a program, which is remembered for as long as it keeps its session."""
        with self._lock:
            id = self._visitor_of_session.get(session)
        return self._visitor(id or _hashed("program", session))

    def of_ticket(self, ticket: object) -> Visitor:
        """Return the visitor to whom this ticket was given; SteeringError for any other text."""
        id, _, _ = str(ticket).partition(".")
        if not hmac.compare_digest(str(ticket).encode(), self._ticket(id).encode()):
            raise SteeringError(RELOAD)
        return self._visitor(id)

    def nobody(self) -> Visitor:
        """Return a visitor who has nothing of their own and keeps nothing: the page before anybody opened it."""
        return self._visitor(_hashed("nobody", ""))

    def check_room(self) -> None:
        """Raise LimitExceeded if the visitors keep as much as they may together."""
        most, most_bytes = self.limits.visitors, self.limits.disk_bytes
        if most is not None and len(self._folders()) > most:
            raise LimitExceeded("As many visitors keep something here as may; try again in a few hours.")
        if most_bytes is not None and self._used_bytes() > most_bytes:
            raise LimitExceeded("The disk that visitors share here is full; try again in a few hours.")

    def sweep(self) -> None:
        """Delete what visitors left who have not been there for `Limits.visitor_hours`."""
        hours = self.limits.visitor_hours
        if hours is None:
            return
        oldest = self._clock() - 3600 * hours
        for folder in self._folders():
            with self._lock:
                if max(self._seen.get(folder.name, 0.0), folder.stat().st_mtime) >= oldest:
                    continue
                self._visitors.pop(folder.name, None)
                self._reader.forget(folder)
                shutil.rmtree(folder, ignore_errors=True)
        with self._lock:
            for id in [id for id, seen in self._seen.items() if seen < oldest]:
                del self._seen[id]
                self._visitors.pop(id, None)

    def keep_sweeping(self) -> None:
        """Sweep now and every `SWEEP_SECONDS`, in the background."""

        def work() -> None:
            while True:
                try:
                    self.sweep()
                except Exception:  # whatever it is, the next sweep may succeed
                    logger.exception("what visitors left could not be deleted")
                time.sleep(SWEEP_SECONDS)

        threading.Thread(target=work, name="steering-sweep", daemon=True).start()

    def _visitor(self, id: str) -> Visitor:
        """Return the visitor with this id, seen now."""
        now = self._clock()
        with self._lock:
            if id not in self._visitors:
                folder = self.folder / id
                self._visitors[id] = Visitor(id, self._library(folder / "vectors"), folder, self._ticket(id))
            visitor = self._visitors[id]
            if now - self._seen.get(id, 0.0) >= SEEN_EVERY:
                self._seen[id] = now
                with contextlib.suppress(FileNotFoundError):  # nothing is kept yet
                    os.utime(visitor.folder, (now, now))
        return visitor

    def _library(self, own: Path) -> Library:
        return Library(
            own,
            self._shipped,
            published=self.published,
            check_count=self.limits.check_vectors,
            reader=self._reader,
            before_change=self.check_room,
        )

    def _move_vectors(self, source: str, target: str) -> None:
        """Move the vectors that a visitor made before logging in to the account's shelf, as far as there is room."""
        if not (self.folder / source / "vectors").is_dir():
            return
        before, account = self._visitor(source).library, self._visitor(target).library
        for entry in before.entries():
            if entry.section == "own":
                try:
                    account.add(entry.vector)
                except SteeringError as error:
                    logger.info("a vector stays where it was: %s", error)
                    return
                before.delete(entry.slug)

    def _ticket(self, id: str) -> str:
        return f"{id}.{hmac.new(self._key, id.encode(), 'sha256').hexdigest()}"

    def _folders(self) -> list[Path]:
        try:
            return [path for path in self.folder.iterdir() if path.is_dir() and not path.is_symlink()]
        except OSError:  # nobody has kept anything yet
            return []

    def _used_bytes(self) -> int:
        now = self._clock()
        with self._lock:
            if now - self._disk[0] > DISK_SECONDS:
                self._disk = (now, sum(map(_bytes_in, filter(None, (self.folder, self._uploads)))))
            return self._disk[1]


def _hashed(kind: str, text: str) -> str:
    """Name a visitor's folder; nobody can tell the secret from it."""
    return hashlib.sha256(f"{kind}:{text}".encode()).hexdigest()[:40]


def _bytes_in(folder: Path) -> int:
    total = 0
    for where, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.stat(os.path.join(where, name)).st_size
            except OSError:  # deleted meanwhile
                continue
    return total
