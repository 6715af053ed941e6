"""Every error that Ratchet raises on purpose, with the exit code it ends a command with.

A message names the cause and the next action in one or two lines. Each class takes that message as its only
positional argument, so that errors survive pickling between processes. To add one: subclass the narrowest class
that fits, say in the docstring when it is raised, and give it an exit code only if the family's is wrong.
"""

from __future__ import annotations

from typing import ClassVar, Literal


class RatchetError(Exception):
    """The base of all of them; catch it to report, never to carry on."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)


class UsageError(RatchetError):
    """A command or call was given something that it cannot take."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file or an override is malformed."""


class CampaignExistsError(UsageError):
    """A campaign of that name is already in the ledger."""


class UnknownCampaignError(UsageError):
    """No campaign of that name is in the ledger."""


class IntegrityError(RatchetError):
    """What is stored is not what was written; nothing may be built on it."""

    exit_code = 5


class LedgerCorruptError(IntegrityError):
    """An event was edited, removed or reordered, or the database itself is damaged."""


class ArtifactCorruptError(IntegrityError):
    """A file of an artifact differs from its manifest, or the manifest from its digest."""


class ArtifactMissingError(IntegrityError):
    """No artifact with that digest is in the store."""


class LockedError(RatchetError):
    """Another controller runs this campaign."""

    exit_code = 11


class StaleEpochError(LockedError):
    """This controller was fenced: another one took the campaign over."""


class StorageError(RatchetError):
    """The disk or database refused: read-only, unreachable, an I/O error, or locked for too long."""


class StorageFullError(StorageError):
    """No room was left; nothing was half written."""


class LedgerVersionError(RatchetError):
    """The database was written by another version of Ratchet, or is not a ledger."""


class HeadMovedError(RatchetError):
    """Events came in that the author of an append had not seen; fold them and decide again."""


class UnauthenticatedError(RatchetError):
    """A secret (an invitation's code, a session, a token) that opens nothing, or nothing any more. Never quotes it."""

    def __init__(self, message: str, *, why: Literal["unknown", "expired", "revoked", "used"] = "unknown") -> None:
        super().__init__(message)
        self.why: Literal["unknown", "expired", "revoked", "used"] = why


class ForbiddenError(RatchetError):
    """Somebody who is known asks for what they were not given, or for what is somebody else's."""


class CommandConflictError(RatchetError):
    """A command id came twice with different contents; the first stands."""


class ConflictError(UsageError):
    """What somebody wants to say does not fit what has been said or decided meanwhile."""


class NotFoundError(UsageError):
    """Something that was named is not known here."""


class WorkFailedError(RatchetError):
    """A work item (a phase, a fit, a sampling) ended without a result."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable
        """Whether the same specification may succeed when it is run again."""
