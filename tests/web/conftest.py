"""The review site over real campaigns: one waits for labels, one for a decision. Made once, copied for each test."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from orchestrator.core.records import Role
from orchestrator.home import Home
from orchestrator.store.ledger import Ledger
from orchestrator.web.app import create_app
from orchestrator.web.limits import Limits
from orchestrator.web.server import listen, make_server
from orchestrator.web.sessions import form_mark

LABELS, DECISION = "helpful", "harmless"
"""The campaign that waits for 12 labels of two people each, and the one whose candidate wants two approvals."""
COOKIE = "ratchet_session"


@pytest.fixture(scope="session")
def prepared(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from small_campaigns import Small, with_people

    small = Small(tiny_base, tmp_path_factory.mktemp("site"))
    feedback = {"initial_labels": 12, "raters_per_item": 2, "guidelines": "Prefer what is true.\nHarm comes first."}
    small.campaign(**with_people(name=LABELS, feedback=feedback)).run()
    small.campaign(**with_people(name=DECISION, approval={"approvers": 2, "owner": "olga"})).run_until_candidate()
    small.close()
    return small.folder / "home"


@dataclass
class Place:
    """A ledger of its own, and the site over it."""

    home: Home
    ledger: Ledger
    options: dict[str, Any] = field(default_factory=dict)

    def app(self, **options: Any) -> FastAPI:
        return create_app(self.ledger, self.home.artifacts(), **{"allowed_hosts": ["testserver"], **options})

    def code(self, name: str, *roles: Role, **options: Any) -> str:
        return self.ledger.people.invite(name, roles or tuple(Role), by="tester", **options).secret

    def token(self, name: str, *roles: Role, **options: Any) -> str:
        return self.ledger.people.token(name, roles or tuple(Role), by="tester", **options)[0]

    def client(self, name: str | None = None, *roles: Role, app: FastAPI | None = None) -> Browser:
        """A browser without script; with a name, signed in."""
        browser = Browser(app or self.app(limits=Limits()), follow_redirects=False)
        if name is not None:
            joined = browser.post("/join", data={"code": self.code(name, *roles)})
            assert joined.status_code == 303
        return browser


class Browser(TestClient):
    @property
    def secret(self) -> str:
        return self.cookies[COOKIE]

    def send_form(self, path: str, **fields: Any) -> Any:
        """Post a form as our own pages do."""
        data = {"mark": form_mark(self.secret), **fields}
        return self.post(path, data=data, headers={"sec-fetch-site": "same-origin"})


@pytest.fixture
def place(prepared: Path, tmp_path: Path) -> Iterator[Place]:
    root = tmp_path / "home"
    shutil.copytree(prepared, root)
    home = Home(root)
    with home.ledger() as ledger:
        yield Place(home, ledger)


@contextmanager
def _serving(app: FastAPI, **options: Any) -> Iterator[int]:
    with listen("127.0.0.1", 0) as taken:
        server = make_server(app, **options)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]}, daemon=True)
        thread.start()
        try:
            yield taken.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(20)


@pytest.fixture
def serving() -> Callable[..., Any]:
    """Runs an application on a free port of this machine, as `ratchet review serve` does."""
    return _serving
