"""Behind a proxy: whose word on an address is believed, and whose connections are one person's."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hall import Hall
from review_server import raw

from orchestrator.errors import UsageError
from orchestrator.web.app import create_app
from orchestrator.web.limits import Limits, Rate
from orchestrator.web.server import make_server

Serving = Callable[..., Any]


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Any]:
    """Gives an address one page; there will be no second one in the time of a test."""
    with Hall(str(tmp_path / "ledger.db"), tmp_path) as hall:
        yield create_app(hall.ledger, hall.artifacts, limits=Limits(stranger=Rate(per_second=1e-6, burst=1)))


def status_for(port: int, forwarded: str) -> int:
    request = f"GET /join HTTP/1.1\r\nhost: localhost\r\nx-forwarded-for: {forwarded}\r\nconnection: close\r\n\r\n"
    (reply,) = raw(port, request.encode())
    return reply.status


@pytest.mark.parametrize(
    ("proxies", "expected"),
    [(["127.0.0.1"], [200, 200, 429, 429]), (["127.0.0.2"], [200, 429, 429, 429]), ([], [200, 429, 429, 429])],
    ids=["its proxy", "another proxy", "no proxy"],
)
def test_a_named_proxy_alone_says_for_whom_it_asks(
    app: Any, serving: Serving, proxies: list[str], expected: list[int]
) -> None:
    said = ["192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.3, 192.0.2.2"]  # what the proxy saw stands last
    with serving(app, proxies=proxies) as port:
        assert [status_for(port, address) for address in said] == expected


@pytest.mark.parametrize(("proxies", "turned_out"), [(["127.0.0.0/8"], 0), (["127.0.0.2"], 2), ([], 2)])
def test_a_proxys_connections_are_not_one_persons(
    app: Any, serving: Serving, proxies: list[str], turned_out: int
) -> None:
    with serving(app, proxies=proxies, unproven_by_address=3, unproven=20) as port:
        waiting = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(5)]
        waiting[-1].sendall(b"GET /join HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert waiting[-1].recv(100).startswith(b"HTTP/1.1 200"), "all five have been let in by now"
        for connection in waiting[:-1]:
            connection.setblocking(False)
        refused = 0
        for connection in waiting[:turned_out]:
            connection.setblocking(True)
            refused += connection.recv(100).startswith(b"HTTP/1.1 429")
        assert refused == turned_out
        for connection in waiting[turned_out:-1]:
            with pytest.raises(BlockingIOError):
                connection.recv(100)
        for connection in waiting:
            connection.close()


@pytest.mark.parametrize("proxy", ["*", "proxy.example.org", "10.0.0.1/8", "0.0.0.0/0", "::/0", ""])
def test_what_names_no_proxy_is_refused(app: Any, proxy: str) -> None:
    with pytest.raises(UsageError, match="--proxy"):
        make_server(app, proxies=[proxy])
