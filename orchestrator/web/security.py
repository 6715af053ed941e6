"""What every request passes before anything looks at it, and what every response carries.

Wrong hosts, strangers in a hurry, and bodies that are too large or come too slowly are refused here, before a route,
the database or a thread is troubled. Bodies are read whole: what lies behind this never waits for the network.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterable
from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.text import visible
from orchestrator.web.answers import Answer
from orchestrator.web.limits import MAX_HEADER_BYTES, Buckets, Limits
from orchestrator.web.sessions import Cookie, bearer_of

log: Final = logging.getLogger(__name__)
access: Final = logging.getLogger("orchestrator.web.access")

CONTENT_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'"
)
HEADERS: Final = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=(), display-capture=()",
}
PROVE: Final = "ratchet.prove"
"""Key of the connection's state under which it is told that somebody known asked through it (server.py)."""
OPEN_TO_ALL: Final = ("/join", "/static/", "/api/v1/openapi.json")
LINGER_S: Final = 2.0
LINGER_BYTES: Final = 8 * 1024 * 1024
"""Read and thrown away behind a refused body, so that its sender gets to read the refusal."""

_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")

Refuse = Callable[[Scope, Answer], Response]


class TooLargeError(Exception):
    """A body beyond the limit."""


class Guard:
    """ASGI middleware, outermost."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Iterable[str],
        cookie: Cookie,
        limits: Limits,
        is_known: Callable[[str], bool],
        refuse: Refuse,
    ) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._cookie = cookie
        self._limits = limits
        self._is_known = is_known
        self._refuse = refuse
        self._strangers = Buckets(limits.stranger)
        headers = dict(HEADERS)
        if cookie.secure:
            headers["strict-transport-security"] = "max-age=31536000"
        self._headers = [(key.encode(), value.encode()) for key, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        begun, status = time.perf_counter(), 0

        async def dressed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", ()))
                if not any(key.lower() == b"cache-control" for key, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
                message = {**message, "headers": [*headers, *self._headers]}
            await send(message)

        try:
            await self._answer(scope, receive, dressed)
        except Exception:
            # The last resort: a bug is told calmly, and found in the log.
            log.exception("%s %s", scope["method"], visible(scope["path"], 200))
            if status:
                raise
            action = "try again; if it stays, tell whoever runs this server, who finds it in its log"
            await self._refuse(scope, Answer(500, "the server made a mistake", action))(scope, receive, dressed)
        finally:
            access.info(
                "%s %s %s %d %.1f ms",
                address_of(scope),
                scope["method"],
                visible(scope["path"], 200),
                status,
                1000 * (time.perf_counter() - begun),
            )

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = scope["headers"]
        if (problem := _problem_of(scope)) is not None:
            await self._refused(scope, receive, send, problem, linger=False)
            return
        hosts = [value for key, value in headers if key == b"host"]
        if len(hosts) != 1 or host_name(hosts[0].decode("latin-1")) not in self._hosts:
            answer = Answer(421, "this server does not answer to that name", "use the address you were given")
            await self._refused(scope, receive, send, answer)
            return
        if self._is_strangers(scope):
            wait_s = self._strangers.take(address_of(scope))
            if wait_s:
                answer = Answer(429, "too many requests from this address", "wait a moment and reload", wait_s)
                await self._refused(scope, receive, send, answer)
                return
        try:
            async with asyncio.timeout(self._limits.body_s):
                body = await self._body(headers, receive)
        except TooLargeError:
            answer = Answer(413, f"more than {self._limits.body_bytes} bytes were sent", "send less")
            await self._refused(scope, receive, send, answer)
            return
        except TimeoutError:
            answer = Answer(408, "the request did not arrive in time", "send it again")
            await self._refused(scope, receive, send, answer, linger=False)
            return
        if body is None:
            return
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)

    def _is_strangers(self, scope: Scope) -> bool:
        """Whoever shows a token is counted where it is read: as a person, or as somebody who shows wrong ones.

        What is open to everybody reads none, and there a made-up one makes nobody less of a stranger.
        """
        secret = self._cookie.read(scope["headers"]) or bearer_of(scope["headers"])
        return secret is None or (scope["path"].startswith(OPEN_TO_ALL) and not self._is_known(secret))

    async def _body(self, headers: Iterable[tuple[bytes, bytes]], receive: Receive) -> bytes | None:
        """The whole body; None where the sender left.

        Raises:
            TooLargeError: it announces, or is, more than is wanted.
        """
        found = dict(headers)
        announced = found.get(b"content-length", b"0")
        if b"transfer-encoding" not in found and announced == b"0":
            return b""
        if not announced.isdigit() or int(announced) > self._limits.body_bytes:
            raise TooLargeError
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._limits.body_bytes:
                raise TooLargeError
        return bytes(body)

    async def _refused(
        self, scope: Scope, receive: Receive, send: Send, answer: Answer, *, linger: bool = True
    ) -> None:
        """Refuse at once, and close the connection once the sender has had a moment to read why."""
        response = self._refuse(scope, answer)
        response.headers["connection"] = "close"
        await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
        body = b"" if scope["method"] == "HEAD" else bytes(response.body)
        await send({"type": "http.response.body", "body": body, "more_body": True})
        if linger:
            await _drain(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drain(receive: Receive) -> None:
    """Closing a connection on unread bytes resets it, and the refusal would be lost with it."""
    left = LINGER_BYTES
    try:
        async with asyncio.timeout(LINGER_S):
            more = True
            while more and left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                more = message["type"] == "http.request" and message.get("more_body", False)
    except TimeoutError:
        pass


def _problem_of(scope: Scope) -> Answer | None:
    """What the parser lets through and nobody should answer.

    It counts only what has not arrived whole. And of two lengths it believes one; a proxy before it might believe the
    other, and take the rest of one person's request for the beginning of the next one's (RFC 9112, 6.1).
    """
    named = {key for key, _ in scope["headers"]}
    if {b"content-length", b"transfer-encoding"} <= named:
        return Answer(400, "this request has two lengths", "send one")
    size = len(scope["raw_path"]) + len(scope["query_string"])
    if size + sum(len(key) + len(value) + 4 for key, value in scope["headers"]) > MAX_HEADER_BYTES:
        return Answer(431, f"the address and the headers are longer than {MAX_HEADER_BYTES} bytes", "send less")
    return None


def host_name(host: str) -> str:
    """A Host header without its port, in lower case; empty where it is none."""
    found = _HOST.fullmatch(host.strip().lower())
    return found[1].rstrip(".") if found is not None else ""


def address_of(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else "unknown"


def prove(scope: Scope) -> None:
    """Let the connection know that a valid session or token came through it."""
    told = scope.get("state", {}).get(PROVE)
    if told is not None:
        told()
