"""How the review queue bears many at work: `python -m benchmarks.review [--database URL] [--json]`.

A queue of 100,000 comparisons, `ratchet review serve` as a process of its own, and labelers as processes' worth of
browsers: each holds one connection and a session, looks at a comparison for two seconds, says a word, and is sent on
to the next. Reported, at the client:
    next     from asking for the page of the next comparison to its last byte,
    submit   from sending the word to the answer that it is recorded,
both at the 50th and 99th percentile in milliseconds, with 50 labelers; then with ever more of them, until one of the
two takes over 50 ms at the 99th percentile; and beside it how many labels a second the database takes from a loop that
does nothing but append them. At the end every acknowledged word is looked for on the ledger, and the chain is verified.
`--database postgresql://…` asks the same of PostgreSQL.
"""

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import psutil

from orchestrator.core import events as ev
from orchestrator.core.records import Choice, Costs, Label, Purpose, Role
from orchestrator.core.settings import CampaignSettings
from orchestrator.home import Home
from orchestrator.runner import draft, read_state_at
from orchestrator.store.ledger import Ledger
from orchestrator.web.sessions import Cookie

CAMPAIGN: Final = "load"
LIMIT_MS: Final = 50.0
WORDS: Final = (
    "memo",
    "dan",
    "milk",
    "rice",
    "tea",
    "on",
    "wednesday",
    "please",
    "confirm",
    "thanks",
    "kind",
    "regards",
)
TICKET: Final = re.compile(rb'name="ticket" value="([^"]+)"')
MARK: Final = re.compile(rb'name="mark" value="([^"]+)"')


def make_queue(home: Home, items: int, *, words: int = 60) -> None:
    """A campaign that waits for people to label so many comparisons, of responses of so many words."""
    home.create()
    settings = CampaignSettings.model_validate(
        {
            "name": CAMPAIGN,
            "task": {"kind": "memo"},
            "base": {"seedling": {}},
            "feedback": {"rater": "people", "initial_labels": items},
            "evaluation": {"prompts": 0},
        }
    )
    dice = random.Random(0)
    rows = (
        {
            "item": item,
            "prompt": " ".join(dice.choices(WORDS, k=20)),
            "response_1": " ".join(dice.choices(WORDS, k=words)),
            "response_2": " ".join(dice.choices(WORDS, k=words)),
        }
        for item in range(items)
    )
    digest = home.artifacts().publish_lines("comparisons", rows)
    created = ev.CampaignCreated(
        settings=settings.model_dump(mode="json"), settings_digest=settings.digest(), code_version="benchmark"
    )
    base = "b" * 64
    drawn = ev.ComparisonsDrawn(
        purpose=Purpose.INITIAL, comparisons=digest, count=items, candidate=base, costs=Costs(samples=2 * items)
    )
    with home.ledger() as ledger:
        ledger.create_campaign(CAMPAIGN)
        with ledger.acquire_controller(CAMPAIGN, owner="benchmark") as lease:
            for number, body in enumerate((created, ev.BaseReady(checkpoint=base, parameters=1, costs=Costs()), drawn)):
                drafted = draft(body, f"begun.{number}", author="controller")
                ledger.append(CAMPAIGN, [drafted], epoch=lease.epoch)


def sessions(ledger: Ledger, count: int) -> list[str]:
    """Secrets of so many labelers' sessions."""
    opened = []
    for number in range(count):
        code = ledger.people.invite(f"labeler {number}", (Role.LABELER,), by="benchmark").secret
        opened.append(ledger.people.redeem(code)[0])
    return opened


def database_alone(home: Home, seconds: float) -> float:
    """Labels a second that a loop appends which does nothing else, one commit each; on a campaign of its own."""
    with home.ledger() as ledger:
        ledger.create_campaign("alone")
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            label = Label(item=count, rater="nobody else", choice=Choice.FIRST)
            body = ev.LabelsRecorded(batch="initial", labels=(label,), credential="c-alone")
            ledger.append("alone", [draft(body, f"label.{count}", author=label.rater)], epoch=None, after_seq=count - 1)
            count += 1
        return count / (time.perf_counter() - began)


