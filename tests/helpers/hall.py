"""Campaigns of which only the ledger is real, in either database: many people, no model, milliseconds.

What workers would give is invented by the core's `fake_world`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

sys.path.insert(0, str(Path(__file__).parents[1] / "orchestrator" / "core"))

from fake_world import World, always_good, settings_of

from orchestrator.artifacts import ArtifactStore
from orchestrator.core import events as ev
from orchestrator.core.commands import Command, Do, Note
from orchestrator.core.events import EventBody
from orchestrator.core.records import Role
from orchestrator.core.state import CampaignState
from orchestrator.review.desk import Desk
from orchestrator.review.identity import Person
from orchestrator.review.office import Office
from orchestrator.runner import draft, read_state_at
from orchestrator.store.ledger import Ledger

ALL = tuple(Role)


class Hall:
    """One campaign of people, its ledger at `where`, and a clock that hardly moves by itself."""

    def __init__(self, where: str, folder: Path, *, root: Path | None = None, **changes: Any) -> None:
        self.name: str = changes.get("name", "small")
        self.where, self.time = where, datetime(2026, 1, 1, tzinfo=UTC)
        self.artifacts = ArtifactStore(root or folder / "artifacts")
        self.settings = settings_of(
            **{
                "protocol": {"stages": 1, "attempts": 2},
                **changes,
                "feedback": {"rater": "people", "initial_labels": 6, **changes.get("feedback", {})},
                "gate": {"audit": {"evaluator": "none"}, **changes.get("gate", {})},
            }
        )
        self.world = World(self.settings, quality=always_good)
        self._ledgers: list[Ledger] = []
        self.ledger = self.connect()
        self.ledger.create_campaign(self.name)
        created = self.world.events[0]
        self.ledger.append(self.name, [draft(created.body, "created", author="tester")], epoch=None)
        self.office = self.office_of(self.ledger)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for ledger in self._ledgers:
            ledger.close()

    def now(self) -> datetime:
        self.time += timedelta(microseconds=1)  # which of two tickets is newer is seen by their times
        return self.time

    def wait(self, **much: float) -> None:
        self.time += timedelta(**much)

    def connect(self) -> Ledger:
        ledger = Ledger.open(self.where, now=self.now)
        self._ledgers.append(ledger)
        return ledger

    def office_of(self, ledger: Ledger) -> Office:
        return Office(ledger, self.artifacts, self.name, now=self.now)

    def elsewhere(self) -> Office:
        """Another process's: a connection and a folded state of its own."""
        return self.office_of(self.connect())

    def desk(self, name: str, roles: Iterable[Role] = ALL, *, office: Office | None = None) -> Desk:
        person = Person(name, f"c-{name}", frozenset((role, None) for role in roles))
        return Desk(office or self.office, person)

    @property
    def state(self) -> CampaignState:
        """Folded anew."""
        return read_state_at(self.ledger, self.name)[0]

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.ledger.events(self.name)]

    def go_on(self) -> Command:
        """Let the controller work until people are wanted; what they are wanted for."""
        with self.ledger.acquire_controller(self.name, owner="tester") as lease:
            while isinstance(command := self.office.command(), Do | Note):
                self.world.state = self.office.seen()
                if isinstance(command, Do):
                    body, command_id = self._sealed(self.world.result(command.work)), command.work.command_id
                else:
                    body, command_id = command.body, command.command_id
                self.ledger.append(self.name, [draft(body, command_id, author="controller")], epoch=lease.epoch)
        return command

    def _sealed(self, body: EventBody) -> EventBody:
        """With texts to show."""
        if not isinstance(body, ev.ComparisonsDrawn):
            return body
        place = f"{body.purpose.value} of {body.stage}.{body.attempt}"
        rows = [
            {"item": item, "prompt": f"{place}: {item}?", "response_1": f"{item}, one", "response_2": f"{item}, two"}
            for item in range(body.count)
        ]
        digest = self.artifacts.publish_lines("comparisons", rows)
        self.world.first_wins[digest] = self.world.first_wins[body.comparisons]
        return body.model_copy(update={"comparisons": digest})
