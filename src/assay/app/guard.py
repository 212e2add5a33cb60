"""Middleware in front of the app: local requests only, no files but uploads, a strict content security policy."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

LARGEST_REQUEST = 1_000_000  # bytes of JSON; uploads go their own way and have their own limit
_LOCAL = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?")
_HERE = re.compile(r"(https?://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?)?/[^/].*", re.IGNORECASE)
HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
        b"object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class Guard:
    """An ASGI middleware.

    - A request whose ``Host`` is not this machine is refused, so that a page whose name resolves to 127.0.0.1 (DNS
      rebinding) cannot reach the app.
    - A request that names a file other than an upload is refused: no address is fetched and no other file opened.
      (Gradio checks only those that carry its own mark.)
    - Every response carries a content security policy that forbids other origins.
    """

    def __init__(self, app: Application, *, uploads: Path) -> None:
        self._app, self._uploads = app, uploads.resolve()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on and add the policy to the response."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if not _LOCAL.fullmatch(headers.get(b"host", b"").decode("latin-1")):
            await _refuse(scope, send, 421, "this app answers 127.0.0.1 and localhost only")
            return
        if scope["type"] == "http" and b"application/json" in headers.get(b"content-type", b""):
            body = await _read(receive)
            if body is None:
                await _refuse(scope, send, 413, f"a request of more than {LARGEST_REQUEST:,} bytes")
                return
            if _names_other_file(body, self._uploads):
                await _refuse(scope, send, 400, "a file that was not uploaded")
                return
            receive = _replay(body, receive)

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
            await send(message)

        await self._app(scope, receive, send_with_policy)


async def _read(receive: Receive) -> bytes | None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > LARGEST_REQUEST:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body again, then what follows it (a disconnect)."""
    replayed = False

    async def replay() -> Message:
        nonlocal replayed
        if replayed:
            return await receive()
        replayed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _names_other_file(body: bytes, uploads: Path) -> bool:
    """Whether a request names a file outside the folder of uploads."""
    try:
        pending = [json.loads(body)]
    except (ValueError, RecursionError):
        return False
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            path, url = value.get("path"), value.get("url")
            if path is not None and not _is_within(path, uploads):
                return True
            if url is not None and not (path is not None and isinstance(url, str) and _HERE.fullmatch(url)):
                return True
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return False


def _is_within(path: object, folder: Path) -> bool:
    try:
        return isinstance(path, str) and Path(path).is_absolute() and Path(path).resolve().is_relative_to(folder)
    except (OSError, ValueError):  # a name that no file system takes
        return False


async def _refuse(scope: MutableMapping[str, Any], send: Send, status: int, reason: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": reason.encode()})
