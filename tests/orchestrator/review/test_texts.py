"""Reading comparisons row by row, and across hosts."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_campaigns import Campaign, Small, with_people

from orchestrator.artifacts import ROWS, ArtifactStore
from orchestrator.campaigns import create
from orchestrator.core import events as ev
from orchestrator.core.commands import AskForLabels
from orchestrator.core.envelope import EventDraft, StoredEvent
from orchestrator.errors import ArtifactCorruptError, ArtifactMissingError, UsageError
from orchestrator.home import Home
from orchestrator.review.texts import Comparison, Comparisons
from orchestrator.store.ledger import Ledger

Texts = tuple[str, str, str]


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def published(store: ArtifactStore, rows: list[Texts]) -> str:
    named = [
        {"item": item, "prompt": prompt, "response_1": first, "response_2": second}
        for item, (prompt, first, second) in enumerate(rows)
    ]
    return store.publish_lines("comparisons", named)


@given(st.lists(st.tuples(st.text(), st.text(), st.text()), max_size=8))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_row_is_read_as_it_was_written(store: ArtifactStore, rows: list[Texts]) -> None:
    comparisons = Comparisons(store, published(store, rows))
    assert len(comparisons) == len(rows)
    for item in reversed(range(len(rows))):
        assert comparisons.row(item) == Comparison(*rows[item])
    for outside in (-1, len(rows)):
        with pytest.raises(UsageError, match=f"the batch has {len(rows)}"):
            comparisons.row(outside)
    comparisons.close()


def test_rows_longer_than_what_is_read_at_once(store: ArtifactStore, tmp_path: Path) -> None:
    rows = [(f"p{n}", "x" * n * 700_000, "\n\r\u2028") for n in range(6)]
    comparisons = Comparisons(store, published(store, rows))
    with ThreadPoolExecutor(8) as threads:
        read = list(threads.map(comparisons.row, [n % 6 for n in range(60)]))
    assert read == [Comparison(*rows[n % 6]) for n in range(60)]
    assert list((tmp_path / "store" / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"item": 1, "prompt": "p", "response_1": "a", "response_2": "b"}\n', "it is item 1"),
        (b'{"item": 0, "prompt": "p", "response_1": "a"}\n', "response_2"),
        (b'{"item": 0, "prompt": "p", "response_1": "a", "response_2": ["b"]}\n', "is not"),
        (b"[]\n", "line 1"),
        (b"\xff\n", "line 1"),
        (b"[" * 100_000 + b"\n", "line 1"),
    ],
)
def test_what_is_no_comparison_is_said_to_be_none(store: ArtifactStore, line: bytes, told: str) -> None:
    with store.staging() as folder:
        (folder / ROWS).write_bytes(gzip.compress(line, mtime=0))
        digest = store.publish(folder, kind="comparisons")
    comparisons = Comparisons(store, digest)
    with pytest.raises(ArtifactCorruptError, match=told):
        comparisons.row(0)


@pytest.mark.parametrize(
    "data", [b"no gzip", gzip.compress(b"{}", mtime=0), gzip.compress(b"{}\n" * 999, mtime=0)[:-9], None]
)
def test_what_is_no_file_of_comparisons(store: ArtifactStore, data: bytes | None) -> None:
    with store.staging() as folder:
        (folder / ("other" if data is None else ROWS)).write_bytes(data or b"")
        digest = store.publish(folder, kind="comparisons")
    with pytest.raises(ArtifactCorruptError, match="no comparisons"):
        Comparisons(store, digest)


def test_an_edited_file_is_not_read(store: ArtifactStore) -> None:
    digest = published(store, [("p", "a", "b")])
    file = store.open(digest) / ROWS
    file.chmod(0o600)
    file.write_bytes(gzip.compress(b'{"item": 0, "prompt": "p", "response_1": "a", "response_2": "c"}\n', mtime=0))
    with pytest.raises(ArtifactCorruptError):
        Comparisons(ArtifactStore(file.parents[2]), digest)


def test_another_host_reads_what_people_are_asked(small: Small, where: str, tmp_path: Path) -> None:
    """Provided that both share a server's database; where it is a file, nothing is copied."""
    home = Home(small.folder / "home", where)
    create(small.settings(**with_people()), home, author="tester")
    with home.ledger() as ledger:
        campaign = Campaign(home, small.settings(**with_people()), ledger)
        asked = campaign.runner().run().waiting_for
        assert isinstance(asked, AskForLabels)
        digest = asked.batch.comparisons
        samples = [event.body.samples for event in campaign.events if isinstance(event.body, ev.Evaluated)]
        assert len(samples) == 1
        elsewhere = Home(tmp_path / "elsewhere", where).artifacts()
        if ledger.is_local:
            with pytest.raises(ArtifactMissingError):
                Comparisons(elsewhere, digest)
            assert not any(ledger.texts.has(text) for text in (digest, *samples))
            return
        comparisons = Comparisons(elsewhere, digest)
        assert len(comparisons) == asked.batch.count
        for row in home.artifacts().read_lines(digest):
            wanted = Comparison(row["prompt"], row["response_1"], row["response_2"])
            assert comparisons.row(row["item"]) == wanted
        assert list(elsewhere.read_lines(samples[0])) == list(home.artifacts().read_lines(samples[0]))
        assert set(elsewhere.digests()) == {digest, *samples}
        base = next(event.body.checkpoint for event in campaign.events if isinstance(event.body, ev.BaseReady))
        with pytest.raises(ArtifactMissingError, match="where its artifacts lie"):
            elsewhere.open(base)


def test_texts_are_there_before_the_event_that_names_them(
    small: Small, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads the newest event finds its text, though they ask at that very moment."""
    home = Home(small.folder / "home", where)
    create(small.settings(**with_people()), home, author="tester")
    named: dict[str, bool] = {}
    append = Ledger.append

    def watched(ledger: Ledger, campaign: str, drafts: Sequence[EventDraft], **options: Any) -> tuple[StoredEvent, ...]:
        for body in (draft.body for draft in drafts):
            if (digest := body.get("comparisons") or body.get("samples")) is not None:
                named[digest] = ledger.texts.has(digest)
        return append(ledger, campaign, drafts, **options)

    monkeypatch.setattr(Ledger, "append", watched)
    with home.ledger() as ledger:
        Campaign(home, small.settings(**with_people()), ledger).runner().run()
        assert list(named.values()) == [not ledger.is_local] * 2
