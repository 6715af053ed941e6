"""Whether the people's register stands behind every word on a ledger. Pure: it is given both.

A person's event names the token that it was said with. Folding knows nothing of tokens, so a word that somebody wrote
into the database, under the name of somebody who never said it, would fold; here it is held against the register. What
a controller appends (simulated raters, `gate`, `protocol`) names no token, and needs none where no person is to speak.

Roles are those that the word needed when it was said. To take back one's own word needs none. Labels out of a file need
an approver who brought them and raters who might have said them.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from orchestrator.core import events as ev
from orchestrator.core.events import Event
from orchestrator.core.records import AUTOMATIC_REVIEWERS, Purpose, Role
from orchestrator.core.state import CampaignState
from orchestrator.core.verification import Problem

UNDER_WAY: Final = timedelta(minutes=1)
"""Between the look at a token and the append lie a wait for the database and the clocks of two machines: a token or a
role that ended, or began, so little apart from a word does not speak against it."""

Word = ev.LabelsRecorded | ev.LabelWithdrawn | ev.LabelRepeated | ev.LabelAdjudicated | ev.DecisionMade


@dataclass(frozen=True, slots=True)
class Token:
    """A session's or token's row, or an invitation's; its secret is nobody's business."""

    person: str
    kind: str
    """`session`, `token` or `invitation`; the last opens a session and says nothing itself."""
    created: datetime
    expires: datetime
    revoked: datetime | None


@dataclass(frozen=True, slots=True)
class Held:
    """A role that somebody held for some time."""

    role: Role
    campaign: str | None
    """None: every campaign of the ledger."""
    since: datetime
    until: datetime | None
    """None: they hold it still."""


@dataclass(frozen=True, slots=True)
class Register:
    """Whoever was let in to a ledger."""

    tokens: Mapping[str, Token]
    """By their public ids."""
    roles: Mapping[str, tuple[Held, ...]]
    """By person."""


def unvouched(campaign: str, events: Iterable[Event], state: CampaignState, register: Register) -> tuple[Problem, ...]:
    """The words that the register does not stand behind, in order.

    Args:
        events: the whole history of the campaign, which folds.
        state: what it folds to.
    """
    said = [(event, event.body) for event in events if isinstance(event.body, Word)]
    words = [(event, body, body.credential) for event, body in said if body.credential is not None]
    if words and not register.tokens:
        # One line, not one a word: whoever keeps the chain without its people is told that nothing could be compared.
        what = f"{len(words)} labels and decisions name tokens, and nobody is known here: nothing shows whose they are"
        return (Problem("people", what),)
    nameless = [event for event, body in said if body.credential is None and _is_peoples(body, state)]
    found = [(event.seq, "it stands for people's words, and names no token of anybody's") for event in nameless]
    found += [
        (event.seq, what)
        for event, body, credential in words
        for what in _problems(campaign, event, body, credential, state, register)
    ]
    return tuple(Problem(f"event {seq}", what) for seq, what in sorted(found, key=lambda each: each[0]))


def _is_peoples(body: Word, state: CampaignState) -> bool:
    """Whether no controller could have said it."""
    match body:
        case ev.LabelsRecorded():
            batch = state.batch(body.batch)
            audit = batch is not None and batch.purpose is Purpose.AUDIT
            return (state.gate.audit.evaluator if audit else state.feedback.rater) == "people"
        case ev.DecisionMade():
            return body.reviewer not in AUTOMATIC_REVIEWERS
        case _:
            return True


def _problems(
    campaign: str, event: Event, body: Word, credential: str, state: CampaignState, register: Register
) -> Iterator[str]:
    token = register.tokens.get(credential)
    if token is None:
        yield f"it names the token {credential}, and nobody was ever given that"
        return
    if token.kind == "invitation":
        yield f"it names {credential}, an invitation, with which nothing can be said"
    if event.author != token.person:
        yield f"its author is {event.author}, and the token {credential} is {token.person}'s"
    if event.at < token.created - UNDER_WAY:
        yield f"the token {credential} was given only later, at {_told(token.created)}"
    if token.revoked is not None and event.at > token.revoked + UNDER_WAY:
        yield f"the token {credential} had been revoked, at {_told(token.revoked)}"
    if event.at > token.expires + UNDER_WAY:
        yield f"the token {credential} had expired, at {_told(token.expires)}"
    for person, role in _roles_needed(body, token.person, state):
        held_ever = register.roles.get(person, ())
        if not any(_allows(held, role, campaign, event.at) for held in held_ever):
            yield f"{person} was no {role} of {campaign} then"


def _roles_needed(body: Word, speaker: str, state: CampaignState) -> Iterator[tuple[str, Role]]:
    match body:
        case ev.LabelsRecorded(batch=name) | ev.LabelRepeated(batch=name):
            batch = state.batch(name)
            assert batch is not None, "the history folds, so its words are on sealed batches"
            role = Role.AUDITOR if batch.purpose is Purpose.AUDIT else Role.LABELER
            if isinstance(body, ev.LabelsRecorded) and body.origin is not None:
                yield speaker, Role.APPROVER
                yield from ((rater, role) for rater in sorted({label.rater for label in body.labels}))
            else:
                yield speaker, role
        case ev.LabelAdjudicated() | ev.DecisionMade():
            yield speaker, Role.APPROVER


def _allows(held: Held, role: Role, campaign: str, at: datetime) -> bool:
    return (
        held.role is role
        and held.campaign in (None, campaign)
        and held.since - UNDER_WAY <= at
        and (held.until is None or at <= held.until + UNDER_WAY)
    )


def _told(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
