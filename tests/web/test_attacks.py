"""What strangers, insiders and other sites try against `ratchet review serve`, over sockets; and what they are told."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.core.records import Role
from orchestrator.home import Home
from orchestrator.store.ledger import Ledger
from orchestrator.web.sessions import form_mark

if TYPE_CHECKING:
    from review_server import Reply, Server, Visitor

QUEUE, DECISION, COOKIE = "queue", "harmless", "ratchet_session"
FORM = "application/x-www-form-urlencoded"


@dataclass
class Site:
    home: Home
    ledger: Ledger
    server: Server
    digest: str
    """Of the candidate that waits in DECISION."""
    secrets: list[str] = field(default_factory=list)
    """All that were ever made here."""

    def session(self, name: str, *roles: Role, **options: Any) -> str:
        code = self.code(name, *roles, **options)
        secret = self.ledger.people.redeem(code)[0]
        self.secrets.append(secret)
        return secret

    def code(self, name: str, *roles: Role, **options: Any) -> str:
        secret = self.ledger.people.invite(name, roles or tuple(Role), by="tester", **options).secret
        self.secrets.append(secret)
        return secret

    def token(self, name: str, *roles: Role, **options: Any) -> str:
        secret = self.ledger.people.token(name, roles or tuple(Role), by="tester", **options)[0]
        self.secrets.append(secret)
        return secret

    def visitor(self, secret: str | None = None, *, near: bool = False) -> Visitor:
        """Somebody from an address of their own, lest one test's wrong tokens slow the next."""
        from review_server import elsewhere

        return self.server.visitor(secret, address="127.0.0.1" if near else elsewhere())

    def heads(self) -> tuple[Any, ...]:
        return tuple(self.ledger.head(name) for name in (QUEUE, DECISION))

    def raw(self, *lines: str | bytes, body: bytes = b"") -> list[Reply]:
        """A request of these lines, whatever they say; a Host of ours unless they hold one."""
        from review_server import elsewhere, raw

        sent = [line if isinstance(line, bytes) else line.encode("latin-1") for line in lines]
        if not any(line.lower().startswith(b"host:") for line in sent):
            sent.append(b"Host: " + self.server.host.encode())
        sent.append(b"Connection: close")
        return raw(self.server.port, b"\r\n".join((*sent, b"", body)), address=elsewhere())


