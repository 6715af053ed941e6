"""What refusals look like from outside: a status, what is wrong, and what to do next. For pages and API alike."""

from dataclasses import dataclass
from typing import Final

from orchestrator.errors import (
    ArtifactMissingError,
    CommandConflictError,
    ConflictError,
    ForbiddenError,
    HeadMovedError,
    IntegrityError,
    NotFoundError,
    RatchetError,
    StorageError,
    UnauthenticatedError,
    UnknownCampaignError,
    UsageError,
)
from orchestrator.text import visible


class RefusedError(RatchetError):
    """The web's own: a request that no rule of the campaign was asked about."""

    def __init__(self, message: str, *, status: int, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Answer:
    """How a refusal is told."""

    status: int
    error: str
    next: str
    """What to do now; may be empty."""
    retry_after_s: float | None = None


_STATUSES: Final[tuple[tuple[type[RatchetError], int], ...]] = (
    (UnauthenticatedError, 401),
    (ForbiddenError, 403),
    (UnknownCampaignError, 404),
    (NotFoundError, 404),
    (ConflictError, 409),
    (CommandConflictError, 409),
    (HeadMovedError, 409),
    (ArtifactMissingError, 503),
    (IntegrityError, 500),
    (StorageError, 503),
    (UsageError, 422),
)
_INVITE: Final = "ask whoever runs the campaign for a new invitation (`ratchet review invite`)"
_UNAUTHENTICATED: Final = {
    "unknown": (401, "this token or code is not known here", _INVITE),
    "expired": (401, "this token or code has expired", _INVITE),
    "revoked": (401, "this access was taken back", "ask whoever runs the campaign"),
    "used": (410, "this invitation was used already; each works once", _INVITE),
}
TITLES: Final = {
    400: "This request makes no sense",
    401: "You are not signed in",
    403: "This is not yours to do",
    404: "There is nothing here",
    405: "This cannot be done here",
    408: "That took too long",
    409: "Something else stands already",
    410: "This invitation was used",
    413: "That is too much at once",
    421: "Wrong address",
    422: "This cannot be recorded",
    429: "One moment, please",
    431: "That is too much at once",
    500: "Something broke",
    503: "The server is busy",
}


def answer_to(error: RatchetError) -> Answer:
    if isinstance(error, RefusedError):
        return _split(error.status, str(error), error.retry_after_s)
    if isinstance(error, UnauthenticatedError):
        return Answer(*_UNAUTHENTICATED[error.why])
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
    return _split(status, str(error), 1.0 if status == 503 else None)


def _split(status: int, message: str, retry_after_s: float | None) -> Answer:
    """Errors name the next action behind a semicolon."""
    error, _, action = visible(message).partition("; ")
    return Answer(status, error, action, retry_after_s)
