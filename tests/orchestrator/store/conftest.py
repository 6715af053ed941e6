"""The ledger's two homes: a file, and the PostgreSQL that RATCHET_TEST_POSTGRES_URL names."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from orchestrator.store.ledger import Ledger


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A place for a new ledger."""
    if request.param == "sqlite":
        yield str(tmp_path / "home" / "ledger.db")
        return
    if "RATCHET_TEST_POSTGRES_URL" not in os.environ:
        pytest.skip("needs a PostgreSQL: set RATCHET_TEST_POSTGRES_URL")
    url = make_url(os.environ["RATCHET_TEST_POSTGRES_URL"]).set(drivername="postgresql+psycopg")
    name = f"test_{uuid.uuid4().hex}"
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {name}"))
    yield url.update_query_dict({"options": f"-csearch_path={name}"}).render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {name} CASCADE"))
    engine.dispose()


@pytest.fixture
def ledger(where: str) -> Iterator[Ledger]:
    """A ledger with the empty campaign "memo"."""
    with Ledger.open(where) as ledger:
        ledger.create_campaign("memo")
        yield ledger