@pytest.fixture(scope="module")
def site(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One server that tells all it ever tells, over a queue of 2,000 comparisons and a candidate that waits."""
    from review_server import add_queue, serving

    from orchestrator.runner import read_state_at

    folder = tmp_path_factory.mktemp("attacked")
    shutil.copytree(prepared, folder / "home")
    home = Home(folder / "home")
    with home.ledger() as ledger:
        add_queue(home, ledger, 2000)
        digest = read_state_at(ledger, DECISION)[0].attempts[-1].candidate
        assert digest is not None
        with serving(home, folder / "log", "--access-log", debug=True) as server:
            yield Site(home, ledger, server, digest)


# --- who is asking --------------------------------------------------------------------------------------------


def test_an_own_session_opens_everything(site: Site) -> None:
    """Else the refusals below would prove nothing."""
    ana = site.visitor(site.session("ana"))
    assert ana.get("/").status == 200
    page = ana.get(f"/c/{QUEUE}/label")
    assert page.status == 200
    said = ana.send(f"/c/{QUEUE}/label", ticket=page.ticket, choice="tie")
    assert (said.status, said.told) == (303, "recorded.tie")
    assert ana.get(f"/c/{DECISION}/candidate").status == 200
    assert ana.api("GET", "/me").json["name"] == "ana"
    assert ana.api("GET", f"/campaigns/{DECISION}/candidate").json["digest"] == site.digest


def _revoked(site: Site) -> str:
    secret = site.session("rex")
    site.ledger.people.revoke("rex", by="tester")
    return secret


def _revoked_alone(site: Site) -> str:
    secret = site.session("sue")
    site.ledger.people.revoke_credential(site.ledger.people.authenticate(secret).credential, by="tester")
    return secret


def _used(site: Site) -> str:
    code = site.code("uma")
    site.secrets.append(site.ledger.people.redeem(code)[0])
    return code


def _ended(site: Site) -> str:
    secret = site.session("eve")
    assert site.visitor(secret).send("/leave").status == 303
    return secret


OPENS_NOTHING: dict[str, Callable[[Site], str | None]] = {
    "none": lambda site: None,
    "unknown": lambda site: "rtc_" + "A" * 43,
    "malformed": lambda site: "rtc_é'\"<>--",
    "too long": lambda site: "rtc_" + "A" * 5000,
    "cut": lambda site: site.session("ana")[:-1],
    "padded": lambda site: site.session("ana") + "=",
    "expired session": lambda site: site.token("ana", valid=timedelta(microseconds=1)),
    "revoked person": _revoked,
    "revoked credential": _revoked_alone,
    "signed out": _ended,
    "invitation": lambda site: site.code("ana"),
    "used invitation": _used,
}


@pytest.mark.parametrize("kind", OPENS_NOTHING)
def test_what_opens_nothing(site: Site, kind: str) -> None:
    secret = OPENS_NOTHING[kind](site)
    shown = "" if secret is None else secret.encode("utf-8").decode("latin-1")
    before = site.heads()
    ana = site.visitor(site.session("ana"))
    ticket = ana.get(f"/c/{QUEUE}/label").ticket
    stranger = site.visitor(shown or None)
    fields = {"ticket": ticket, "choice": "first", "mark": form_mark(shown)}
    replies = [
        stranger.get("/"),
        stranger.get(f"/c/{QUEUE}/label"),
        stranger.get(f"/c/{QUEUE}/label/{ticket}/left"),
        stranger.post(f"/c/{QUEUE}/label", fields, sec_fetch_site="same-origin"),
        stranger.get("/c/no-such/label"),
        stranger.api("GET", "/me"),
        stranger.api("GET", f"/campaigns/{QUEUE}/next"),
        stranger.api("POST", f"/campaigns/{QUEUE}/labels", {"ticket": ticket, "choice": "first"}),
        stranger.api("POST", f"/campaigns/{DECISION}/decision", {"nonsense": 1}),
        stranger.api("GET", "/campaigns/no-such/next"),
    ]
    assert [reply.status for reply in replies] == [401] * len(replies)
    assert all(reply.header("www-authenticate") == "Bearer" for reply in replies[5:])
    assert all(reply.json["error"] for reply in replies[5:])
    assert site.heads() == before


@pytest.mark.parametrize(
    ("make", "status"),
    [
        (_used, 410),
        (lambda site: site.session("ana"), 401),
        (lambda site: site.token("ana"), 401),
        (lambda site: site.code("ana", valid=timedelta(microseconds=1)), 401),
        (lambda site: "rti_" + "A" * 43, 401),
        (lambda site: "", 401),
        (lambda site: "rti_\x00\r\nSet-Cookie: a=b", 401),
        (lambda site: "x" * 50_000, 401),
    ],
    ids=["used", "session", "token", "expired", "unknown", "none", "injected", "long"],
)
def test_what_lets_nobody_in(site: Site, make: Callable[[Site], str], status: int) -> None:
    refused = site.visitor().join(make(site))
    assert (refused.status, refused.all("set-cookie")) == (status, [])


def test_a_revoked_invitation_lets_nobody_in(site: Site) -> None:
    code = site.code("ron")
    site.ledger.people.revoke("ron", by="tester")
    refused = site.visitor().join(code)
    assert (refused.status, refused.all("set-cookie")) == (401, [])


def test_two_browsers_that_open_one_link_at_once(site: Site) -> None:
    for _ in range(5):
        code, barrier = site.code("tim"), threading.Barrier(2)

        def join(browser: Visitor, code: str = code, barrier: threading.Barrier = barrier) -> Reply:
            barrier.wait()
            return browser.join(code)

        with ThreadPoolExecutor(2) as pool:
            replies = sorted(pool.map(join, [site.visitor(), site.visitor()]), key=lambda reply: reply.status)
        assert [reply.status for reply in replies] == [303, 410]
        assert [len(reply.all("set-cookie")) for reply in replies] == [1, 0]
        site.secrets.append(_cookie_in(replies[0]))


def _cookie_in(reply: Reply) -> str:
    (cookie,) = reply.all("set-cookie")
    return cookie.partition("=")[2].partition(";")[0]


def test_the_cookies_flags(site: Site) -> None:
    joined = site.visitor().join(site.code("flo"))
    (cookie,) = joined.all("set-cookie")
    site.secrets.append(_cookie_in(joined))
    flags = {flag.strip().lower() for flag in cookie.split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= flags
    assert not any(flag.startswith("domain") for flag in flags)


def test_whoever_is_shut_out_at_work_is_out_at_the_next_request(site: Site) -> None:
    bea, token = site.visitor(site.session("bea")), site.visitor(site.token("bea"))
    ticket = bea.get(f"/c/{QUEUE}/label").ticket
    assert token.api("GET", "/me").status == 200
    before = site.heads()
    site.ledger.people.revoke("bea", by="tester")
    refused = bea.send(f"/c/{QUEUE}/label", ticket=ticket, choice="first")
    assert refused.status == 401
    assert "max-age=0" in str(refused.header("set-cookie")).lower()
    assert token.api("POST", f"/campaigns/{QUEUE}/labels", {"ticket": ticket, "choice": "first"}).status == 401
    assert site.heads() == before


# --- what is whose --------------------------------------------------------------------------------------------


def test_what_is_another_persons(site: Site) -> None:
    ana, bo = site.visitor(site.session("ana")), site.visitor(site.session("bo"))
    ana_ticket = ana.get(f"/c/{QUEUE}/label").ticket
    mine = bo.get(f"/c/{QUEUE}/label").ticket
    assert bo.send(f"/c/{QUEUE}/label", ticket=mine, choice="first").status == 303
    before = site.heads()
    assert bo.send(f"/c/{QUEUE}/label", ticket=ana_ticket, choice="first").status == 403
    word = {"ticket": ana_ticket, "choice": "first"}
    assert bo.api("POST", f"/campaigns/{QUEUE}/labels", word).status == 403
    assert bo.api("POST", f"/campaigns/{DECISION}/labels", word).status == 404
    assert bo.get(f"/c/{QUEUE}/label/{ana_ticket}/left").status == 404
    assert ana.send(f"/c/{QUEUE}/undo", number="900").status == 303, "nothing to take back is no harm"
    assert site.heads() == before
    cy = site.visitor(site.session("cy"))
    assert cy.send(f"/c/{QUEUE}/undo").status == 422
    assert cy.api("POST", f"/campaigns/{QUEUE}/undo", {}).status == 422
    assert site.heads() == before


@pytest.mark.parametrize("role", [Role.LABELER, Role.AUDITOR])
def test_only_approvers_approve(site: Site, role: Role) -> None:
    someone = site.visitor(site.session(f"only {role}", role))
    before = site.heads()
    fields = {"decision": "approve", "digest": site.digest, "reason": "r", "typed": site.digest[:8]}
    settle = {"batch": "initial", "item": "0", "choice": "first", "reason": "r"}
    replies = [
        someone.get(f"/c/{DECISION}/candidate"),
        someone.send(f"/c/{DECISION}/candidate", **fields),
        someone.send(f"/c/{DECISION}/decision", **fields),
        someone.get(f"/c/{DECISION}/disagreements"),
        someone.send(f"/c/{DECISION}/disagreements", **settle),
        someone.api("GET", f"/campaigns/{DECISION}/candidate"),
        someone.api(
            "POST", f"/campaigns/{DECISION}/decision", {k: fields[k] for k in ("decision", "digest", "reason")}
        ),
        someone.api("GET", f"/campaigns/{DECISION}/disagreements"),
        someone.api("POST", f"/campaigns/{DECISION}/settlements", settle | {"item": 0}),
    ]
    assert [reply.status for reply in replies] == [403] * len(replies)
    assert site.heads() == before
    assert site.digest not in "".join(reply.text for reply in replies)


@pytest.mark.parametrize("role", [Role.APPROVER, Role.AUDITOR])
def test_only_labelers_label(site: Site, role: Role) -> None:
    name = f"just {role}"
    ticket = site.visitor(site.session(name, Role.LABELER)).get(f"/c/{QUEUE}/label").ticket
    site.ledger.people.revoke(name, by="tester")
    someone = site.visitor(site.session(name, role))
    before = site.heads()
    assert 'name="ticket"' not in someone.get(f"/c/{QUEUE}/label").text
    assert someone.api("GET", f"/campaigns/{QUEUE}/next").json["comparison"] is None
    assert someone.send(f"/c/{QUEUE}/label", ticket=ticket, choice="first").status == 403
    word = {"ticket": ticket, "choice": "first"}
    assert someone.api("POST", f"/campaigns/{QUEUE}/labels", word).status == 403
    assert site.heads() == before


def test_a_role_in_another_campaign_is_none_here(site: Site) -> None:
    guest = site.visitor(site.session("guest", campaigns=[QUEUE]))
    assert guest.get(f"/c/{QUEUE}/label").status == 200
    before = site.heads()
    fields = {"decision": "approve", "digest": site.digest, "reason": "r", "typed": site.digest[:8]}
    for path in ("label", "candidate", "history", "guidelines", "disagreements"):
        here, nowhere = guest.get(f"/c/{DECISION}/{path}"), guest.get(f"/c/no-such/{path}")
        assert (here.status, nowhere.status) == (403, 403)
        assert here.text == nowhere.text, "nobody learns which campaigns there are"
    assert guest.send(f"/c/{DECISION}/decision", **fields).status == 403
    for path in ("next", "history", "candidate", "disagreements"):
        here, nowhere = (guest.api("GET", f"/campaigns/{name}/{path}") for name in (DECISION, "no-such"))
        assert (here.status, here.json) == (nowhere.status, nowhere.json)
        assert here.status == 403
    assert [campaign["name"] for campaign in guest.api("GET", "/campaigns").json] == [QUEUE]
    assert site.heads() == before


# --- other sites ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "origin": "http://HOST"},
        {"origin": "https://evil.example"},
        {"origin": "http://HOST.evil.example"},
        {"origin": "http://evil.example@HOST"},
        {"origin": "null", "sec-fetch-site": "cross-site"},
    ],
    ids=str,
)
def test_another_site_posts_nothing_even_with_cookie_and_mark(site: Site, headers: dict[str, str]) -> None:
    ana = site.visitor(site.session("ana"))
    fields = {"ticket": ana.get(f"/c/{QUEUE}/label").ticket, "choice": "first", "mark": form_mark(str(ana.secret))}
    before = site.heads()
    sent = {name.replace("-", "_"): value.replace("HOST", site.server.host) for name, value in headers.items()}
    for path in (f"/c/{QUEUE}/label", f"/c/{QUEUE}/undo", f"/c/{DECISION}/decision", "/leave"):
        assert ana.post(path, fields, **sent).status == 403
    assert ana.post("/join", {"code": site.code("bo")}, **sent).status == 403
    assert ana.get("/").status == 200, "nobody was signed out"
    assert site.heads() == before


@pytest.mark.parametrize("mark", ["none", "empty", "another person's", "another session's", "the secret"])
def test_a_form_needs_the_mark_of_its_own_session(site: Site, mark: str) -> None:
    ana = site.visitor(site.session("ana"))
    secret = str(ana.secret)
    given = {
        "none": None,
        "empty": "",
        "another person's": form_mark(site.session("bo")),
        "another session's": form_mark(site.session("ana")),
        "the secret": secret,
    }[mark]
    fields = {"ticket": ana.get(f"/c/{QUEUE}/label").ticket, "choice": "first"}
    before = site.heads()
    with_mark = fields if given is None else fields | {"mark": given}
    assert ana.post(f"/c/{QUEUE}/label", with_mark, sec_fetch_site="same-origin").status == 403
    assert ana.post("/leave", {} if given is None else {"mark": given}, sec_fetch_site="none").status == 403
    assert site.heads() == before


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "text/plain",
        "multipart/form-data; boundary=b",
        "",
        "text/plain; application/x-www-form-urlencoded",
    ],
)
def test_forms_of_other_kinds_are_not_read(site: Site, kind: str) -> None:
    ana = site.visitor(site.session("ana"))
    ticket, mark = ana.get(f"/c/{QUEUE}/label").ticket, form_mark(str(ana.secret))
    before = site.heads()
    body = f"mark={mark}&ticket={ticket}&choice=first".encode()
    headers = {"cookie": f"{COOKIE}={ana.secret}", "sec-fetch-site": "same-origin", "content-type": kind}
    assert ana.ask("POST", f"/c/{QUEUE}/label", body, headers).status == 422
    assert site.heads() == before


def test_the_api_takes_no_cookie(site: Site) -> None:
    ana = site.visitor(site.session("ana"))
    ticket = ana.get(f"/c/{QUEUE}/label").ticket
    body = json.dumps({"ticket": ticket, "choice": "first"}).encode()
    for kind in ("application/json", "text/plain", FORM):
        headers = {"cookie": f"{COOKIE}={ana.secret}", "content-type": kind}
        assert ana.ask("POST", f"/api/v1/campaigns/{QUEUE}/labels", body, headers).status == 401


def test_reading_changes_nothing(site: Site) -> None:
    ana = site.visitor(site.session("ana"))
    ticket, mark = ana.get(f"/c/{QUEUE}/label").ticket, form_mark(str(ana.secret))
    before = site.heads()
    query = f"?mark={mark}&ticket={ticket}&choice=first&decision=approve&digest={site.digest}&typed={site.digest[:8]}"
    for path, status in ((f"/c/{QUEUE}/label", 200), (f"/c/{QUEUE}/undo", 405), (f"/c/{DECISION}/decision", 405)):
        assert ana.get(path + query + "&reason=r&_method=POST").status == status
        for header in ("x-http-method-override", "x-http-method", "x-method-override"):
            assert ana.get(path + query, **{header.replace("-", "_"): "POST"}).status == status
    assert ana.get("/leave" + query).status == 405
    assert ana.get("/").status == 200
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "LABEL"):
        for path in (f"/c/{QUEUE}/label", f"/api/v1/campaigns/{QUEUE}/labels"):
            assert ana.ask(method, path, headers={"cookie": f"{COOKIE}={ana.secret}"}).status == 405
    assert site.heads() == before


# --- names and addresses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "evil.example:80", "127.0.0.1@evil.example", "", "localhost:x", "[::1",
     "127.0.0.1:123456", "127.0.0.1, evil.example", "127.0.0.1/evil", "0x7f.1", "::1", "127.0.0.1\x00"],
)  # fmt: skip
def test_other_hosts_names(site: Site, host: str) -> None:
    (reply,) = site.raw("GET /join HTTP/1.1", f"Host: {host}")
    assert reply.status in (400, 421)
    assert host == "" or host not in reply.text


def test_forwarded_names_count_for_nothing(site: Site) -> None:
    forwarded = ("X-Forwarded-Host: evil.example", "X-Forwarded-Proto: https", "Forwarded: host=evil.example")
    (reply,) = site.raw("GET /join HTTP/1.1", *forwarded)
    assert reply.status == 200
    assert "evil.example" not in reply.text + str(reply.headers)
    (reply,) = site.raw("GET /join HTTP/1.1", "Host: evil.example", f"X-Forwarded-Host: {site.server.host}")
    assert reply.status == 421


def test_two_hosts_or_none(site: Site) -> None:
    ours = f"Host: {site.server.host}"
    for lines in (("Host: evil.example", ours), (ours, "Host: evil.example"), (ours, ours)):
        (reply,) = site.raw("GET /join HTTP/1.1", *lines)
        assert reply.status in (400, 421)
    from review_server import elsewhere, raw

    for version in ("1.0", "1.1"):
        (reply,) = raw(
            site.server.port, f"GET /join HTTP/{version}\r\nConnection: close\r\n\r\n".encode(), address=elsewhere()
        )
        assert reply.status in (400, 421)


def test_a_whole_address_for_a_path(site: Site) -> None:
    """No proxy asks us; a path is a path."""
    for target in ("http://evil.example/join", f"http://{site.server.host}/join", "//evil.example/join", "*", "join"):
        (reply,) = site.raw(f"GET {target} HTTP/1.1")
        assert reply.status in (400, 404)
        assert reply.header("location") is None


@pytest.mark.parametrize(
    "path",
    ["/static/../app.py", "/static/%2e%2e/%2e%2e/app.py", "/static/x/..%2f..%2fapp.py", "/static/x/../../app.py",
     "/static//etc/passwd", "/static/x/%2fetc%2fpasswd", "/static/x/app.py%00.js", "/static/x/..\\..\\app.py",
     "/static/", "/static", "/templates/home.html", "/c/../../etc/passwd", "/%c0%ae%c0%ae/etc/passwd"],
)  # fmt: skip
def test_no_path_leads_out(site: Site, path: str) -> None:
    (reply,) = site.raw(f"GET {path} HTTP/1.1")
    assert reply.status in (400, 404)
    assert "import" not in reply.text


@pytest.mark.parametrize("path", ["/c/%0d%0aX-Bad:%20yes/label", "/c/a%0aX-Bad: b/history", "/%0d%0aX-Bad:yes"])
def test_no_line_of_an_address_becomes_a_header(site: Site, path: str) -> None:
    ana = site.session("ana")
    sent = path.replace(" ", "%20")
    for extra in ((), (f"Cookie: {COOKIE}={ana}",), ("Sec-Fetch-Site: cross-site",)):
        (reply,) = site.raw(f"GET {sent} HTTP/1.1", *extra)
        assert reply.status in (400, 401, 403, 404)
        assert reply.header("x-bad") is None
    one = site.visitor(ana)
    page = one.get(f"/c/{QUEUE}/label")
    for told in ("told=recorded.first%0d%0aX-Bad:%20yes", "told=%0d%0aX-Bad:yes", "next=//evil.example%0d%0aX-Bad:y"):
        reply = one.get(f"/c/{QUEUE}/label?{told}")
        assert (reply.status, reply.header("x-bad"), reply.ticket) == (200, None, page.ticket)
    said = one.send(f"/c/{QUEUE}/label?next=//evil.example", ticket=page.ticket, choice="first", next="//evil.example")
    assert str(said.header("location")).startswith(f"/c/{QUEUE}/label?told=")


def test_no_line_of_a_cookie_or_token_becomes_a_header(site: Site) -> None:
    for lines in ((f"Cookie: {COOKIE}=a\rX-Bad: yes",), ("Authorization: Bearer a\nX-Bad: yes",), ("A\x00b: c",)):
        (reply,) = site.raw("GET / HTTP/1.1", *lines)
        assert reply.status in (400, 401)
        assert reply.header("x-bad") is None


def test_nobody_is_slowed_as_whoever_they_say_they_are(site: Site) -> None:
    """Without a proxy before it, the server believes nobody about addresses: wrong tokens are counted all the same."""
    guesser = site.visitor("rtc_" + "B" * 43)
    statuses = [guesser.api("GET", "/me", x_forwarded_for=f"10.0.0.{n}").status for n in range(60)]
    assert statuses[:20] == [401] * 20
    assert statuses[-1] == 429
    guesser.secret = site.token("ana")
    assert guesser.api("GET", "/me").status == 200, "whoever has a right one is not held up by the wrong ones"


def test_behind_a_proxy_with_tls(site: Site, tmp_path: Path) -> None:
    from review_server import serving

    with serving(site.home, tmp_path / "log", "--public-url", "https://Review.example.org") as server:
        ours = {"host": "review.example.org", "content-type": FORM}
        browser = server.visitor()

        def join(**headers: str) -> Reply:
            body = b"code=" + site.code("tia").encode()
            return browser.ask("POST", "/join", body, ours | {k.replace("_", "-"): v for k, v in headers.items()})

        assert join(origin="https://evil.example").status == 403
        assert join(origin="https://review.example.org.evil.example").status == 403
        assert join(origin="https://review.example.org", host="evil.example").status == 421
        joined = join(origin="https://review.example.org", x_forwarded_for="10.1.1.1")
        assert joined.status == 303
        (cookie,) = joined.all("set-cookie")
        site.secrets.append(_cookie_in(joined))
        assert cookie.startswith("__Host-ratchet_session=")
        flags = {flag.strip().lower() for flag in cookie.split(";")[1:]}
        assert {"secure", "httponly", "samesite=strict", "path=/"} <= flags
        assert str(joined.header("strict-transport-security")).startswith("max-age=")
        plain = {"host": "review.example.org", "cookie": f"{COOKIE}={site.secrets[-1]}"}
        assert browser.ask("GET", "/", headers=plain).status == 401, "a cookie that anybody could have set"
        signed = {"host": "review.example.org", "cookie": f"__Host-{COOKIE}={site.secrets[-1]}"}
        assert browser.ask("GET", "/", headers=signed).status == 200
        # What a proxy says of addresses counts: of two behind it, one is held up.
        guess = {"host": "review.example.org", "authorization": f"Bearer rtc_{'C' * 43}"}
        statuses = [
            browser.ask("GET", "/api/v1/me", headers=guess | {"x-forwarded-for": "10.2.2.2"}) for _ in range(60)
        ]
        assert statuses[-1].status == 429
        assert browser.ask("GET", "/api/v1/me", headers=guess | {"x-forwarded-for": "10.3.3.3"}).status == 401


SMUGGLED = b"GET /join HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: 5"),
        ("Content-Length: 5", "Content-Length: 6"),
        ("Content-Length: 5, 6",),
        ("Content-Length: -1",),
        ("Content-Length: +5",),
        ("Content-Length: 0x5",),
        ("Content-Length: 1e1",),
        ("Content-Length: 5 5",),
        ("Transfer-Encoding: chunked, identity",),
        ("Transfer-Encoding: xchunked",),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding : chunked",),
        ("Transfer-Encoding:\x0bchunked",),
        ("Content-Length : 5",),
    ],
    ids=str,
)
def test_a_request_of_two_lengths_is_none(site: Site, lines: tuple[str, ...]) -> None:
    """Where a proxy and the server disagree on where a request ends, the next person's begins in the wrong place."""
    body = b"0\r\n\r\n" + SMUGGLED.replace(b"HOST", site.server.host.encode())
    replies = site.raw("POST /join HTTP/1.1", f"Content-Type: {FORM}", *lines, body=body)
    assert [reply.status // 100 for reply in replies] == [4], "one answer, and nothing behind it is a request"
    assert replies[0].status in (400, 413)


def test_a_get_with_a_body_ends_where_it_says(site: Site) -> None:
    inner = b"GET /static/x HTTP/1.1\r\nHost: a\r\n\r\n"
    replies = site.raw("GET /join HTTP/1.1", f"Content-Length: {len(inner)}", body=inner)
    assert [reply.status for reply in replies] == [200]


# --- the walls ------------------------------------------------------------------------------------------------


def _walls_of(reply: Reply) -> None:
    policy = str(reply.header("content-security-policy"))
    for wall in ("default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"):
        assert wall in policy, reply
    assert "unsafe" not in policy
    assert reply.header("x-frame-options") == "DENY", reply
    assert reply.header("x-content-type-options") == "nosniff"
    assert reply.header("referrer-policy") == "no-referrer"
    assert reply.header("cross-origin-opener-policy") == "same-origin"
    assert reply.header("cache-control") is not None
    assert reply.header("server") is None
    assert len(reply.all("content-security-policy")) == 1


def test_every_answer_carries_the_walls(site: Site) -> None:
    ana = site.visitor(site.session("ana"))
    found = re.findall(r'(?:href|src)="(/static/[^"]+)"', ana.get("/").text)
    assert found
    replies = [
        *(ana.get(path) for path in ("/", f"/c/{QUEUE}/label", "/help", "/nowhere", "/leave", *found)),
        ana.get("/static/0000000000000000/nothing.css"),
        ana.send(f"/c/{QUEUE}/undo", number="12x"),
        ana.post(f"/c/{QUEUE}/label", {}),
        ana.api("GET", "/me"),
        ana.api("GET", "/nowhere"),
        ana.api("POST", f"/campaigns/{QUEUE}/labels", {}),
        ana.ask("GET", "/api/v1/openapi.json"),
        ana.ask("HEAD", "/join"),
        ana.ask("POST", "/join", b"x" * 70_000),
        site.visitor().get("/"),
        *site.raw("GET / HTTP/1.1", "Host: evil.example"),
        *site.raw("nonsense"),
        *site.raw("GET / HTTP/1.1", "bad header"),
        *site.raw("GET / HTTP/9.9"),
        *site.raw("GET /join HTTP/1.1", "X: " + "x" * 300_000),
        *site.raw("GET /" + "x" * 300_000 + " HTTP/1.1"),
        *site.raw("GET / HTTP/1.1", "Upgrade: websocket", "Sec-WebSocket-Key: a", "Sec-WebSocket-Version: 13"),
    ]
    assert {200, 303, 400, 401, 403, 404, 405, 413, 421, 422} <= {reply.status for reply in replies} | {303}
    for reply in replies:
        assert reply.status < 500
        _walls_of(reply)


@pytest.mark.parametrize(
    "request_",
    [
        ("GET /join HTTP/1.1", *(f"x{n}: y" for n in range(100_000))),
        ("GET /join HTTP/1.1", "X: " + "x" * 1_000_000),
        ("GET /join HTTP/1.1", "X: " + "x" * 20_000),
        ("GET /join HTTP/1.1", *(["x: y"] * 5000)),
        ("GET /" + "x" * 1_000_000 + " HTTP/1.1",),
        ("G" * 1_000_000,),
    ],
    ids=["100,000 headers", "1 MB header", "20 kB header", "5,000 headers", "1 MB address", "1 MB method"],
)
def test_what_is_too_long_to_be_a_request(site: Site, request_: tuple[str, ...]) -> None:
    replies = site.raw(*request_)
    assert [reply.status for reply in replies] in ([400], [431], []), "empty: reset while it was still sending"
    assert site.visitor().get("/join").status == 200


# --- what gets out --------------------------------------------------------------------------------------------


def test_no_secret_gets_out(site: Site, prepared: Path, tmp_path: Path) -> None:
    """Of a server that logs all it can, of its answers, its database, and the ledger that goes to others."""
    from review_server import add_queue, serving

    home = Home(tmp_path / "home")
    home.create()
    replies: list[Reply] = []
    with home.ledger() as ledger:
        add_queue(home, ledger, 5)
        code, other = (ledger.people.invite(name, tuple(Role), by="tester").secret for name in ("ana", "bo"))
        token = ledger.people.token("ana", tuple(Role), by="tester")[0]
        with serving(home, tmp_path / "log", "--access-log", debug=True) as server:
            browser = server.visitor()
            replies.append(joined := browser.join(code))
            secret = _cookie_in(joined)
            browser.secret = secret
            query = f"?code={other}&token={token}&session={secret}"
            replies += [
                page := browser.get(f"/c/{QUEUE}/label{query}", referer=f"http://{server.host}/join{query}"),
                browser.send(f"/c/{QUEUE}/label{query}", ticket=page.ticket, choice="first", code=other, token=token),
                browser.get(f"/c/{QUEUE}/history"),
                browser.send(f"/c/{QUEUE}/undo", number="1"),
                browser.send(f"/c/{QUEUE}/label", ticket=secret, choice=token),
                browser.post(f"/c/{QUEUE}/label", {"mark": secret, "ticket": token}),
                browser.join(code),
                browser.join(token),
                browser.api("GET", f"/me{query}"),
                browser.api("POST", f"/campaigns/{QUEUE}/labels", {"ticket": token, "choice": secret}),
                server.visitor(other).api("GET", "/me"),
                server.visitor(token).api("GET", "/me"),
                browser.ask("POST", f"/api/v1/campaigns/{QUEUE}/labels", b"{" + token.encode()),
            ]
            ledger.people.revoke("ana", by="tester")
            replies += [browser.get("/"), server.visitor(token).api("GET", "/me")]
            logged = server.said()
    assert " 303 " in logged, "it does log requests"
    ratchet = (sys.executable, "-m", "orchestrator.cli.main", "--home", str(home.root))
    exported = subprocess.run((*ratchet, "ledger", "export", QUEUE), stdout=subprocess.PIPE, check=True).stdout
    assert b"labels_recorded" in exported
    replies.remove(joined)
    answered = "\n".join(f"{reply.headers}\n{reply.text}" for reply in replies)
    files = b"".join(path.read_bytes() for path in home.root.rglob("*") if path.is_file())
    assert b"labels_recorded" in files
    for hidden in (code, other, token, secret):
        assert hidden not in logged
        assert hidden not in answered
        assert hidden.encode() not in exported
        assert hidden.encode() not in files
        assert hidden not in joined.text
    assert [key for key, value in joined.headers if secret in value] == ["set-cookie"]


def test_nothing_was_told_of_all_these_attacks(site: Site) -> None:
    """After all of the above that was run: no traceback, no secret, and no mistake of the server's own."""
    assert site.visitor(site.session("ana")).get("/").status == 200
    logged = site.server.said()
    assert "GET / 200" in logged
    assert not [secret for secret in site.secrets if secret in logged]
    assert "Traceback" not in logged
    assert not re.search(r" 5\d\d \d+\.\d ms", logged)
