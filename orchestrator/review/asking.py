"""Which comparison a person is given next. Pure: it knows the folded state, who has what on the screen, and the person.

    a check item that is due ─► a repeat that is due ─► the first item of the queue that wants one more verdict

From the front of the queue: that is where a gate looks first. Nothing that a person sees tells the three kinds apart,
and their places are drawn in secret from a stretch, since whoever can count would know them otherwise. Only that a
gate's first comparison is a check cannot be hidden: no word counts before its rater has passed one.
"""

import hashlib
import hmac
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from orchestrator.core.commands import AskForLabels
from orchestrator.core.panels import asked_by_name, raters_per_item
from orchestrator.core.records import Choice, Purpose
from orchestrator.core.settings import CampaignSettings, ChecksSettings
from orchestrator.core.state import Batch, CampaignState
from orchestrator.core.vetoes import check_results
from orchestrator.store.tickets import Place, Ticket

REPEAT_AFTER = 3
"""Own words that lie between a comparison and its repeat, at least."""


@dataclass(slots=True)
class Cursors:
    """By batch and person, the item before which there is nothing for them: a shortcut for long queues."""

    first: dict[tuple[str, str], int] = field(default_factory=dict)

    def copy(self) -> "Cursors":
        """For a choice on a state that may never come to be."""
        return Cursors(dict(self.first))

    def back_to(self, batch: str, item: int) -> None:
        """An item wants a verdict again."""
        self.first = {key: min(at, item) if key[0] == batch else at for key, at in self.first.items()}


def missing_by_name(ask: AskForLabels, settings: CampaignSettings) -> dict[str, int]:
    """Verdicts that the queue still lacks, by the rater for whom the lot drew them; empty where it draws none."""
    batch = ask.batch
    wanted = raters_per_item(batch, settings)
    missing = Counter(
        name
        for item in range(ask.wanted)
        if batch.labels.count_on(item) < wanted
        for name in asked_by_name(batch, item, settings) or ()
        if batch.labels.of(item, name) is None
    )
    return dict(sorted(missing.items()))


