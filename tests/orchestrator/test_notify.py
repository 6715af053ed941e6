"""Who is told that a campaign waits, of what, and how often: real commands, a real web server."""

import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from small_campaigns import Campaign, Small, with_people

from orchestrator import notify
from orchestrator.core.commands import AskForDecision, AskForLabels
from orchestrator.core.settings import CampaignSettings, NotifySettings

KEEP = "import pathlib, sys; pathlib.Path(sys.argv[1]).open('ab').write(sys.stdin.buffer.read() + b'\\n')"


@dataclass
class Listener:
    """A web server that keeps what is posted to it."""

    answer: int = 204
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def listener() -> Iterator[Listener]:
    heard = Listener()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            heard.headers.append(dict(self.headers.items()))
            self.send_response(heard.answer)
            if 300 <= heard.answer < 400:
                self.send_header("Location", f"{heard.url}/elsewhere")
            self.end_headers()

        def do_GET(self) -> None:
            raise AssertionError("a redirect was followed")

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        heard.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield heard
        server.shutdown()


def told(settings: CampaignSettings, **how: Any) -> CampaignSettings:
    return settings.model_copy(update={"notify": NotifySettings.model_validate(how)})


@pytest.fixture(scope="module")
def waiting(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    """It waits for the first labels. Look, do not touch."""
    small = Small(tiny_base, tmp_path_factory.mktemp("waiting"))
    campaign = small.campaign(**with_people())
    campaign.run()
    yield campaign
    small.close()


def ask_of(campaign: Campaign) -> AskForLabels | AskForDecision:
    command = campaign.office.command()
    assert isinstance(command, AskForLabels | AskForDecision)
    return command


def test_what_is_told_of_each_wait(small: Small) -> None:
    raters = ["Ann", "bob", "eve"]
    campaign = small.campaign(**with_people(feedback={"raters": raters, "raters_per_item": 2}))
    campaign.run()
    assert notify.notice("small", campaign.settings, ask_of(campaign)) == {
        "campaign": "small", "kind": "comparisons", "batch": "initial", "candidate": None, "wanted": 40, "settled": 0,
        "missing": {}, "next": "ratchet review label small",
    }  # fmt: skip
    for person in ("ann", "bob"):
        campaign.label(person=person)
    campaign.run()
    at_the_gate = notify.notice("small", campaign.settings, ask_of(campaign))
    missing = at_the_gate.pop("missing")
    assert missing.keys() == {"ann", "bob", "eve"}
    assert sum(missing.values()) == 2 * at_the_gate["wanted"], "two verdicts an item, none is in"
    assert (at_the_gate["kind"], at_the_gate["batch"], at_the_gate["settled"]) == ("comparisons", "s0.a0.gate", 0)


def test_a_decision_and_an_audit_are_told_as_such(small: Small) -> None:
    campaign = small.campaign(**with_people(gate={"audit": {"evaluator": "people", "labels": 10}}))
    kinds = []
    for _ in range(5):
        campaign.run()
        kinds.append(notify.notice("small", campaign.settings, ask_of(campaign)))
        if kinds[-1]["kind"] == "decision":
            break
        campaign.label(person="eve" if kinds[-1]["kind"] == "audit" else "ann", items=range(kinds[-1]["wanted"]))
    assert [(told["kind"], told["batch"]) for told in kinds] == [
        ("comparisons", "initial"), ("comparisons", "s0.a0.gate"), ("audit", "s0.a0.audit"), ("decision", None)
    ]  # fmt: skip
    assert kinds[2]["wanted"] == 10
    assert kinds[3] == {
        "campaign": "small", "kind": "decision", "batch": None, "candidate": campaign.state.attempts[0].candidate,
        "wanted": 1, "settled": 0, "missing": {}, "next": "ratchet review list small",
    }  # fmt: skip


def test_the_signature_is_that_of_the_standard() -> None:
    """RFC 4231, test case 2."""
    assert notify.signature("Jefe", b"what do ya want for nothing?") == (
        "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )


def test_a_wait_is_posted_once_and_signed(small: Small, listener: Listener, tmp_path: Path) -> None:
    waiting = small.campaign(**with_people())
    waiting.run()
    settings = told(waiting.settings, url=f"{listener.url}/hook?a=b")
    ask, file = ask_of(waiting), tmp_path / "told" / "small"

    def tell(**environment: str) -> str | None:
        return notify.tell_once("small", settings, ask, told=file, environment=environment)

    assert tell(RATCHET_WEBHOOK_SECRET="salt") is None
    (body,), (headers,) = listener.bodies, listener.headers
    assert json.loads(body) == notify.notice("small", settings, ask)
    assert headers["X-Ratchet-Signature"] == notify.signature("salt", body)
    assert "salt" not in body.decode()
    assert tell() is None
    waiting.label(items=range(3))
    ask = ask_of(waiting)
    assert isinstance(ask, AskForLabels)
    assert ask.settled == 2, "the last word may still be taken back"
    assert tell() is None
    assert len(listener.bodies) == 1, "the same wait, further on"
    waiting.label(items=range(3, 40), person="bob")
    waiting.run()
    ask = ask_of(waiting)
    assert tell() is None
    assert [json.loads(body)["batch"] for body in listener.bodies] == ["initial", "s0.a0.gate"]
    assert "X-Ratchet-Signature" not in listener.headers[1], "no secret, no signature"


@pytest.mark.parametrize(
    ("answer", "why"), [(500, "answered 500"), (302, "answered 302 (redirects are not"), (307, "answered 307")]
)
def test_what_nobody_took_is_sent_again(
    answer: int, why: str, waiting: Campaign, listener: Listener, tmp_path: Path
) -> None:
    settings, listener.answer = told(waiting.settings, url=f"{listener.url}/token-in-path"), answer
    for sent in (1, 2):
        problem = notify.tell_once("small", settings, ask_of(waiting), told=tmp_path / "told", environment={})
        assert problem is not None
        assert why in problem
        assert "token-in-path" not in problem
        assert len(problem.splitlines()) == 1
        assert len(listener.bodies) == sent
    listener.answer = 200
    assert notify.tell_once("small", settings, ask_of(waiting), told=tmp_path / "told", environment={}) is None


def test_a_command_reads_the_document_and_no_shell_sees_it(waiting: Campaign, tmp_path: Path) -> None:
    kept = tmp_path / "kept $(touch sprung); `touch sprung`"
    settings = told(waiting.settings, command=[sys.executable, "-c", KEEP, str(kept)])
    for _ in range(2):
        assert notify.tell_once("small", settings, ask_of(waiting), told=tmp_path / "told") is None
    (line,) = kept.read_bytes().splitlines()
    assert json.loads(line) == notify.notice("small", settings, ask_of(waiting))


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["/nowhere/to/be-found"], "No such file"),
        ([sys.executable, "-c", "raise SystemExit(9)"], "exit code 9"),
        ([sys.executable, "-c", "import time; time.sleep(600)"], "longer than"),
    ],
)
def test_a_command_that_fails_is_one_line(
    command: list[str], why: str, waiting: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "TIMEOUT_SECONDS", 1.0)
    settings = told(waiting.settings, command=command)
    problem = notify.tell_once("small", settings, ask_of(waiting), told=tmp_path / "told")
    assert problem is not None
    assert problem.startswith("nobody may know that small waits: notify.command (")
    assert why in problem
    assert not (tmp_path / "told").exists()


@pytest.mark.parametrize(
    "how",
    [
        {"url": "https://a.example/x", "command": ["true"]},
        {"url": "ftp://a.example/x"},
        {"url": "file:///etc/passwd"},
        {"url": "https://user:word@a.example/"},
        {"url": "https://a.example/\r\nX: y"},
        {"command": []},
        {"command": "mail ann"},
    ],
)
def test_other_ways_are_refused(how: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NotifySettings.model_validate(how)


def test_a_notice_decides_no_results(small: Small) -> None:
    plain, loud = small.settings(), small.settings(notify={"command": ["true"]})
    assert plain.digest() == loud.digest()
