"""Labels that people said elsewhere, brought to the campaign that asked for them.

    a file's labels ─► each held against the ledger, in the file's order ─► one event with all that are new

A label is taken if a desk would have taken it now and it would count: the queue that waits, the sealed texts, a person
who may, an item that lacks verdicts. Which is the case is found by folding it, so the rules are those of the ledger.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.core.canonical import digest_of
from orchestrator.core.commands import AskForLabels
from orchestrator.core.events import Event, LabelsRecorded, Origin
from orchestrator.core.history import apply
from orchestrator.core.panels import raters_per_item
from orchestrator.core.records import Label, Purpose, Role, Status
from orchestrator.core.rules import IllegalEventError
from orchestrator.core.state import Batch, CampaignState
from orchestrator.errors import ConflictError, ForbiddenError, UsageError
from orchestrator.labels.campaign import seals_of
from orchestrator.labels.comparisons import Comparison, Labelled
from orchestrator.labels.rows import RowError
from orchestrator.review.desk import Desk
from orchestrator.review.identity import Person
from orchestrator.review.names import same_name
from orchestrator.review.office import TRIES, Office, why
from orchestrator.store.people import People, PersonRow

Follow = Callable[[Sequence[tuple[int, Labelled]]], Iterable[tuple[int, Labelled]]]
"""Whoever wants to see how far it has come."""
_BYTES: Final = 1024**2
_PLACE: Final = re.compile(r"0|[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Brought:
    """What became of a file's labels."""

    batch: str | None
    """Where the new ones belong; None where there are none."""
    labels: tuple[Label, ...]
    """The new ones."""
    again: int
    """Those that were on the ledger already."""
    refused: tuple[tuple[int, str], ...]
    """Number of the record, and why."""
    left: int
    """Comparisons of the queue that lack verdicts, with the new ones counted; 0 where none waits."""


@dataclass(frozen=True, slots=True)
class Bringer:
    """Somebody at a campaign with a file of others' labels."""

    office: Office
    person: Person
    raters: Mapping[str, Person]
    """By the name that the file calls them."""
    origin: Origin

    def require_entitled(self) -> None:
        """Raises:
        ForbiddenError: this person may not bring labels in.
        """
        if not self.person.may(Role.APPROVER, self.office.campaign):
            raise ForbiddenError(
                f"{self.person.name} is not invited to {self.office.campaign} as approver; an approver brings labels in"
            )

    def look(self, found: Sequence[tuple[int, Labelled]], follow: Follow) -> Brought:
        """What would become of labels, each with the number of its record. Changes nothing.

        Raises:
            ForbiddenError: this person may not bring labels in.
        """
        return self._sorted(found, follow)[0]

    def bring(self, found: Sequence[tuple[int, Labelled]], follow: Follow, *, all_or_none: bool) -> Brought:
        """Record all that are new, in one event: however often it is tried, each stands once.

        Args:
            all_or_none: record nothing where any is refused.

        Raises:
            ForbiddenError: this person may not bring labels in.
            ConflictError: others speak all the time, and quicker.
        """
        for _ in range(TRIES):
            sorted_, body = self._sorted(found, follow)
            if body is None or (sorted_.refused and all_or_none):
                return sorted_
            name = f"{body.batch}.brought.{digest_of([label.model_dump(mode='json') for label in body.labels])[:32]}"
            try:
                self.office.append(body, name, author=self.person.name)
            except (IllegalEventError, ConflictError):
                continue  # somebody spoke meanwhile: perhaps one of these very words
            return sorted_
        raise ConflictError(f"campaign {self.office.campaign} is too busy to take these labels; try again")

    def _sorted(self, found: Sequence[tuple[int, Labelled]], follow: Follow) -> tuple[Brought, LabelsRecorded | None]:
        office = self.office
        self.require_entitled()
        with office.lock:
            command, state = office.command(), office.seen()
            asked = command if isinstance(command, AskForLabels) else None
            refusals = {person.name: Desk(office, person).refusal() for person in self.raters.values()}
        hearing = _Hearing(self, state, asked, refusals, seals_of(office.ledger, office.campaign))
        refused = []
        for number, said in follow(found):
            try:
                hearing.hear(said)
            except RowError as error:
                refused.append((number, str(error)))
            except IllegalEventError as error:
                refused.append((number, why(error)))
        new = tuple(hearing.new)
        brought = Brought(
            batch=asked.batch.id if asked is not None and new else None,
            labels=new,
            again=hearing.again,
            refused=tuple(refused),
            left=hearing.left(),
        )
        return brought, self.words(asked.batch.id, new) if asked is not None and new else None

    def words(self, batch: str, labels: tuple[Label, ...]) -> LabelsRecorded:
        return LabelsRecorded(batch=batch, labels=labels, credential=self.person.credential, origin=self.origin)


