"""Who somebody is, and what they may do. How they prove it is `store.people`'s."""

from dataclasses import dataclass

from orchestrator.core.records import Role

Grant = tuple[Role, str | None]
"""A role and the campaign that it is given for; None: every campaign of the ledger."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who proved who they are."""

    name: str
    """As `names.same_name` spells it."""
    credential: str
    """The public id of the session or token in use, recorded with every word; never a secret."""
    grants: frozenset[Grant]

    def may(self, role: Role, campaign: str) -> bool:
        return (role, None) in self.grants or (role, campaign) in self.grants
