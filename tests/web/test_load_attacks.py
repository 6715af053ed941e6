"""Thousands of connections that come to no point, and bodies without end, while somebody at work goes on working.

The limits are those that `ratchet review serve` has. All comes from the address at which the labeler sits, too.
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import socket
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from orchestrator.core.records import Role
from orchestrator.home import Home
from orchestrator.store.ledger import Ledger
from orchestrator.web.app import create_app
from orchestrator.web.limits import Limits, Rate
from orchestrator.web.rendering import read_static
from orchestrator.web.server import UNPROVEN, allow_many_files

if TYPE_CHECKING:
    from review_server import Reply, Server

pytestmark = pytest.mark.thorough
QUEUE, COOKIE = "queue", "ratchet_session"
MANY = 1000
LABELER_S = 20.0
"""What the labeler would call a hang; on an idle machine an answer takes some thousandths of it."""
ANSWERED_S = 120.0
"""By then the server has hung up on whatever an attacker does."""
FEW_MB = 80
"""More than all buffers of all connections that it keeps; much less than any body that is sent here."""

Outcome = int | str
"""The last status that an attacker was told; `closed` where none was."""


@dataclass
class Labeler:
    """Labels a comparison a second, on a connection that is kept as browsers keep theirs."""

    server: Server
    secret: str
    acknowledged: int = 0
    refused: list[str] = field(default_factory=list)
    answers_s: list[float] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def work(self) -> None:
        from review_server import Visitor

        browser = Visitor(self.server.port, self.secret, patience_s=LABELER_S)
        while not self._stop.wait(1.0):
            page = self._timed(lambda: browser.get(f"/c/{QUEUE}/label"))
            if page.status != 200:
                self.refused.append(f"page: {page.status}")
                continue
            ticket = page.ticket
            said = self._timed(lambda ticket=ticket: browser.send(f"/c/{QUEUE}/label", ticket=ticket, choice="first"))  # type: ignore[misc]
            if (said.status, said.told) == (303, "recorded.first"):
                self.acknowledged += 1
            else:
                self.refused.append(f"label: {said.status} {said.told}")
        browser.close()

    def _timed(self, ask: Callable[[], Reply]) -> Reply:
        began = time.monotonic()
        reply = ask()
        self.answers_s.append(time.monotonic() - began)
        return reply

    @contextmanager
    def at_work(self) -> Iterator[None]:
        failed: list[BaseException] = []

        def work() -> None:
            try:
                self.work()
            except (OSError, http.client.HTTPException) as error:
                failed.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()
        assert not failed, "the server hung up on somebody at work"


@dataclass
class Memory:
    """The most that a process has held, looked at ten times a second."""

    pid: int
    before: int = 0
    most: int = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        process, stop = psutil.Process(self.pid), threading.Event()
        self.before = process.memory_info().rss

        def look() -> None:
            while not stop.wait(0.1):
                self.most = max(self.most, process.memory_info().rss)

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    @property
    def grown_mb(self) -> float:
        return (self.most - self.before) / 2**20


@dataclass
class Siege:
    home: Home
    ledger: Ledger
    server: Server

    def attackers(self, count: int) -> list[str]:
        """Their addresses: half of them the labeler's."""
        return ["127.0.0.1" if n % 2 else f"127.9.9.{1 + n % 16}" for n in range(count)]


@pytest.fixture(scope="module")
def siege(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siege]:
    from review_server import add_queue, serving

    allow_many_files()
    folder = tmp_path_factory.mktemp("siege")
    home = Home(folder / "home")
    home.create()
    with home.ledger() as ledger:
        add_queue(home, ledger, 3000)
        with serving(home, folder / "log") as server:
            yield Siege(home, ledger, server)


