"""`ratchet review serve` as a process of its own, what waits in it, and clients that speak HTTP to it over sockets."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import pytest
from sqlalchemy import create_engine, make_url, text

from orchestrator.core import events as ev
from orchestrator.core.envelope import EventDraft
from orchestrator.core.records import Costs, Purpose, Role
from orchestrator.core.settings import CampaignSettings
from orchestrator.home import Home
from orchestrator.runner import draft
from orchestrator.store.ledger import Ledger
from orchestrator.web.sessions import form_mark

QUEUE = "queue"
COOKIE = "ratchet_session"
PATIENCE_S = 60.0
"""For an answer. Nothing here asks how fast it comes; what takes so long hangs."""
_ADDRESSES = itertools.count(2)


# --- what waits -----------------------------------------------------------------------------------------------


def add_queue(home: Home, ledger: Ledger, items: int, *, name: str = QUEUE, **feedback: Any) -> None:
    """A campaign that waits for people to label so many comparisons; no model is behind it."""
    home.create()
    settings = CampaignSettings.model_validate(
        {
            "name": name,
            "task": {"kind": "memo"},
            "base": {"seedling": {}},
            "feedback": {"rater": "people", "initial_labels": items, **feedback},
            "evaluation": {"prompts": 0},
        }
    )
    rows = (
        {"item": item, "prompt": f"prompt {item}", "response_1": f"one {item}", "response_2": f"two {item}"}
        for item in range(items)
    )
    digest = home.artifacts().publish_lines("comparisons", rows)
    base = "b" * 64
    bodies = (
        ev.CampaignCreated(
            settings=settings.model_dump(mode="json"), settings_digest=settings.digest(), code_version="test"
        ),
        ev.BaseReady(checkpoint=base, parameters=1, costs=Costs()),
        ev.ComparisonsDrawn(
            purpose=Purpose.INITIAL, comparisons=digest, count=items, candidate=base, costs=Costs(samples=2 * items)
        ),
    )
    ledger.create_campaign(name)
    with ledger.acquire_controller(name, owner="test") as lease:
        for number, body in enumerate(bodies):
            ledger.append(name, [draft(body, f"begun.{number}", author="controller")], epoch=lease.epoch)


@contextmanager
def on_postgresql(here: Home, *campaigns: str) -> Iterator[Home]:
    """The same home with its ledger on PostgreSQL, in a schema of its own, and these campaigns copied there."""
    if "RATCHET_TEST_POSTGRES_URL" not in os.environ:
        pytest.skip("needs a PostgreSQL: set RATCHET_TEST_POSTGRES_URL")
    url = make_url(os.environ["RATCHET_TEST_POSTGRES_URL"]).set(drivername="postgresql+psycopg")
    schema = f"test_{uuid.uuid4().hex}"
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    there = url.update_query_dict({"options": f"-csearch_path={schema}"}).render_as_string(hide_password=False)
    home = Home(here.root, there)
    try:
        with home.ledger() as ledger, here.ledger() as source:
            for name in campaigns:
                copy_campaign(source, ledger, name)
        yield home
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
        engine.dispose()


def copy_campaign(source: Ledger, target: Ledger, name: str) -> None:
    """The same history on another ledger; artifacts are content-addressed and stay where they are."""
    target.create_campaign(name)
    with target.acquire_controller(name, owner="test") as lease:
        for stored in source.events(name):
            again = EventDraft(
                stored.type,
                stored.body,
                command_id=stored.command_id,
                author=stored.author,
                reason=stored.reason,
                version=stored.version,
            )
            target.append(name, [again], epoch=None if stored.epoch is None else lease.epoch)


def words_in(ledger: Ledger, campaign: str = QUEUE) -> list[tuple[int, str, str]]:
    """Item, person and word of every label, in the order of the ledger."""
    return [
        (label["item"], label["rater"], label["choice"])
        for event in ledger.events(campaign)
        if event.type == "labels_recorded"
        for label in event.body["labels"]
    ]


def session(ledger: Ledger, name: str, *roles: Role, **options: Any) -> str:
    """The secret of a new session; of every role unless some are named."""
    code = ledger.people.invite(name, roles or tuple(Role), by="tester", **options).secret
    return ledger.people.redeem(code)[0]


# --- the server -----------------------------------------------------------------------------------------------


@dataclass
class Server:
    """One that listens."""

    pid: int
    port: int
    log: Path
    """All that it says."""

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def said(self) -> str:
        return self.log.read_text()

    def visitor(self, secret: str | None = None, **options: Any) -> Visitor:
        return Visitor(self.port, secret, **options)


@contextmanager
def serving(home: Home, log: Path, *options: str, debug: bool = False) -> Iterator[Server]:
    """Run one as people do, until the block ends."""
    arguments = (*(["--debug"] if debug else []), "--home", str(home.root))
    where = () if home.ledger_at is None else ("--ledger", home.ledger_at)
    # Behind a proxy it tells the proxy's address: its own has to be chosen here.
    port = _free_port() if "--public-url" in options else 0
    ratchet = (sys.executable, "-m", "orchestrator.cli.main")
    command = (*ratchet, *arguments, *where, "review", "serve", "--port", str(port))
    with log.open("ab") as told, subprocess.Popen((*command, *options), stdout=told, stderr=told) as process:
        try:
            told_port = _port_in(log, lambda: process.poll() is None)
            yield Server(process.pid, port or told_port, log)
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def _port_in(log: Path, alive: Any) -> int:
    """Wait for the line that says where it listens."""
    while True:
        living = alive()
        found = re.search(r"review page: https?://[^:\s]+(?::(\d+))?\n", log.read_text())
        if found is not None:
            return int(found[1] or 0)
        assert living, f"the server did not start: {log.read_text()}"
        select.select([], [], [], 0.02)


WARM = """
import importlib, json, os, sys, traceback
import orchestrator.cli.review, orchestrator.cli.serve, orchestrator.web.app, orchestrator.web.server, psycopg
import sqlalchemy.dialects.postgresql.psycopg
from orchestrator import failpoints
from orchestrator.cli.main import main

