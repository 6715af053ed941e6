"""uvicorn with limits: connections that do not come to the point are closed, and never crowd out people at work.

    opened ──► headers complete within HEADER_S, or 408 ──► the guard (security.py) sees to the body
       │            │
       │            └─► a request with a valid session or token: the connection has proven itself and keeps its place
       └─► beyond the limit of its address, or of all: the oldest unproven one of them gives way, with 429

So whoever opens a thousand connections pushes out their own, and somebody who works from the same address goes on.
A proxy's connections are everybody's: they count among all alone, and the address that it names is the one that rates
go by.
Answers that nobody reads are cut off after READ_S: no connection is kept by a full buffer.
"""

import asyncio
import gc
import ipaddress
import os
import resource
import socket
import sys
from collections import OrderedDict
from collections.abc import Collection
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from orchestrator.errors import UsageError
from orchestrator.web.limits import MAX_HEADER_BYTES
from orchestrator.web.security import HEADERS, PROVE

HEADER_S: Final = 10.0
KEEP_ALIVE_S: Final = 30
READ_S: Final = 30.0
"""For the other end to read what it asked for, where that fills the buffers, or where we are to hang up."""
UNPROVEN_BY_ADDRESS: Final = 128
UNPROVEN: Final = 512
FILES_WANTED: Final = 4096
_GRACE_S: Final = 5

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
OWN_PROXY: Final = ("127.0.0.1", "::1")
"""A proxy on this machine."""


class Door:
    """The unproven connections of one server, oldest first."""

    def __init__(self, by_address: int, in_all: int, proxies: Collection[Network] = ()) -> None:
        self._by_address, self._in_all, self._proxies = by_address, in_all, proxies
        self._unproven: OrderedDict[LimitedProtocol, None] = OrderedDict()
        self._addresses: dict[str, OrderedDict[LimitedProtocol, None]] = {}

    def enter(self, connection: "LimitedProtocol") -> None:
        here = self._addresses.setdefault(connection.address, OrderedDict())
        self._unproven[connection] = here[connection] = None
        while len(here) > self._by_address and not self._is_proxy(connection.address):
            self._turn_out(next(iter(here)))
        while len(self._unproven) > self._in_all:
            self._turn_out(next(iter(self._unproven)))

    def leave(self, connection: "LimitedProtocol") -> None:
        self._unproven.pop(connection, None)
        here = self._addresses.get(connection.address)
        if here is not None:
            here.pop(connection, None)
            if not here:
                del self._addresses[connection.address]

    def _is_proxy(self, address: str) -> bool:
        try:
            return any(ipaddress.ip_address(address) in network for network in self._proxies)
        except ValueError:
            return False

    def _turn_out(self, connection: "LimitedProtocol") -> None:
        self.leave(connection)
        if not connection.proven:
            connection.refuse(HTTPStatus.TOO_MANY_REQUESTS)


class LimitedProtocol(H11Protocol):
    """One connection, with time limits on its headers, and on how long it leaves an answer unread."""

    door: Door
    header_s: float
    read_s: float

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.proven = False
        self.address = "unknown"
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self.app_state = {**self.app_state, PROVE: self._prove}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio forgets this for sockets that name no protocol, and a response waits 40 ms between head and body.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.address = self.client[0] if self.client else "unknown"
        self._timer = self.loop.call_later(self.header_s, self._too_slow)
        self.door.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._was_read()
        self.door.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._leave_unread()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._was_read()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._leave_unread()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._leave_unread()
        elif self.conn.trailing_data[0]:  # the next request has begun already
            self._watch()

    def send_400_response(self, msg: str) -> None:
        self.refuse(HTTPStatus.BAD_REQUEST)

    def refuse(self, status: HTTPStatus) -> None:
        """Say why and hang up; whatever was being answered here is dropped."""
        self._disarm()
        cycle = self.cycle
        answering = cycle is not None and not cycle.response_complete
        if answering:
            cycle.disconnected = True
            cycle.message_event.set()
        if not (answering and cycle.response_started) and not self.transport.is_closing():
            self.transport.write(_REFUSALS[status])
        self.transport.close()
        self._leave_unread()

    def _leave_unread(self) -> None:
        """What is closed stays open until its last byte is sent: to whoever reads nothing, for ever."""
        if self._unread is None:
            self._unread = self.loop.call_later(self.read_s, self.transport.abort)

    def _was_read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _watch(self) -> None:
        """Give headers that have begun their time, once; from there on a body has its own (security.py)."""
        if self.conn.their_state is not h11.IDLE:
            self._disarm()
        elif self._timer is None and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._timer = self.loop.call_later(self.header_s, self._too_slow)

    def _too_slow(self) -> None:
        self._timer = None
        if self.conn.their_state is h11.IDLE:
            self.refuse(HTTPStatus.REQUEST_TIMEOUT)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _prove(self) -> None:
        """Called from any thread."""
        self.proven = True


def _refusal(status: HTTPStatus) -> bytes:
    body = f"{status.phrase}\n".encode()
    headers = {
        **HEADERS,
        "cache-control": "no-store",
        "content-type": "text/plain; charset=utf-8",
        "content-length": str(len(body)),
        "connection": "close",
    }
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{key}: {value}" for key, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


_REFUSALS: Final = {
    status: _refusal(status)
    for status in (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
}


def make_server(
    app: ASGIApp,
    *,
    proxies: Collection[str] = (),
    header_s: float = HEADER_S,
    read_s: float = READ_S,
    unproven_by_address: int = UNPROVEN_BY_ADDRESS,
    unproven: int = UNPROVEN,
) -> uvicorn.Server:
    """A server that is yet to be given its socket: `server.run(sockets=[...])`.

    Args:
        proxies: addresses and networks that are believed when they say for whom they ask (X-Forwarded-For).

    Raises:
        UsageError: one of them is no address, or is everybody's.
    """
    trusted = [_proxy(address) for address in proxies]
    kept = {"door": Door(unproven_by_address, unproven, trusted), "header_s": header_s, "read_s": read_s}
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=type("Protocol", (LimitedProtocol,), kept),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(trusted),
        forwarded_allow_ips=[str(network) for network in trusted],
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )
    return uvicorn.Server(config)


def _proxy(address: str) -> Network:
    try:
        network = ipaddress.ip_network(address)
    except ValueError as error:
        raise UsageError(f"--proxy {address}: this is no address and no network, such as 10.0.0.5") from error
    if network.prefixlen == 0:
        raise UsageError(f"--proxy {address}: everybody could say who they are; name the proxy's own address")
    return network


def listen(host: str, port: int) -> socket.socket:
    """Raises:
    UsageError: the address is taken, or not this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        what = error.strerror or str(error)
        if error.errno is not None and not isinstance(error, socket.gaierror):  # which has numbers of its own
            what = os.strerror(error.errno)  # Python's words name the address a second time
        told = f"cannot listen on {host} port {port}: {what}; choose another with --host or --port"
        raise UsageError(told) from error


def answer_steadily() -> None:
    """Set this process up for short waits rather than for the most work; measured by `benchmarks.review`.

    A search of the whole heap for garbage stops all threads for a tenth of a second, and would come again with every
    few hundred labels: what start-up left behind is kept out of it, and it comes less often. A thread that wants to
    answer waits half a millisecond for one that is busy, not five.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    sys.setswitchinterval(0.0005)


def allow_many_files() -> None:
    """Every connection is an open file, and the usual limit is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(FILES_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
