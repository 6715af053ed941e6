"""What people do to a campaign: label, take back, settle, approve or reject, pause, stop.

Each word is an event on the campaign's chain, checked against the newest state and appended only if nothing came in
since, so that a decision can never land on a history that its author had not seen. An `Office` follows one campaign
for everybody; a `Desk` is one person's place at it. The page, the terminal and the HTTP interface all sit at desks.
"""

from bisect import bisect_left
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from orchestrator.core import events as ev
from orchestrator.core.commands import AskForDecision, AskForLabels, Command
from orchestrator.core.events import EventBody
from orchestrator.core.panels import raters_per_item
from orchestrator.core.records import Choice, Decision, Harm, Label, Purpose, Role, recorded_name
from orchestrator.core.rules import IllegalEventError
from orchestrator.core.state import Attempt, Batch, CampaignState
from orchestrator.core.words import open_word
from orchestrator.errors import (
    ConflictError,
    ForbiddenError,
    HeadMovedError,
    NotFoundError,
    UsageError,
)
from orchestrator.review.asking import Cursors, is_swapped, labelled, next_place
from orchestrator.review.identity import Person
from orchestrator.review.office import TRIES, Office, Word, require_reason, why
from orchestrator.review.texts import Comparison
from orchestrator.store.ledger import Rider
from orchestrator.store.tickets import Choose, Place, Ticket

LEAST_DIGITS: Final = 8
"""Of a digest, to name a candidate by."""


class Standing(StrEnum):
    """What became of a word."""

    RECORDED = "recorded"
    AGAIN = "again"
    """It was on the ledger already: one word, however often it is sent."""
    EXTRA = "extra"
    """Kept, though others were quicker: the item had its verdicts."""
    LATE = "late"
    """Kept, though the campaign has gone on: it judges nothing any more."""
    UNDONE = "undone"
    TOO_LATE = "too_late"
    """Noted as a regret; the word was final and stands."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A comparison on somebody's screen. Its texts are untrusted."""

    ticket: str
    number: int
    """The how-manieth word of this person's in the campaign it will be, from 1."""
    prompt: str
    left: str
    right: str


@dataclass(frozen=True, slots=True)
class Progress:
    mine: int
    """Words of this person's that stand."""
    labelled: int
    """Items of the queue that waits which have their verdicts, wherever they stand in it; to a twentieth."""
    wanted: int
    """Both 0 where none waits."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """Whether a queue has something for one person."""

    waits: bool
    free_in: timedelta | None = None
    """Where all that is left for them is on others' screens: until the first of those comes free."""


@dataclass(frozen=True, slots=True)
class Said:
    standing: Standing
    choice: Choice
    """As the person saw the two."""


@dataclass(frozen=True, slots=True)
class Undone:
    standing: Standing
    """`undone`, `too_late`, or `again` where that word was taken back before."""


@dataclass(frozen=True, slots=True)
class Mine:
    """One of a person's own words."""

    number: int
    prompt: str
    left: str
    right: str
    choice: Choice
    harm: Harm | None
    undoable: bool


@dataclass(frozen=True, slots=True)
class Decided:
    digest: str
    standing: Standing
    approvals: int
    approvers: int


@dataclass(frozen=True, slots=True)
class Disagreement:
    """An item that its raters saw differently, in the comparison's own order."""

    batch: str
    item: int
    prompt: str
    response_1: str
    response_2: str
    words: tuple[tuple[str, Choice], ...]
    settled: tuple[tuple[str, Choice, str], ...]
    """Who settled it, how and why; the last one counts."""