@dataclass
class Told:
    """What the labelers measured, in seconds."""

    next_s: list[float] = field(default_factory=list)
    submit_s: list[float] = field(default_factory=list)
    acknowledged: int = 0
    refused: list[str] = field(default_factory=list)


class Browser:
    """One labeler: a connection that is kept, a cookie, and no patience beyond the pause."""

    def __init__(self, host: str, port: int, secret: str, told: Told) -> None:
        self._host, self._port, self._told = host, port, told
        self._cookie = f"{Cookie(secure=False).name}={secret}"
        self._page = b""

    async def work(self, pause_s: float, until: float, *, measured_from: float) -> None:
        await asyncio.sleep(random.random() * max(pause_s, 0.1))
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        try:
            while time.perf_counter() < until:
                await self._one(pause_s, measured_from)
        finally:
            self._writer.close()

    async def _one(self, pause_s: float, measured_from: float) -> None:
        began = time.perf_counter()
        status, page = await self._ask("GET", f"/c/{CAMPAIGN}/label")
        took = time.perf_counter() - began
        ticket, mark = TICKET.search(page), MARK.search(page)
        if status != 200 or ticket is None or mark is None:
            self._told.refused.append(f"next: {status}")
            await asyncio.sleep(0.5)
            return
        if began >= measured_from:
            self._told.next_s.append(took)
        await asyncio.sleep(pause_s)
        choice = random.choice(("first", "second", "tie", "both_bad"))
        word = urlencode({"ticket": ticket[1].decode(), "mark": mark[1].decode(), "choice": choice}).encode()
        began = time.perf_counter()
        status, _ = await self._ask("POST", f"/c/{CAMPAIGN}/label", word)
        if status != 303:
            self._told.refused.append(f"submit: {status}")
            return
        self._told.acknowledged += 1
        if began >= measured_from:
            self._told.submit_s.append(time.perf_counter() - began)

    async def _ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}:{self._port}", f"Cookie: {self._cookie}"]
        if body:
            lines += [
                f"Origin: http://{self._host}:{self._port}",
                "Content-Type: application/x-www-form-urlencoded",
                f"Content-Length: {len(body)}",
            ]
        self._writer.write("\r\n".join((*lines, "", "")).encode() + body)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        content = await self._reader.readexactly(int(length[1])) if length is not None else b""
        return int(head.split(b" ", 2)[1]), content


async def crowd(url: str, secrets: list[str], *, pause_s: float, seconds: float) -> Told:
    """All labelers at once; the first tenth of the time is not measured."""
    told = Told()
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    began = time.perf_counter()
    browsers = (Browser(address.hostname, address.port, secret, told) for secret in secrets)
    await asyncio.gather(
        *(b.work(pause_s, began + seconds, measured_from=began + seconds / 10 + pause_s) for b in browsers)
    )
    return told


def percentile_ms(values_s: list[float], share: float) -> float | None:
    ordered = sorted(values_s)
    return 1000 * ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else None


def summary(told: Told, labelers: int, pause_s: float, seconds: float) -> dict[str, Any]:
    return {
        "labelers": labelers,
        "pause_s": pause_s,
        "labels_per_second": len(told.submit_s) / max(seconds * 0.9 - pause_s, 1e-9),
        "next_ms": {"p50": percentile_ms(told.next_s, 0.5), "p99": percentile_ms(told.next_s, 0.99)},
        "submit_ms": {"p50": percentile_ms(told.submit_s, 0.5), "p99": percentile_ms(told.submit_s, 0.99)},
        "acknowledged": told.acknowledged,
        "refused": sorted(set(told.refused)),
    }


def holds(found: dict[str, Any]) -> bool:
    slowest = (found["next_ms"]["p99"], found["submit_ms"]["p99"])
    return not found["refused"] and all(ms is not None and ms < LIMIT_MS for ms in slowest)


