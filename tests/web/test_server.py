"""A real server under rude guests: slow, huge, many. Somebody who labels meanwhile notices nothing."""

from __future__ import annotations

import http.client
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from orchestrator.web.limits import Limits
from orchestrator.web.server import allow_many_files
from orchestrator.web.sessions import form_mark

if TYPE_CHECKING:
    from conftest import Place

LABELS = "helpful"


class Labeler:
    """Somebody at work over one kept connection."""

    def __init__(self, port: int, secret: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        self._secret = secret

    def ask(self, method: str, path: str, **form: str) -> tuple[int, str]:
        body = urlencode({"mark": form_mark(self._secret), **form}) if method == "POST" else None
        headers = {"Cookie": f"ratchet_session={self._secret}", "Content-Type": "application/x-www-form-urlencoded"}
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        return response.status, response.read().decode()

    def label(self) -> int:
        """Label one comparison; the status of the answer."""
        status, page = self.ask("GET", f"/c/{LABELS}/label")
        assert status == 200, page
        ticket = re.search(r'name="ticket" value="([^"]+)"', page)
        assert ticket is not None
        return self.ask("POST", f"/c/{LABELS}/label", ticket=ticket[1], choice="tie")[0]


@pytest.fixture
def labeler(place: Place) -> Callable[[int], Labeler]:
    secret = place.client("ana").secret
    return lambda port: Labeler(port, secret)


@pytest.fixture
def guests() -> Iterator[Callable[[int], socket.socket]]:
    """Opens connections that say nothing yet."""
    allow_many_files()
    with ExitStack() as stack:

        def connect(port: int) -> socket.socket:
            return stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))

        yield connect


def status_of(guest: socket.socket) -> int:
    """Of the first response on a connection, read to the end of its headers."""
    head = b""
    while b"\r\n\r\n" not in head:
        piece = guest.recv(4096)
        assert piece, f"closed without an answer: {head!r}"
        head += piece
    assert b"x-content-type-options: nosniff" in head
    return int(head.split(b" ", 2)[1])


def closed(guest: socket.socket) -> bool:
    """Whether the server hangs up."""
    try:
        while guest.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def poured(guest: socket.socket, piece: bytes) -> int:
    """Bytes of a gigabyte that could be sent before the server hung up."""
    sent = 0
    try:
        while sent < 1 << 30:
            guest.sendall(piece)
            sent += len(piece)
    except (ConnectionResetError, BrokenPipeError):
        pass
    return sent


POST = b"POST /join HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"


def test_headers_that_never_end_are_not_waited_for(place: Place, serving: Any, guests: Any, labeler: Any) -> None:
    with serving(place.app(), header_s=0.5) as port:
        silent, dripping, half = guests(port), guests(port), guests(port)
        half.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
        for character in b"GET /":
            dripping.sendall(bytes([character]))
            time.sleep(0.02)
        assert labeler(port).label() == 303
        for guest in (silent, dripping, half):
            assert status_of(guest) == 408
            assert closed(guest)


def test_a_second_request_may_not_drip_either(place: Place, serving: Any, guests: Any) -> None:
    with serving(place.app(), header_s=0.5) as port:
        guest = guests(port)
        guest.sendall(b"GET /join HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /jo")
        said = b""
        while b"408 Request Timeout" not in said:
            piece = guest.recv(65536)
            assert piece
            said += piece
        assert said.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("kind", [b"Content-Length: 100\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n5\r\n"])
def test_a_body_that_never_ends_is_not_waited_for(
    place: Place, serving: Any, guests: Any, labeler: Any, kind: bytes
) -> None:
    with serving(place.app(limits=Limits(body_s=0.5))) as port:
        guest = guests(port)
        guest.sendall(POST + kind + b"co")
        assert labeler(port).label() == 303
        assert status_of(guest) == 408
        assert closed(guest)


def test_a_gigabyte_is_refused_at_its_announcement(place: Place, serving: Any, guests: Any, labeler: Any) -> None:
    with serving(place.app()) as port:
        guest = guests(port)
        guest.sendall(POST + b"Content-Length: 1073741824\r\n\r\n" + b"x" * 10_000)
        assert status_of(guest) == 413
        assert labeler(port).label() == 303
        assert poured(guest, b"x" * 65536) < 100 << 20, "the server hung up long before it was all sent"


def test_a_gigabyte_in_chunks_is_refused_on_the_way(place: Place, serving: Any, guests: Any, labeler: Any) -> None:
    with serving(place.app()) as port:
        guest = guests(port)
        guest.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        assert poured(guest, b"4000\r\n" + b"x" * 0x4000 + b"\r\n") < 100 << 20
        assert labeler(port).label() == 303


def test_a_thousand_connections_push_out_their_own(place: Place, serving: Any, guests: Any, labeler: Any) -> None:
    """All from one address, the labeler's too, who comes before, between and after them."""
    with serving(place.app(), unproven_by_address=50, unproven=200) as port:
        early = labeler(port)
        assert early.label() == 303
        crowd = [guests(port) for _ in range(500)]
        between = labeler(port)
        assert between.label() == 303
        crowd += [guests(port) for _ in range(500)]
        assert early.label() == 303
        assert between.label() == 303
        assert labeler(port).label() == 303
        assert [status_of(guest) for guest in crowd[:900]] == [429] * 900
        assert all(map(closed, crowd[:900]))
        crowd[-1].sendall(b"GET /join HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert status_of(crowd[-1]) in (200, 429), "whoever is among the last is served, at the rate of strangers"


def test_headers_beyond_all_measure_are_refused(place: Place, serving: Any, guests: Any) -> None:
    with serving(place.app()) as port:
        guest = guests(port)
        guest.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 60_000)
        assert status_of(guest) == 400


@pytest.mark.parametrize(
    "request_line",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(place: Place, serving: Any, guests: Any, request_line: bytes) -> None:
    with serving(place.app()) as port:
        guest = guests(port)
        guest.sendall(request_line)
        assert status_of(guest) == 400
        assert closed(guest)


def test_two_lengths_are_no_length(place: Place, serving: Any, guests: Any) -> None:
    """Nothing is smuggled behind a body of two sizes."""
    with serving(place.app()) as port:
        guest = guests(port)
        guest.sendall(
            POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /join HTTP/1.1\r\n\r\n"
        )
        answers = b""
        while piece := guest.recv(65536):
            answers += piece
        assert b"HTTP/1.1 200" not in answers


def test_no_reply_waits_for_an_acknowledgement(place: Place, serving: Any, labeler: Any) -> None:
    """Head and body of a response go out as two packets; with Nagle's algorithm each reply would take 40 ms."""
    import asyncio

    found: list[int] = []
    app = place.app()
    inner = app.middleware_stack or app.build_middleware_stack()

    async def looking(scope: Any, receive: Any, send: Any) -> None:
        transport = send.__self__.transport
        taken = transport.get_extra_info("socket")
        found.append(taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        await asyncio.sleep(0)
        await inner(scope, receive, send)

    with serving(looking) as port:
        assert labeler(port).label() == 303
    assert found
    assert all(found)