@dataclass(slots=True)
class Desk:
    """A person's place at one campaign."""

    office: Office
    person: Person

    @property
    def name(self) -> str:
        return self.person.name

    @property
    def campaign(self) -> str:
        return self.office.campaign

    # --- labelling --------------------------------------------------------------------------------------------

    def open_batch(self) -> Batch | None:
        """The queue that people are asked to label now."""
        command = self.office.command()
        return command.batch if isinstance(command, AskForLabels) else None

    def refusal(self) -> str | None:
        """Why this person may not label what waits, in one line; None where they may, or nothing waits."""
        with self.office.lock:
            return self._refusal(self.office.command(), self.office.seen())

    def progress(self) -> Progress:
        _, command = self.office.glance()
        mine = self.office.number_of_words(self.name)
        if not isinstance(command, AskForLabels):
            return Progress(mine, 0, 0)
        # In steps: a count that stands still after a word would tell that it was a check or a repeat.
        step = max(command.wanted // 20, 1)
        return Progress(mine, labelled(command, self.office.settings()) // step * step, command.wanted)

    def outlook(self) -> Outlook:
        """Whether `asked` would give this person something; lends nothing."""
        office = self.office
        with office.lock:
            command, state, now = office.command(), office.seen(), office.now()
            if not isinstance(command, AskForLabels) or self._refusal(command, state) is not None:
                return Outlook(waits=False)
            if self._lent(state, command, now) is not None:
                return Outlook(waits=True)
            live = office.ledger.tickets.live(self.campaign, now)
            choose = self._chooser(state, command, office.cursors.copy())
            if choose(live) is not None:
                return Outlook(waits=True)
            if choose(()) is None:
                return Outlook(waits=False)
            # Not every ticket keeps something from them: its item may have its verdicts by now, or lie on more screens.
            ends = sorted({ticket.until for ticket in live})
            first = bisect_left(
                ends, True, key=lambda end: choose(tuple(ticket for ticket in live if ticket.until > end)) is not None
            )
            return Outlook(waits=False, free_in=ends[first] - now)

    def asked(self) -> Asked | None:
        """What this person is to label now; None where nothing waits for them.

        The comparison is lent: until the ticket runs out, or another word of theirs is wanted first, this person is
        given the same one again, in whatever tab or terminal, and others are given others.
        """
        office = self.office
        state, command = office.glance()
        ticket = self._lent(state, command, office.now())
        if ticket is None:
            with office.lock:
                ticket, state = self._on_screen(), office.seen()
        if ticket is None:
            return None
        number = 1 + office.number_of_words(self.name)
        batch = state.batch(ticket.batch)
        assert batch is not None, "tickets are lent for sealed batches"
        left, right, prompt = self._as_seen(office.comparison(batch, ticket.item), swapped=ticket.swapped)
        return Asked(ticket.id, number, prompt, left, right)

    def label(self, ticket: str, choice: Choice, harm: Harm | None = None) -> Said:
        """Record a verdict, said of the two responses as they were shown.

        A word for a comparison that was lent is kept, a month late, too; the answer says what it is worth.

        Raises:
            NotFoundError: there is no such ticket in this campaign, or none any more (`tickets.KEPT`).
            ForbiddenError: it is somebody else's, or this person may not label.
            ConflictError: this person said something else of it before.
        """
        lent = self._ticket(ticket)
        canonical = choice.swapped if lent.swapped else choice
        flagged = harm.swapped if harm is not None and lent.swapped else harm
        verdict = Label(item=lent.item, rater=self.name, choice=canonical, harm=flagged, swapped=lent.swapped)
        office = self.office
        with office.lock:
            state = office.state()
            batch = state.batch(lent.batch)
            assert batch is not None, "tickets are lent for sealed batches"
            if (known := self._word(batch, lent)) is not None:
                return _once(known, verdict, choice)
            self._require_role(batch)
            kind, tried = "repeat" if lent.repeat else "label", [office.cursors]
            body: EventBody = (
                ev.LabelRepeated(batch=batch.id, label=verdict, credential=self.person.credential)
                if lent.repeat
                else ev.LabelsRecorded(batch=batch.id, labels=(verdict,), credential=self.person.credential)
            )
            try:
                name = f"{batch.id}.{lent.item}.{kind}.{lent.id}"
                after = office.append(body, name, author=self.name, along=lambda after: self._next(lent, after, tried))
            except (IllegalEventError, ConflictError) as error:
                return self._said_meanwhile(error, lent, verdict, choice)
            now_there = after.batch(batch.id)
            if now_there is None or self._word(now_there, lent) is None:
                raise ConflictError("this word was taken back; the comparison comes again, label it there")
            office.cursors = tried[-1]
            return Said(self._worth(after, now_there, lent), choice)

    def undo(self, number: int | None = None) -> Undone:
        """Take back one's last word, the `number`-th; a click too many takes nothing else back.

        Raises:
            UsageError: this person has said nothing yet, or has gone on since.
        """
        office = self.office
        with office.lock:
            state = office.state()
            words = office.words_of(self.name)
            if number is not None and number > len(words):
                return Undone(Standing.AGAIN)
            if not words or (number is not None and number < len(words)):
                raise UsageError("only your last word can be taken back" if words else "you have said nothing yet")
            word = words[-1]
            batch = state.batch(word.batch)
            assert batch is not None, "words are on sealed batches"
            # A regret of one word is noted once, however often it is sent.
            what = "regret" if open_word(state, batch, self.name) is None else f"undo.{office.seq}"
            body = ev.LabelWithdrawn(
                batch=word.batch, item=word.item, rater=self.name, credential=self.person.credential
            )
            try:
                after = office.append(body, f"{word.batch}.{word.item}.{self.name}.{what}", author=self.name)
            except ConflictError:
                return Undone(Standing.TOO_LATE)  # noted before, with another token
            except IllegalEventError as error:
                if number is not None and number > office.number_of_words(self.name):
                    return Undone(Standing.AGAIN)
                raise UsageError(f"campaign {self.campaign}: {why(error)}") from error
            left = after.batch(word.batch)
            assert left is not None, "what was sealed stays"
            if self._word(left, word) is not None:
                return Undone(Standing.TOO_LATE)
            self._lend_again(left, word)
            return Undone(Standing.UNDONE)

    def mine(self, limit: int = 50) -> tuple[Mine, ...]:
        """One's own words, newest first."""
        with self.office.lock:
            state = self.office.state()
            words = self.office.words_of(self.name)
        found = []
        for number in range(len(words), max(len(words) - limit, 0), -1):
            word = words[number - 1]
            batch = state.batch(word.batch)
            assert batch is not None, "words are on sealed batches"
            label = self._word(batch, word)
            if label is None:  # taken back while we looked
                continue
            shown = self._as_seen(self.office.comparison(batch, word.item), swapped=label.swapped)
            still = open_word(state, batch, self.name)
            undoable = number == len(words) and still is not None and still.item == word.item
            choice = label.choice.swapped if label.swapped else label.choice
            harm = label.harm.swapped if label.harm is not None and label.swapped else label.harm
            found.append(Mine(number, shown[2], shown[0], shown[1], choice, harm, undoable))
        return tuple(found)

    # --- settling ---------------------------------------------------------------------------------------------

    def disagreements(self, limit: int = 100) -> tuple[Disagreement, ...]:
        """Items that their raters saw differently, unsettled ones first.

        Raises:
            ForbiddenError: this person is no approver.
        """
        self._require(Role.APPROVER)
        state = self.office.state()
        found = []
        for batch in reversed(state.batches):
            if not batch.purpose.trains or batch is self._under_judgement(state, batch):
                continue
            settled: dict[int, list[tuple[str, Choice, str]]] = {}
            for done in batch.adjudications:
                settled.setdefault(done.item, []).append((done.adjudicator, done.choice, done.reason))
            for item in range(batch.count):
                if batch.labels.count_on(item) < 2:
                    continue
                words = tuple((label.rater, label.choice) for label in batch.labels.on(item))
                if len({choice for _, choice in words}) > 1:
                    found.append((batch, item, words, tuple(settled.get(item, ()))))
        found.sort(key=lambda entry: bool(entry[3]))
        return tuple(
            Disagreement(batch.id, item, text.prompt, text.response_1, text.response_2, words, done)
            for batch, item, words, done in found[:limit]
            for text in (self.office.comparison(batch, item),)
        )

    def adjudicate(self, batch: str, item: int, choice: Choice, reason: str) -> None:
        """Settle an item that raters saw differently: for what trains; every verdict stays, and a gate's outcome too.

        Raises:
            ForbiddenError: this person is no approver.
            UsageError: there is nothing to settle.
        """
        self._require(Role.APPROVER)
        require_reason(reason)
        office = self.office
        with office.lock:
            known = office.state().batch(batch)
            if known is None or not 0 <= item < known.count:
                raise NotFoundError(f"campaign {self.campaign} has no item {item} in {batch!r}")
            if self._under_judgement(office.state(), known) is known:
                raise ConflictError(f"{batch} is still being judged; settle it after the verdict")
            last = next((word for word in reversed(known.adjudications) if word.item == item), None)
            if last is not None and (last.adjudicator, last.choice) == (self.name, choice):
                return
            body = ev.LabelAdjudicated(
                batch=batch, item=item, choice=choice, adjudicator=self.name, credential=self.person.credential
            )
            times = sum(word.item == item for word in known.adjudications)
            try:
                office.append(body, f"{batch}.{item}.settled.{times}", author=self.name, reason=reason)
            except IllegalEventError as error:
                raise UsageError(f"campaign {self.campaign}: {why(error)}") from error

    # --- deciding ---------------------------------------------------------------------------------------------

    def candidate(self) -> Attempt | None:
        """The attempt whose candidate waits for a decision."""
        command = self.office.command()
        return command.attempt if isinstance(command, AskForDecision) else None

    def decide(self, decision: Decision, digest: str, reason: str, *, override: bool = False) -> Decided:
        """Approve or reject the candidate whose digest begins with `digest`.

        Saying the same twice is saying it once, also where the first word was the last that was needed.

        Args:
            override: an approval that stands for all that are wanted, where the campaign allows it.

        Raises:
            ForbiddenError: this person is no approver here.
            ConflictError: another candidate waits, none does, or others have decided.
        """
        self._require(Role.APPROVER)
        office = self.office
        with office.lock:
            if (known := self._decided(decision, digest, override=override)) is not None:
                return self._standing(known, Standing.AGAIN)
            require_reason(reason)
            try:
                return self._standing(self._decide(decision, digest, reason, override=override), Standing.RECORDED)
            except ConflictError:
                if (
                    known := self._decided(decision, digest, override=override)
                ) is not None:  # sent twice, and the other was quicker
                    return self._standing(known, Standing.AGAIN)
                raise

    # --- running ----------------------------------------------------------------------------------------------

    def pause_labelling(self, reason: str) -> None:
        """Give nobody comparisons until `resume_labelling`; what is on screens may still be answered."""
        self._require(Role.APPROVER)
        require_reason(reason)
        if self.office.state().labelling_paused is None:
            self._say(ev.LabellingPaused(why=reason), f"labelling_paused.{self.office.seq}", reason)

    def resume_labelling(self) -> None:
        self._require(Role.APPROVER)
        if self.office.state().labelling_paused is not None:
            self._say(ev.LabellingResumed(), f"labelling_resumed.{self.office.seq}", "")

    def _say(self, body: EventBody, command_id: str, reason: str) -> None:
        try:
            self.office.append(body, command_id, author=self.name, reason=reason)
        except IllegalEventError as error:
            raise UsageError(f"campaign {self.campaign}: {why(error)}") from error

    def _on_screen(self) -> Ticket | None:
        """What this person has before them, or is lent now."""
        office, tickets = self.office, self.office.ledger.tickets
        for tries_left in reversed(range(TRIES)):
            command = office.command()
            if not isinstance(command, AskForLabels) or self._refusal(command, office.seen()) is not None:
                return None
            now, state = office.now(), office.seen()
            if (ticket := self._lent(state, command, now)) is not None:
                return ticket
            # Where others never pause, one verdict too many does less harm than nobody being asked.
            after_seq = office.seq if tries_left else None
            choose, until = self._chooser(state, command, office.cursors), self._until(now)
            try:
                return tickets.lend(office.campaign, self.name, choose, until=until, now=now, after_seq=after_seq)
            except HeadMovedError:
                continue
        return None

    def _lent(self, state: CampaignState, command: Command, now: datetime) -> Ticket | None:
        """What lies on this person's screen already, if they may and should still answer it."""
        if not isinstance(command, AskForLabels) or self._refusal(command, state) is not None:
            return None
        mine = self.office.ledger.tickets.live_of(self.campaign, self.name, now)
        return next((ticket for ticket in reversed(mine) if self._still_open(state, command, ticket)), None)

    def _next(self, answered: Ticket, after: CampaignState, tried: list[Cursors]) -> Rider:
        """For the transaction that records a word: end its ticket, and lend what comes next.

        The word may yet be refused, so the choice moves a copy of the cursors, the last in `tried`.
        """
        office, now = self.office, self.office.now()
        command = office.command_after(after)
        choose: Choose = lambda live: None  # noqa: E731
        if isinstance(command, AskForLabels) and self._refusal(command, after) is None:
            tried.append(office.cursors.copy())
            choose = self._chooser(after, command, tried[-1])
        tickets = office.ledger.tickets
        return tickets.closing(answered.id, office.campaign, self.name, choose, until=self._until(now), now=now)

    def _chooser(self, state: CampaignState, ask: AskForLabels, cursors: Cursors) -> Choose:
        """As `Tickets.lend` wants it: everything that it asks the ledger for is at hand."""
        office, settings, secret = self.office, self.office.settings(), self.office.secret()
        words = office.words_of(self.name)
        said = tuple((word.batch, word.item) for word in words if not word.brought)
        brought = sum(word.brought and word.batch == ask.batch.id for word in words)
        return lambda live: next_place(
            state, settings, ask, self.name, secret=secret, said=said, brought=brought, live=live, cursors=cursors
        )

    def _lend_again(self, batch: Batch, word: Word) -> None:
        """What was taken back, unless somebody else has it already and their verdict will do."""
        office, now = self.office, self.office.now()
        swapped = is_swapped(office.secret(), batch, word.item, self.name) is not word.repeat
        place = Place(word.batch, word.item, repeat=word.repeat, swapped=swapped)
        wanted = raters_per_item(batch, office.settings())

        def choose(live: tuple[Ticket, ...]) -> Place | None:
            others = {
                ticket.person
                for ticket in live
                if (ticket.batch, ticket.item) == (batch.id, word.item)
                and ticket.person != self.name
                and not ticket.repeat
                and batch.labels.of(word.item, ticket.person) is None
            }
            free = word.repeat or batch.purpose is Purpose.CHECKS
            return place if free or batch.labels.count_on(word.item) + len(others) < wanted else None

        office.ledger.tickets.lend(office.campaign, self.name, choose, until=self._until(now), now=now)

    def _until(self, now: datetime) -> datetime:
        return now + timedelta(minutes=self.office.settings().feedback.lease_minutes)

    # --- within -----------------------------------------------------------------------------------------------

    def _refusal(self, command: Command, state: CampaignState) -> str | None:
        """As `refusal`, of what is asked in a state."""
        if not isinstance(command, AskForLabels):
            return None
        if state.labelling_paused is not None:
            return f"labelling of {self.campaign} is paused: {state.labelling_paused}"
        audits = command.batch.purpose is Purpose.AUDIT
        role = Role.AUDITOR if audits else Role.LABELER
        if not self.person.may(role, self.campaign):
            return f"{self.name} is not invited to {self.campaign} as {role}"
        allowed = self.office.settings().feedback.raters
        if allowed and not audits and self.name not in map(recorded_name, allowed):
            return f"{self.name} is not among the raters of campaign {self.campaign} (feedback.raters)"
        attempt = state.open_attempt
        if not command.batch.purpose.judges or attempt is None:
            return None
        others = [batch for batch in state.panels(attempt) if (batch.purpose is Purpose.AUDIT) is not audits]
        if not any(batch.labels.count_by(self.name) for batch in others):
            return None
        if audits:
            return f"{self.name}: you labelled this gate's comparisons; an audit wants other eyes"
        return f"{self.name}: you audited this gate's comparisons; its labels want other eyes"

    def _still_open(self, state: CampaignState, command: AskForLabels, ticket: Ticket) -> bool:
        """Whether a word for one of this person's tickets is still wanted."""
        batch = state.batch(ticket.batch)
        if batch is None or self._word(batch, ticket) is not None:
            return False
        if batch.purpose is Purpose.CHECKS:
            attempt = state.open_attempt
            return attempt is not None and (batch.stage, batch.attempt) == (attempt.stage, attempt.attempt)
        if batch.id != command.batch.id:
            return False
        return ticket.repeat or batch.labels.count_on(ticket.item) < raters_per_item(batch, self.office.settings())

    def _word(self, batch: Batch, place: Ticket | Word) -> Label | None:
        """What this person has said there."""
        if not place.repeat:
            return batch.labels.of(place.item, self.name)
        return batch.repeats.of(place.item, self.name)

    def _ticket(self, ticket: str) -> Ticket:
        lent = self.office.ledger.tickets.find(ticket)
        if lent is None or lent.campaign != self.campaign:
            raise NotFoundError("this comparison is not known here; reload the page and go on")
        if lent.person != self.name:
            raise ForbiddenError("this comparison was given to somebody else; reload the page for one of yours")
        return lent

    def _worth(self, state: CampaignState, batch: Batch, lent: Ticket) -> Standing:
        """What this person's word there is worth, now that it is recorded."""
        attempt = state.open_attempt
        here = attempt is not None and (batch.stage, batch.attempt) == (attempt.stage, attempt.attempt)
        over = batch.purpose.judges and (not here or (attempt is not None and attempt.verdict is not None))
        if over or batch.expired or state.ended_by is not None:
            return Standing.LATE
        if batch.purpose is Purpose.CHECKS or lent.repeat:
            return Standing.RECORDED
        first = batch.labels.on(lent.item)[: raters_per_item(batch, self.office.settings())]
        return Standing.RECORDED if any(label.rater == self.name for label in first) else Standing.EXTRA

    def _said_meanwhile(self, error: Exception, lent: Ticket, verdict: Label, choice: Choice) -> Said:
        """Why a word was refused; the same one may have come in from elsewhere at the same moment.

        Told without a word on check items, which nobody is to know.
        """
        batch = self.office.state().batch(lent.batch)
        known = self._word(batch, lent) if batch is not None else None
        if known is not None:
            return _once(known, verdict, choice)
        if not isinstance(error, IllegalEventError):
            raise ConflictError("this word was taken back; the comparison comes again, label it there") from error
        if self.office.seen().ended_by is not None:
            raise ConflictError(f"campaign {self.campaign} has ended; nothing more is asked of anybody") from error
        if "check items" in str(error):
            raise ConflictError("answer the comparison on your newest page first; reload this one") from error
        raise UsageError(f"campaign {self.campaign}: {why(error)}") from error

    def _as_seen(self, text: Comparison, *, swapped: bool) -> tuple[str, str, str]:
        """Left, right and prompt."""
        first, second = text.response_1, text.response_2
        return (second, first, text.prompt) if swapped else (first, second, text.prompt)

    def _under_judgement(self, state: CampaignState, batch: Batch) -> Batch | None:
        """The batch, where the verdict that it belongs to is not yet given."""
        attempt = state.open_attempt
        open_ = attempt is not None and attempt.verdict is None
        here = attempt is not None and (batch.stage, batch.attempt) == (attempt.stage, attempt.attempt)
        return batch if batch.purpose.judges and open_ and here else None

    def _require(self, role: Role) -> None:
        if not self.person.may(role, self.campaign):
            raise ForbiddenError(f"{self.name} is not invited to {self.campaign} as {role}")

    def _require_role(self, batch: Batch) -> None:
        self._require(Role.AUDITOR if batch.purpose is Purpose.AUDIT else Role.LABELER)

    def _require_others_campaign(self, decision: Decision) -> None:
        approval = self.office.settings().approval
        own = approval.owner is not None and recorded_name(approval.owner) == self.name
        if own and not approval.self_approval and decision is Decision.APPROVE:
            raise ForbiddenError(f"{self.name} owns campaign {self.campaign}; somebody else has to approve")

    def _decide(self, decision: Decision, digest: str, reason: str, *, override: bool) -> Attempt:
        attempt = self._candidate_or_why()
        assert attempt.candidate is not None
        if len(digest) < LEAST_DIGITS or not attempt.candidate.startswith(digest.lower()):
            raise ConflictError(
                f"the candidate under review is {attempt.candidate[:12]}, not {digest[:12]!r}; "
                f"look again: `ratchet review list {self.campaign}` (8 or more digits name a candidate)"
            )
        self._require_others_campaign(decision)
        body = ev.DecisionMade(
            candidate=attempt.candidate,
            decision=decision,
            reviewer=self.name,
            override=override,
            credential=self.person.credential,
        )
        try:
            self.office.append(body, f"{attempt.place}.decision.{self.name}", author=self.name, reason=reason)
        except IllegalEventError as error:
            raise ConflictError(f"campaign {self.campaign}: {why(error)}; reload and look again") from error
        return attempt

    def _candidate_or_why(self) -> Attempt:
        attempt = self.candidate()
        if attempt is not None:
            return attempt
        last = next(iter(reversed(self.office.state().attempts)), None)
        told = ", ".join(f"{d.reviewer} {_PAST[d.decision]}" for d in last.decisions) if last is not None else ""
        raise ConflictError(
            f"campaign {self.campaign}: no candidate waits for a decision{f' ({told})' if told else ''}; "
            f"see `ratchet review list {self.campaign}`"
        )

    def _decided(self, decision: Decision, digest: str, *, override: bool) -> Attempt | None:
        """The newest attempt, where this person's same decision on its candidate stands recorded already."""
        attempt = next(iter(reversed(self.office.state().attempts)), None)
        if attempt is None or attempt.candidate is None or len(digest) < LEAST_DIGITS:
            return None
        same = (self.name, decision, override)
        said = any((d.reviewer, d.decision, d.override) == same for d in attempt.decisions)
        return attempt if said and attempt.candidate.startswith(digest.lower()) else None

    def _standing(self, attempt: Attempt, standing: Standing) -> Decided:
        state = self.office.state()
        newest = next(a for a in reversed(state.attempts) if a.place == attempt.place)
        assert newest.candidate is not None
        return Decided(newest.candidate, standing, len(newest.approvers), state.approvals_needed)


def _once(known: Label, verdict: Label, choice: Choice) -> Said:
    if (known.choice, known.harm) == (verdict.choice, verdict.harm):
        return Said(Standing.AGAIN, choice)
    raise ConflictError("you have said something else of this comparison, and that stands; take it back first")


_PAST: Final = {Decision.APPROVE: "approved", Decision.REJECT: "rejected"}
