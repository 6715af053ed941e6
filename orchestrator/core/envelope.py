"""The envelope around every event, and the hash chain that its rows form.

Pure: the ledger stores these rows, `ratchet ledger verify` and the tests recompute them. An event's hash covers all
its other columns, the hash of the event before it included, so no row can be edited, moved or dropped without
breaking the chain behind it. Dropping the tail leaves a shorter, whole chain: that shows against the head, which
the ledger keeps beside the chain, and against a head that was noted elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from orchestrator.core.canonical import Digest, canonical_json, digest_of
from orchestrator.core.verification import Problem

GENESIS_HASH: Digest = "0" * 64
"""What a campaign's first event names as the event before it."""


@dataclass(frozen=True, slots=True)
class EventDraft:
    """What somebody wants recorded."""

    type: str
    body: Mapping[str, Any]
    """Plain JSON values. Texts and tensors live in artifacts; events carry their digests."""
    command_id: str
    """Names the intention: a repeated command carries the same one and is recorded once."""
    author: str
    reason: str = ""
    version: int = 1
    """Of the body's schema for this type."""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One event of the ledger, as it was recorded."""

    campaign: str
    seq: int
    """0, 1, 2, … within the campaign: the only order that counts, since clocks jump."""
    type: str
    version: int
    command_id: str
    author: str
    reason: str
    time: datetime
    epoch: int | None
    """Of the controller that wrote it; None for a person's event."""
    body_json: str
    """The canonical JSON text that the hash covers."""
    prev_hash: Digest
    hash: Digest

    @property
    def body(self) -> dict[str, Any]:
        """The parsed body, a fresh copy."""
        body: dict[str, Any] = json.loads(self.body_json)
        return body

    def repeats(self, draft: EventDraft) -> bool:
        """Whether the draft asks for nothing but this event."""
        return (self.type, self.version, self.author, self.reason, self.body_json) == (
            draft.type,
            draft.version,
            draft.author,
            draft.reason,
            canonical_json(dict(draft.body)),
        )


@dataclass(frozen=True, slots=True)
class Head:
    """The last event of a campaign."""

    seq: int
    hash: Digest


EMPTY_HEAD = Head(seq=-1, hash=GENESIS_HASH)


def draft_problem(draft: EventDraft) -> str | None:
    """Say why a draft cannot become an event, if it cannot."""
    for name in ("type", "command_id", "author"):
        if not getattr(draft, name):
            return f"it has no {name}"
    for name in ("type", "command_id", "author", "reason"):
        if not _is_storable(getattr(draft, name)):
            return f"its {name} holds a NUL or bytes that are no valid Unicode"
    try:
        canonical_json(dict(draft.body))
    except (ValueError, TypeError) as error:
        return f"its body has no canonical form: {error}"
    return None


def seal(draft: EventDraft, *, campaign: str, after: Head, time: datetime, epoch: int | None) -> StoredEvent:
    """Put a draft that has no problem into its envelope, as the event behind `after`.

    Args:
        time: aware.
    """
    unsealed = StoredEvent(
        campaign=campaign,
        seq=after.seq + 1,
        type=draft.type,
        version=draft.version,
        command_id=draft.command_id,
        author=draft.author,
        reason=draft.reason,
        time=time.astimezone(UTC),
        epoch=epoch,
        body_json=canonical_json(dict(draft.body)),
        prev_hash=after.hash,
        hash="",
    )
    return replace(unsealed, hash=row_hash(to_row(unsealed)))


def to_row(event: StoredEvent) -> dict[str, Any]:
    """The event's columns, as the database and the hash see them."""
    row = asdict(event)
    row["time"] = event.time.isoformat(timespec="microseconds")
    row["body"] = row.pop("body_json")
    return row


def from_row(row: Mapping[str, Any]) -> StoredEvent:
    """Read an event back from columns that `row_problem` found nothing wrong with."""
    columns = dict(row)
    columns["time"] = datetime.fromisoformat(columns["time"])
    columns["body_json"] = columns.pop("body")
    return StoredEvent(**columns)


def row_hash(row: Mapping[str, Any]) -> Digest:
    """Digest all columns but the hash itself."""
    return digest_of({name: value for name, value in row.items() if name != "hash"})


def row_problem(row: Mapping[str, Any]) -> str | None:
    """Say what is wrong with one row taken by itself, if anything is."""
    try:
        if row_hash(row) != row["hash"]:
            return "the row does not match its hash: it was edited"
        if to_row(from_row(row)) != dict(row):
            return "the time is not in the form that the ledger writes"
        if canonical_json(json.loads(row["body"])) != row["body"]:
            return "the body is not canonical JSON"
    except (ValueError, TypeError, RecursionError) as error:
        return f"the row cannot be read: {error}"
    return None


def chain_problems(rows: Iterable[Mapping[str, Any]], head: Head, *, after: Head) -> Iterator[Problem]:
    """Walk rows in order of seq, from the one behind `after` to the head, and name every break."""
    expected = after
    for row in rows:
        seq = row["seq"]
        where = f"event {seq}"
        if not isinstance(seq, int):
            yield Problem(where, "the sequence number is not a number")
            continue
        if seq <= expected.seq:
            yield Problem(where, f"out of order behind event {expected.seq}")
        elif seq > expected.seq + 1:
            yield Problem(where, f"{_span(expected.seq + 1, seq - 1)} missing before it")
        elif row["prev_hash"] != expected.hash:
            yield Problem(where, "it does not follow from the event before it")
        if (what := row_problem(row)) is not None:
            yield Problem(where, what)
        expected = Head(seq, row["hash"])
    if expected.seq < head.seq:
        yield Problem("head", f"{_span(expected.seq + 1, head.seq)} missing at the end")
    elif expected != head:
        yield Problem("head", f"the recorded head is not the last event ({expected.seq})")


def _span(first: int, last: int) -> str:
    return f"event {first} is" if first == last else f"events {first} to {last} are"


def _is_storable(text: str) -> bool:
    # PostgreSQL refuses NUL in text, SQLite cuts it short in some functions; neither takes lone surrogates.
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