class _Hearing:
    """Labels held against one state, one after the other; those that fit are folded into it."""

    def __init__(
        self,
        bringer: Bringer,
        state: CampaignState,
        asked: AskForLabels | None,
        refusals: Mapping[str, str | None],
        seals: Mapping[str, str],
    ) -> None:
        self._bringer, self._state, self._asked = bringer, state, asked
        self._refusals, self._seals = refusals, seals
        self.new: list[Label] = []
        self._heard: set[tuple[str, str]] = set()
        self.again = 0

    def hear(self, said: Labelled) -> None:
        """Raises:
        RowError, IllegalEventError: it cannot be taken.
        """
        office = self._bringer.office
        person = self._bringer.raters.get(said.rater)
        if person is None:
            raise RowError(f"nobody said who {said.rater!r} is; --as '{said.rater}=PERSON' does")
        batch, item = self._place(said.item)
        shown = office.comparison(batch, item)
        sealed = Comparison(said.item, shown.prompt, shown.response_1, shown.response_2, self._seals[batch.id])
        if said.sealed not in (None, sealed.sealed):
            raise RowError(f"another campaign asked for it, not {office.campaign} on this ledger")
        if (said.prompt, said.response_1, said.response_2) != (sealed.prompt, sealed.response_1, sealed.response_2):
            raise RowError(f"its texts are not those of {said.item} on the ledger; what was labelled is unknown")
        known = batch.labels.of(item, person.name)
        if known is not None:
            same = (known.choice, known.harm) == (said.label, said.harm)
            if (said.item, person.name) in self._heard:
                differently = "" if same else ", and differently"
                raise RowError(f"{person.name} labels {said.item} twice in this file{differently}")
            if not same:
                raise RowError(f"{person.name} has said something else of {said.item}, and that stands")
            self.again += 1
            return
        if self._asked is None or batch.id != self._asked.batch.id:
            raise RowError(f"{batch.id} is not asked for now{self._since(batch)}")
        if item >= self._asked.wanted:
            raise RowError(f"{said.item} is not asked for yet; {batch.id} is open up to {self._asked.wanted - 1}")
        if (refusal := self._refusals[person.name]) is not None:
            raise RowError(refusal)
        label = Label(item=item, rater=person.name, choice=said.label, harm=said.harm)
        body = self._bringer.words(batch.id, (label,))
        author = self._bringer.person.name
        self._state = apply(self._state, Event(office.seq + 1, "", office.now(), None, author, "", body))
        self.new.append(label)
        self._heard.add((said.item, person.name))

    def left(self) -> int:
        if self._asked is None:
            return 0
        batch = self._state.batch(self._asked.batch.id)
        assert batch is not None, "what was sealed stays"
        wanted = raters_per_item(batch, self._state)
        return sum(batch.labels.count_on(item) < wanted for item in range(self._asked.wanted))

    def _place(self, name: str) -> tuple[Batch, int]:
        known, _, digits = name.rpartition(".")
        batch = self._state.batch(known)
        if batch is not None and batch.purpose is not Purpose.CHECKS and _PLACE.fullmatch(digits):
            number = int(digits)
            if number < batch.count:
                return batch, number
        raise RowError(f"campaign {self._bringer.office.campaign} never asked for an item {name!r}")

    def _since(self, batch: Batch) -> str:
        """Why nobody is asked, as far as that is known."""
        if self._state.status is not Status.RUNNING:
            return f": the campaign is {self._state.status.value}"
        closed = next(
            (a for a in self._state.attempts if a.closed and (a.stage, a.attempt) == (batch.stage, batch.attempt)), None
        )
        if closed is not None and batch.purpose.judges:
            return ": its candidate was " + ("approved" if closed.advanced else "rolled back")
        if batch.expired:
            return ": the time for its labels is over"
        return ": it has its labels" if batch.complete(raters_per_item(batch, self._state)) else ""


def raters_of(said: Sequence[str], people: People, campaign: str, importer: Person) -> dict[str, Person]:
    """Read `RATER=PERSON`; each person with their roles, and the token that stands behind what is brought for them.

    Raises:
        UsageError: malformed, said twice, or nobody who may label here.
    """
    known = {row.name: row for row in people.list()}
    raters: dict[str, Person] = {}
    for text in said:
        rater, _, name = text.rpartition("=")
        if not rater or not name:
            raise UsageError(f"--as {text!r}: expected RATER=PERSON, the rater as the file has it")
        if rater in raters:
            raise UsageError(f"--as {text!r}: the file's {rater!r} is {raters[rater].name} already")
        raters[rater] = _somebody(text, known.get(same_name(name)), campaign, importer)
    if not raters:
        raise UsageError("say who the file's raters are: --as 'RATER=PERSON', once for each")
    return raters


def _somebody(text: str, row: PersonRow | None, campaign: str, importer: Person) -> Person:
    if row is None:
        raise UsageError(f"--as {text!r}: nobody of that name was let in here; see `ratchet review people`")
    if row.revoked is not None:
        raise UsageError(f"--as {text!r}: {row.name} was shut out; see `ratchet review people`")
    person = Person(row.name, importer.credential, row.grants)
    if not (person.may(Role.LABELER, campaign) or person.may(Role.AUDITOR, campaign)):
        raise UsageError(
            f"--as {text!r}: {row.name} may not label {campaign}; "
            f"`ratchet review invite '{row.name}' --role labeler --campaign {campaign}` lets them"
        )
    return person


def origin_of(path: Path, form: str) -> Origin:
    """Raises:
    UsageError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while part := file.read(_BYTES):
                digest.update(part)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; name a file that can be read") from error
    return Origin(format=form, file=digest.hexdigest())
