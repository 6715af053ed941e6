"""Which comparison a person is given next. Pure: it knows the folded state, who has what on the screen, and the person.

    a check item that is due ─► a repeat that is due ─► the first item of the queue that wants one more verdict

From the front of the queue: that is where a gate looks first. Nothing that a person sees tells the three kinds apart,
and their places are drawn from a stretch, since whoever can count would know them otherwise.
"""

import hashlib
import hmac
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from orchestrator.core.canonical import digest_of
from orchestrator.core.commands import AskForLabels
from orchestrator.core.panels import raters_per_item
from orchestrator.core.records import Choice, Purpose, recorded_name
from orchestrator.core.settings import CampaignSettings, ChecksSettings
from orchestrator.core.state import Batch, CampaignState
from orchestrator.core.vetoes import check_results
from orchestrator.store.tickets import Place, Ticket

REPEAT_AFTER = 3
"""Own words that lie between a comparison and its repeat, at least."""


@dataclass(slots=True)
class Cursors:
    """By batch and person, the item before which there is nothing for them; a shortcut, forgotten when in doubt."""

    first: dict[tuple[str, str], int] = field(default_factory=dict)

    def forget(self) -> None:
        self.first.clear()


def asked_by_name(batch: Batch, item: int, settings: CampaignSettings) -> tuple[str, ...] | None:
    """Whose verdicts on an item of a gate's queue count, drawn by lot when it was sealed; None: whoever comes first.

    Were every named rater offered every item, the quickest words would count, and who is quick may well be quick
    because of the verdict. The lot knows the sealed comparisons, the place and the name, nothing that comes later.
    Batches that judge nothing have no deadline, so nobody's absence may block them; audits are for others than the
    raters, and check items for everybody.
    """
    named = {recorded_name(name) for name in settings.feedback.raters}
    if not named or not batch.purpose.judges or batch.purpose in (Purpose.AUDIT, Purpose.CHECKS):
        return None
    drawn = sorted(named, key=lambda name: digest_of([batch.comparisons, item, name]))
    return tuple(drawn[: raters_per_item(batch, settings)])


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
    live: tuple[Ticket, ...],
    cursors: Cursors,
) -> Place | None:
    """Where this person goes on; None: everything that waits is for others, or on their screens.

    Args:
        said: this person's words so far, oldest first, as batch and item.
        live: everybody's tickets that have not run out.
    """
    batch = ask.batch
    item = _next_item(ask, person, settings, live, cursors)
    if item is None:
        return None
    if (check := _check_due(state, settings, batch, person)) is not None:
        pool, place = check
        return Place(pool.id, place, repeat=False, swapped=is_swapped(secret, pool, place, person))
    if (again := _repeat_due(settings, batch, person, tuple(said))) is not None:
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


def _check_due(state: CampaignState, settings: CampaignSettings, batch: Batch, person: str) -> tuple[Batch, int] | None:
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
    return (pool, answered) if answered < _checks_wanted(pool, person, said, checks) else None


def _checks_wanted(pool: Batch, person: str, said: int, checks: ChecksSettings) -> int:
    """Check items for a person to answer before the next label of a queue, after `said` of them.

    At least as many as folding wants (`vetoes.checks_due`), all but the first at a drawn place of their stretch.
    """
    stretch = checks.every - 1
    place = random.Random(f"{pool.comparisons} {person} {said // stretch}").randint(1, stretch)
    return min(said // stretch + 1 + (said % stretch >= place), checks.items)


def _repeat_due(settings: CampaignSettings, batch: Batch, person: str, said: tuple[tuple[str, int], ...]) -> int | None:
    """An earlier item of this queue to show to the same person again; None where no repeat is due."""
    every = settings.feedback.repeat_every
    if every is None or batch.purpose is Purpose.AUDIT:
        return None
    stretch = every - 1
    again = {label.item for label in batch.repeats if label.rater == person}
    labels = batch.labels.count_by(person)
    source = random.Random(f"repeat {batch.comparisons} {person} {labels // stretch}")
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