def labelled(ask: AskForLabels, settings: CampaignSettings) -> int:
    """How many items have their verdicts, final or not, wherever they stand in the queue.

    A gate counts from the front alone, up to the first that lacks one: that would tell people that nothing goes on.
    """
    return min(len(ask.batch.labels) // raters_per_item(ask.batch, settings), ask.wanted)


def is_swapped(secret: bytes, batch: Batch, item: int, person: str) -> bool:
    """Whether this person sees the second response on the left: a coin that nobody without the secret can foresee."""
    message = f"{batch.comparisons} {item} {person}".encode()
    return bool(hmac.digest(secret, message, hashlib.sha256)[0] & 1)


def next_place(
    state: CampaignState,
    settings: CampaignSettings,
    ask: AskForLabels,
    person: str,
    *,
    secret: bytes,
    said: Iterable[tuple[str, int]],
    brought: int,
    live: tuple[Ticket, ...],
    cursors: Cursors,
) -> Place | None:
    """Where this person goes on; None: everything that waits is for others, or on their screens.

    Args:
        said: this person's words so far, oldest first, as batch and item; those at desks alone.
        brought: labels of theirs in this queue that came out of files.
        live: everybody's tickets that have not run out.
    """
    batch = ask.batch
    item = _next_item(ask, person, settings, live, cursors)
    if item is None:
        return None
    if (check := _check_due(state, settings, batch, person, secret)) is not None:
        pool, place = check
        return Place(pool.id, place, repeat=False, swapped=is_swapped(secret, pool, place, person))
    if (again := _repeat_due(settings, batch, person, tuple(said), brought, secret)) is not None:
        return Place(batch.id, again, repeat=True, swapped=not is_swapped(secret, batch, again, person))
    return Place(batch.id, item, repeat=False, swapped=is_swapped(secret, batch, item, person))


def _next_item(
    ask: AskForLabels, person: str, settings: CampaignSettings, live: tuple[Ticket, ...], cursors: Cursors
) -> int | None:
    """The first item of the queue that wants one more verdict, this person's, and that is on nobody's screen for it."""
    batch, wanted = ask.batch, raters_per_item(ask.batch, settings)
    labels, by_lot = batch.labels, asked_by_name(batch, 0, settings) is not None
    lent = Counter(
        ticket.item
        for ticket in live
        if ticket.batch == batch.id
        and ticket.person != person
        and not ticket.repeat
        and labels.of(ticket.item, ticket.person) is None
    )
    item = max(labels.front(wanted), cursors.first.get((batch.id, person), 0))
    behind = True  # so far, everything passed over is done, or is this person's
    while item < ask.wanted:
        verdicts = labels.count_on(item)
        if verdicts < wanted and labels.of(item, person) is None:
            mine = not by_lot or person in (asked_by_name(batch, item, settings) or ())
            if mine and (by_lot or verdicts + lent[item] < wanted):
                return item
            behind = behind and not mine
        item += 1
        if behind:
            cursors.first[batch.id, person] = item
    return None


def _check_due(
    state: CampaignState, settings: CampaignSettings, batch: Batch, person: str, secret: bytes
) -> tuple[Batch, int] | None:
    """The check item that comes before this person's next label of a gate's queue, if one does."""
    attempt, checks = state.open_attempt, settings.feedback.checks
    if attempt is None or checks is None or not batch.purpose.judges or batch.purpose is Purpose.AUDIT:
        return None
    pool = state.panel(attempt, Purpose.CHECKS)
    if pool is None:
        return None
    answered = check_results(state, attempt).get(person, (0, 0))[0]
    said = sum(
        panel.labels.count_by(person)
        for panel in state.panels(attempt)
        if panel.purpose not in (Purpose.AUDIT, Purpose.CHECKS)
    )
    return (pool, answered) if answered < _checks_wanted(pool, person, said, checks, secret) else None


def _checks_wanted(pool: Batch, person: str, said: int, checks: ChecksSettings, secret: bytes) -> int:
    """Check items for a person to answer before the next label of a queue, after `said` of them.

    At least as many as folding wants (`vetoes.checks_due`), all but the first at a drawn place of their stretch.
    """
    stretch = checks.every - 1
    place = _dice(secret, pool, person, said // stretch).randint(1, stretch)
    return min(said // stretch + 1 + (said % stretch >= place), checks.items)


def _repeat_due(
    settings: CampaignSettings,
    batch: Batch,
    person: str,
    said: tuple[tuple[str, int], ...],
    brought: int,
    secret: bytes,
) -> int | None:
    """An earlier item of this queue to show to the same person again; None where no repeat is due.

    Labels out of files are owed none: of what was shown elsewhere, nothing is shown again.
    """
    every = settings.feedback.repeat_every
    if every is None or batch.purpose is Purpose.AUDIT:
        return None
    stretch = every - 1
    again = {label.item for label in batch.repeats.by(person)}
    labels = batch.labels.count_by(person) - brought
    source = _dice(secret, batch, person, labels // stretch)
    due = labels // stretch + (labels % stretch >= source.randint(1, stretch)) - 1  # none in the first stretch
    if len(again) >= due:
        return None
    earlier = [item for place, item in said[:-REPEAT_AFTER] if place == batch.id]
    open_to_it = [
        item
        for item in dict.fromkeys(earlier)
        if item not in again
        and (label := batch.labels.of(item, person)) is not None
        and label.choice is not Choice.SKIP
    ]
    return source.choice(open_to_it) if open_to_it else None


def _dice(secret: bytes, batch: Batch, person: str, stretch: int) -> random.Random:
    """For the places of what comes in unseen: the ledger can be read, so it must not foretell them."""
    message = f"places {batch.comparisons} {person} {stretch}".encode()
    return random.Random(hmac.digest(secret, message, hashlib.sha256))
