"""Requests that are larger than a visitor may send are refused before anything reads them."""

from collections.abc import Callable

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from steering.errors import SteeringError
from steering.limits import Limits

OVERHEAD_BYTES = 2_000_000
"""Of a request beside an uploaded file: the answers that a page sends back, the forms around a file."""


class RequestSizeMiddleware:
    """Refuse too large requests, and uploads while the visitors' disk is full (ASGI).

    Args:
        limits: `upload_bytes` bounds a file, and, with `OVERHEAD_BYTES`, a request.
        check_room: raises SteeringError while nothing more may be kept.
    """

    def __init__(self, app: ASGIApp, limits: Limits, check_room: Callable[[], None]) -> None:
        self.app, self._check_room = app, check_room
        self._most = None if limits.upload_bytes is None else limits.upload_bytes + OVERHEAD_BYTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, unless it is too large."""
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT", "PATCH"):
            await self.app(scope, receive, send)
            return
        try:
            if scope["path"].rstrip("/").endswith("/upload"):
                self._check_room()
        except SteeringError as error:
            await PlainTextResponse(str(error), status_code=507)(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if self._most is not None and declared.isdigit() and int(declared) > self._most:
            await self._refuse(scope, receive, send)
            return
        received = 0
        answered = False

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if self._most is not None and received > self._most:
                raise _TooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self.app(scope, counted, noted)
        except _TooLarge:
            if not answered:
                await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        text = f"The request is larger than {(self._most or 0) / 1e6:g} MB; bring a smaller file."
        await PlainTextResponse(text, status_code=413)(scope, receive, send)


class _TooLarge(Exception):
    """More was received than a request may have."""