for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        print(os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1]), flush=True)
        continue
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        continue
    try:
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for descriptor in (1, 2):
            os.dup2(log, descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ["RATCHET_FAILPOINT"] = order["failpoint"]
        importlib.reload(failpoints)
        sys.argv = ["ratchet", *order["arguments"]]
        main()
    except SystemExit:
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)
"""
"""Imports once, then forks a server for each order: as good as a fresh process, for tests that kill many."""


class Servers:
    """Starts servers that may be told where to die."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WARM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._living: set[int] = set()
        return self

    def __exit__(self, *_: object) -> None:
        for pid in tuple(self._living):
            self.kill(pid)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE_S)
        self._process.stdout.close()

    def start(self, home: Home, log: Path, failpoint: str = "") -> Server:
        """
        Args:
            failpoint: as RATCHET_FAILPOINT has it.
        """
        log.write_text("")
        where = () if home.ledger_at is None else ("--ledger", home.ledger_at)
        arguments = ("--home", str(home.root), *where, "review", "serve", "--port", "0")
        pid = int(self._ask({"arguments": arguments, "log": str(log), "failpoint": failpoint}))
        self._living.add(pid)
        return Server(pid, _port_in(log, lambda: _is_running(pid)), log)

    def wait(self, server: Server) -> int:
        """Its exit status; negative: the signal that killed it."""
        self._living.discard(server.pid)
        return int(self._ask({"wait": server.pid}))

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self._living.discard(pid)
        self._ask({"wait": pid})

    def _ask(self, order: dict[str, Any]) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


def _is_running(pid: int) -> bool:
    """Not a zombie either."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- clients --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reply:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def ticket(self) -> str:
        found = re.search(rb'name="ticket" value="([^"]+)"', self.body)
        assert found is not None, (self.status, self.text)
        return found[1].decode()

    @property
    def told(self) -> str:
        """What the address that it leads to says of the last word."""
        return str(self.header("location")).partition("told=")[2]

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]


@dataclass
class Visitor:
    """One connection, and the secret that it shows: as a cookie on pages, as a token to the API."""

    port: int
    secret: str | None = None
    address: str = "127.0.0.1"
    """Where it comes from; limits are counted by address."""
    patience_s: float = PATIENCE_S
    _connection: http.client.HTTPConnection | None = field(default=None, repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Reply:
        """
        Raises:
            OSError, http.client.HTTPException: the server hung up.
        """
        if self._connection is None:
            self._connection = http.client.HTTPConnection(
                "127.0.0.1", self.port, timeout=self.patience_s, source_address=(self.address, 0)
            )
        try:
            self._connection.request(method, path, body, headers or {})
            answer = self._connection.getresponse()
            return Reply(answer.status, answer.getheaders(), answer.read())
        except BaseException:
            self._connection.close()
            raise

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, headers=self._cookie() | _named(headers))

    def post(self, path: str, fields: dict[str, str], **headers: str) -> Reply:
        """A form, with nothing of ours but the cookie."""
        kind = {"content-type": "application/x-www-form-urlencoded"}
        return self.ask("POST", path, urlencode(fields).encode(), self._cookie() | kind | _named(headers))

    def send(self, path: str, **fields: str) -> Reply:
        """A form as our own pages send it."""
        assert self.secret is not None
        return self.post(path, {"mark": form_mark(self.secret), **fields}, sec_fetch_site="same-origin")

    def join(self, code: str) -> Reply:
        return self.post("/join", {"code": code})

    def api(self, method: str, path: str, document: Any = None, **headers: str) -> Reply:
        token = {} if self.secret is None else {"authorization": f"Bearer {self.secret}"}
        body = None if document is None else json.dumps(document).encode()
        kind = {} if body is None else {"content-type": "application/json"}
        return self.ask(method, f"/api/v1{path}", body, token | kind | _named(headers))

    def _cookie(self) -> dict[str, str]:
        return {} if self.secret is None else {"cookie": f"{COOKIE}={self.secret}"}


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def elsewhere() -> str:
    """An address of this machine's that nobody has come from yet."""
    number = next(_ADDRESSES)
    return f"127.{1 + number // 250 // 250}.{number // 250 % 250}.{1 + number % 250}"


def raw(port: int, sent: bytes, *, address: str = "127.0.0.1") -> list[Reply]:
    """Send these bytes and read all answers until the server hangs up: the last request has to ask for that."""
    with ExitStack() as stack:
        client = stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE_S, (address, 0)))
        with suppress(OSError):  # it may hang up before the end; what it said first can still be read
            client.sendall(sent)
        received = bytearray()
        with suppress(ConnectionResetError):
            while data := client.recv(65536):
                received += data
    return replies_in(bytes(received))


def replies_in(received: bytes) -> list[Reply]:
    """The answers in a stream; every one of ours has a length or is the last."""
    replies = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = [(key, value) for key, _, value in (line.partition(": ") for line in lines)]
        status = int(first.split(" ")[1])
        if status == 100:
            received = rest
            continue
        length = next((int(value) for key, value in headers if key.lower() == "content-length"), len(rest))
        replies.append(Reply(status, headers, rest[:length]))
        received = rest[length:]
    return replies