def serve(home: Home, database: str | None) -> tuple[subprocess.Popen[str], str]:
    """The server as people start it; the process and its address."""
    where = ("--ledger", database) if database is not None else ()
    command = (sys.executable, "-m", "orchestrator.cli.main", "--home", str(home.root), *where, "review", "serve")
    server = subprocess.Popen((*command, "--port", "0"), stdout=subprocess.PIPE, text=True, env={**os.environ})
    assert server.stdout is not None
    line = server.stdout.readline()
    found = re.search(r"http://\S+", line)
    if found is None:
        raise SystemExit(f"the server did not start: {line!r}")
    return server, found[0]


def busy_s(server: subprocess.Popen[str]) -> float:
    """Processor time that the server has used; unlike the clock, it does not count who else is on the machine."""
    times = psutil.Process(server.pid).cpu_times()
    return float(times.user + times.system)


def lost(home: Home, acknowledged: int) -> dict[str, Any]:
    """Whether every acknowledged word is on the ledger, once."""
    with home.ledger() as ledger:
        state, _ = read_state_at(ledger, CAMPAIGN)
        verified = ledger.verify(CAMPAIGN)
    recorded = len(state.batches[0].labels)
    return {"acknowledged": acknowledged, "recorded": recorded, "ledger_ok": verified.ok}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--labelers", type=int, default=50)
    parser.add_argument("--pause", type=float, default=2.0, metavar="SECONDS")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement")
    parser.add_argument("--most", type=int, default=800, help="labelers beyond which nobody is added")
    parser.add_argument("--database", metavar="URL", help="a PostgreSQL; a file unless given")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder)) if arguments.database is None else Home(Path(folder), arguments.database)
        make_queue(home, arguments.items)
        with home.ledger() as ledger:
            secrets = sessions(ledger, arguments.most)
        alone = database_alone(home, 5.0)
        server, url = serve(home, arguments.database)
        # Whoever comes first waits while the queue's texts are unpacked.
        acknowledged = asyncio.run(crowd(url, secrets[:1], pause_s=0.1, seconds=2.0)).acknowledged
        measured, labelers = [], arguments.labelers
        try:
            while labelers <= arguments.most:
                before_s = busy_s(server)
                work = crowd(url, secrets[:labelers], pause_s=arguments.pause, seconds=arguments.seconds)
                told = asyncio.run(work)
                acknowledged += told.acknowledged
                measured.append(summary(told, labelers, arguments.pause, arguments.seconds))
                spent_s = busy_s(server) - before_s
                measured[-1]["server_cpu_ms_per_label"] = 1000 * spent_s / max(told.acknowledged, 1)
                print(json.dumps(measured[-1]), file=sys.stderr)
                if not holds(measured[-1]):
                    break
                labelers *= 2
        finally:
            server.terminate()
            server.wait()
        document = {
            "database": "postgresql" if arguments.database else "sqlite",
            "items": arguments.items,
            "measured": measured,
            "database_alone_labels_per_second": alone,
            "nothing_lost": lost(home, acknowledged),
        }
    if arguments.json:
        print(json.dumps(document, indent=2))
        return
    print(f"{document['database']}, {arguments.items:,} comparisons queued; the database alone: {alone:.0f} labels/s")
    for row in measured:
        print(
            f"{row['labelers']:>5} labelers  {row['labels_per_second']:6.1f} labels/s  "
            f"next {row['next_ms']['p50']:.1f} / {row['next_ms']['p99']:.1f} ms  "
            f"submit {row['submit_ms']['p50']:.1f} / {row['submit_ms']['p99']:.1f} ms (p50 / p99)  "
            f"{row['server_cpu_ms_per_label']:.1f} ms of the server's processor a label  {', '.join(row['refused'])}"
        )
    print(f"acknowledged and recorded: {document['nothing_lost']}")


if __name__ == "__main__":
    main()
