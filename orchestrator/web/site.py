"""What pages and API share: the campaigns' offices, who is asking, and how much they may ask."""

import gc
import hashlib
import threading

from orchestrator.artifacts import ArtifactStore
from orchestrator.core.records import Role
from orchestrator.errors import (
    ForbiddenError,
    IntegrityError,
    LedgerVersionError,
    UnauthenticatedError,
    UnknownCampaignError,
)
from orchestrator.review.desk import Desk
from orchestrator.review.identity import Person
from orchestrator.review.office import Office
from orchestrator.store.ledger import Ledger
from orchestrator.web.answers import RefusedError
from orchestrator.web.limits import Buckets, Limits, Recent


class Site:
    """One ledger, seen through the web. Threads share it."""

    def __init__(self, ledger: Ledger, artifacts: ArtifactStore, limits: Limits) -> None:
        self.ledger = ledger
        self.artifacts = artifacts
        self._offices: dict[str, Office] = {}
        self._lock = threading.Lock()
        self._people = Buckets(limits.person)
        self._failures = Buckets(limits.failure)
        self._known = Recent()

    def person(self, secret: str, address: str) -> Person:
        """Whoever holds this session or token.

        Raises:
            UnauthenticatedError: nobody, or nobody any more.
            RefusedError: too many requests of theirs, or too many wrong tokens from their address.
        """
        try:
            person = self.ledger.people.authenticate(secret)
        except UnauthenticatedError:
            self._known.discard(_digest(secret))
            if wait_s := self._failures.take(address):
                raise _too_many("too many wrong tokens came from this address", wait_s) from None
            raise
        self._known.add(_digest(secret))
        if wait_s := self._people.take(person.name):
            raise _too_many("you are quicker than this server allows", wait_s)
        return person

    def is_known(self, secret: str) -> bool:
        """Whether it opened something when it was last seen: asked where that saves a look, and decides nothing."""
        return _digest(secret) in self._known

    def redeem(self, code: str, address: str) -> tuple[str, Person]:
        """Turn an invitation into a session; gives its secret.

        Raises:
            UnauthenticatedError: unknown, expired, revoked or used.
            RefusedError: too many wrong ones came from this address.
        """
        if self._failures.is_empty(address):
            raise _too_many("too many wrong codes came from this address", 2.0)
        try:
            secret, person = self.ledger.people.redeem(code, kind="session")
        except UnauthenticatedError:
            self._failures.take(address)
            raise
        self._known.add(_digest(secret))
        return secret, person

    def office(self, campaign: str) -> Office:
        """The campaign's one office, shared by all requests.

        Raises:
            UnknownCampaignError: there is no such campaign.
        """
        office = self._offices.get(campaign)
        if office is None:
            with self._lock:
                office = self._offices.get(campaign)
                if office is None:
                    if campaign not in self.ledger.campaigns():
                        raise UnknownCampaignError("there is no such campaign; see the campaigns on your first page")
                    office = Office(self.ledger, self.artifacts, campaign)
                    office.state()
                    gc.freeze()  # what was read stays: to look through it for garbage stops everybody for 0.1 s
                    self._offices[campaign] = office
        return office

    def desk(self, person: Person, campaign: str) -> Desk:
        """
        Raises:
            ForbiddenError: they have no role there, whether or not it exists.
            UnknownCampaignError: it does not.
        """
        if not any(person.may(role, campaign) for role in Role):
            raise ForbiddenError("you have no part in this campaign; ask whoever runs it for an invitation")
        return Desk(self.office(campaign), person)

    def approvers_desk(self, person: Person, campaign: str) -> Desk:
        """
        Raises:
            ForbiddenError: they are no approver there.
            UnknownCampaignError: there is no such campaign.
        """
        desk = self.desk(person, campaign)
        if not person.may(Role.APPROVER, campaign):
            raise ForbiddenError("this is for approvers; ask whoever runs the campaign to make you one")
        return desk

    def campaigns(self, person: Person) -> tuple[str, ...]:
        """Those in which this person has a part, by their priority and then by name."""
        mine = (name for name in self.ledger.campaigns() if any(person.may(role, name) for role in Role))
        return tuple(sorted(mine, key=lambda name: (-self._priority(name), name)))

    def _priority(self, campaign: str) -> int:
        """None above the others for one that cannot be read, which whoever reads it is told."""
        try:
            return self.office(campaign).settings().priority
        except (IntegrityError, LedgerVersionError):
            return 0


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


def _too_many(what: str, wait_s: float) -> RefusedError:
    return RefusedError(f"{what}; wait a moment and try again", status=429, retry_after_s=wait_s)
