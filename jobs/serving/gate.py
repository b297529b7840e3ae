"""The gate of the web service: nobody without the token gets in, and nobody brings in too much.

It stands before everything that reads a request, so that a stranger's body is not even read.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.responses import JSONResponse

from jobs.serving.wire_format import MOST_BYTES

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/healthz", "/metrics", "/openapi.json")
"""Paths that need no token: they tell nothing of items or users. All others need it, whether they exist or not."""
MEASURED = ("/recommend", "/similar")
"""Paths whose requests are counted."""
HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
"""Headers of all answers."""


def token_digest(token: str) -> str:
    """The SHA-256 of a token, which replicas compare with: Ray keeps and shows what a replica is started with."""
    return hashlib.sha256(token.encode()).hexdigest()


class TooLargeError(Exception):
    """The body of a request is larger than `MOST_BYTES`."""


class Gate:
    """ASGI middleware that asks for the token, bounds bodies and measures requests.

    Args:
        digest: SHA-256 of the token.
        measured: gets path, status and seconds of each request to one of the paths `MEASURED`.
    """

    def __init__(self, app: App, digest: str, measured: Callable[[str, int, float], None]) -> None:
        self._app = app
        self._digest = digest
        self._measured = measured

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._guarded(scope, receive, noting)
        finally:
            if scope["path"] in MEASURED:
                self._measured(scope["path"], status, time.perf_counter() - started)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        if not self._is_known(headers.get(b"authorization", b"")):
            refusal = JSONResponse(
                {"error": "the header `Authorization: Bearer TOKEN` is missing, or its token is not the service's"},
                status_code=401,
                headers={"WWW-Authenticate": "Bearer", **HEADERS},
            )
            await refusal(scope, receive, send)
            return
        try:
            body = await _bounded(headers, receive)
        except TooLargeError:
            error = f"the body has more than {MOST_BYTES:,} bytes"
            refusal = JSONResponse({"error": error}, status_code=413, headers=HEADERS)
            await refusal(scope, receive, send)
            return
        if body is None:  # the client has gone
            return
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        await self._app(scope, replay, send)

    def _is_known(self, authorization: bytes) -> bool:
        scheme, _, token = authorization.partition(b" ")
        found = hashlib.sha256(token.strip()).hexdigest()
        return hmac.compare_digest(found, self._digest) and scheme.lower() == b"bearer"


async def _bounded(headers: dict[bytes, bytes], receive: Receive) -> bytes | None:
    """The body of a request; None if the client has gone.

    Raises:
        TooLargeError: it is too large; the rest of it is not read.
    """
    announced = headers.get(b"content-length", b"")
    if announced.isdigit() and int(announced[:20]) > MOST_BYTES:
        raise TooLargeError
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MOST_BYTES:
            raise TooLargeError
    return bytes(body)