async def meet(siege: Siege, address: str, attack: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> Outcome:
    """Do it until the server hangs up; what it said last."""
    from review_server import replies_in

    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", siege.server.port, local_addr=(address, 0))
    except OSError:
        return "closed"
    doing = asyncio.ensure_future(attack(writer))
    received = bytearray()
    try:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                received += data
        replies = replies_in(bytes(received)) if received.startswith(b"HTTP/1.1 ") else []
        return replies[-1].status if replies else "closed"
    finally:
        doing.cancel()
        with suppress(asyncio.CancelledError, ConnectionError):
            await doing
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def besiege(siege: Siege, count: int, attack: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> Counter[Outcome]:
    """So many attackers at once, and a labeler who does not care; how the attackers ended."""
    from review_server import session, words_in

    async def all_of_them() -> list[Outcome]:
        async with asyncio.timeout(ANSWERED_S):
            return await asyncio.gather(*(meet(siege, address, attack) for address in siege.attackers(count)))

    name = f"labeler {siege.ledger.head(QUEUE).seq}"
    labeler = Labeler(siege.server, session(siege.ledger, name, Role.LABELER))
    memory = Memory(siege.server.pid)
    with labeler.at_work(), memory.watched():
        outcomes = Counter(asyncio.run(all_of_them()))
        while not labeler.acknowledged and not labeler.refused:  # a short siege
            time.sleep(0.05)
    words = [word for word in words_in(siege.ledger) if word[1] == name]
    assert labeler.refused == []
    assert labeler.acknowledged == len(words) > 0
    assert len({item for item, _, _ in words}) == len(words)
    assert memory.grown_mb < FEW_MB
    assert "Traceback" not in siege.server.said()
    return outcomes


def test_a_thousand_connections_that_say_nothing(siege: Siege) -> None:
    async def nothing(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    outcomes = besiege(siege, MANY, nothing)
    assert sum(outcomes.values()) == MANY
    assert set(outcomes) <= {408, 429, "closed"}
    assert 0 < outcomes[408] <= UNPROVEN, "it never keeps more of them than that"


def test_a_thousand_requests_byte_by_byte(siege: Siege) -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        for byte in b"GET /join HTTP/1.1\r\nX: " + b"x" * 10_000:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.5)

    outcomes = besiege(siege, MANY, drip)
    assert set(outcomes) <= {408, 429, "closed"}
    assert outcomes[408] > 0


def test_bodies_byte_by_byte(siege: Siege) -> None:
    """They are read before anybody looks at what they say or who sends them, so that no thread ever waits for one."""
    cookies = itertools.cycle(["", f"Cookie: {COOKIE}=rtc_{'A' * 43}\r\n"])

    async def drip(writer: asyncio.StreamWriter) -> None:
        cookie = next(cookies)
        head = f"POST /c/{QUEUE}/label HTTP/1.1\r\nHost: {siege.server.host}\r\n{cookie}Content-Length: 60000\r\n\r\n"
        writer.write(head.encode())
        for _ in range(60_000):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.5)

    outcomes = besiege(siege, 300, drip)
    assert set(outcomes) <= {408, 429, "closed"}
    assert outcomes[408] > 0


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "in chunks"])
def test_a_body_of_a_gigabyte(siege: Siege, announced: bool) -> None:
    piece = b"x" * 2**20
    how = f"Content-Length: {2**30}" if announced else "Transfer-Encoding: chunked"

    async def pour(writer: asyncio.StreamWriter) -> None:
        head = f"POST /c/{QUEUE}/label HTTP/1.1\r\nHost: {siege.server.host}\r\nCookie: {COOKIE}=rtc_x\r\n{how}\r\n\r\n"
        writer.write(head.encode())
        for _ in range(1024):
            writer.write(piece if announced else b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
            await asyncio.sleep(0)

    outcomes = besiege(siege, 8, pour)
    assert set(outcomes) <= {413, "closed"}
    assert outcomes[413] > 0


def test_requests_without_a_pause(siege: Siege) -> None:
    """Strangers are told to wait, and their connections closed."""

    async def flood(writer: asyncio.StreamWriter) -> None:
        writer.write(f"GET /join HTTP/1.1\r\nHost: {siege.server.host}\r\n\r\n".encode() * 2000)
        await writer.drain()

    assert set(besiege(siege, 40, flood)) <= {429, "closed"}


def test_wrong_tokens_without_a_pause(siege: Siege) -> None:
    """Also from the address of somebody whose token is right."""

    async def flood(writer: asyncio.StreamWriter) -> None:
        asked = f"GET /api/v1/me HTTP/1.1\r\nHost: {siege.server.host}\r\nAuthorization: Bearer rtc_{'A' * 43}\r\n"
        writer.write(f"{asked}\r\n".encode() * 50 + f"{asked}Connection: close\r\n\r\n".encode())
        await writer.drain()

    assert set(besiege(siege, 60, flood)) == {429}


def test_headers_without_end(siege: Siege) -> None:
    async def flood(writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HTTP/1.1\r\n")
        for number in range(100_000):
            writer.write(b"x%d: y\r\n" % number)
            if number % 100 == 0:
                await writer.drain()
                await asyncio.sleep(0)  # let it hear that the server has hung up

    assert set(besiege(siege, 100, flood)) <= {400, 429, 431, "closed"}


def test_answers_that_nobody_reads(siege: Siege, serving: Callable[..., Any]) -> None:
    """What waits to be sent keeps a connection open, and whoever is turned out for others must not stay so."""
    limits = Limits(stranger=Rate(1e6, 1e6))
    app = create_app(siege.ledger, siege.home.artifacts(), limits=limits)
    with serving(app, read_s=1.0) as port, ExitStack() as stack:
        asked = f"GET {read_static()['app.css'].url} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        for number in range(300):
            guest = stack.enter_context(socket.socket())
            guest.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            guest.connect(("127.0.0.1", port))
            last = b"Connection: close\r\n\r\n" if number % 2 else b"\r\n"
            guest.sendall(asked * 200 + asked[:-2] + last)
        deadline = time.monotonic() + 20
        while _held(port) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert _held(port) == 0


def _held(port: int) -> int:
    """Connections of this process to a server of its own that the server has not closed."""
    ends = psutil.Process().net_connections("tcp")
    return sum(end.laddr.port == port and end.status == psutil.CONN_ESTABLISHED for end in ends)
