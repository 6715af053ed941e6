"""The same actions for programs: JSON under /api/v1, by a bearer token, described at /api/v1/openapi.json.

No cookie is looked at here, so there is nothing that another site's page could borrow. Rules are the desk's, as for
the pages, and what a program is told of a comparison is what a person is shown.
"""

import logging
import math
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from orchestrator.core.commands import AskForDecision, AskForLabels
from orchestrator.core.records import Choice, Decision, Digest, Harm, Purpose, Role
from orchestrator.errors import IntegrityError, LedgerVersionError, RatchetError, UnauthenticatedError
from orchestrator.review.case import case_of
from orchestrator.review.identity import Person
from orchestrator.text import visible
from orchestrator.web.answers import Answer, RefusedError, answer_to
from orchestrator.web.security import address_of, prove
from orchestrator.web.sessions import bearer_of
from orchestrator.web.site import Site

log: Final = logging.getLogger(__name__)

PREFIX: Final = "/api/v1"
OPENAPI_PATH: Final = f"{PREFIX}/openapi.json"

Campaign = Annotated[str, Path(pattern="^[a-z0-9][a-z0-9_.-]{0,63}$", description="Name of a campaign")]


def _integral(value: Any) -> Any:
    """JSON has one kind of number: 5.0 is an integer, `true` and "5" are none."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE: Final = BeforeValidator(_integral)
Reason = Annotated[str, Field(min_length=1, max_length=4000, pattern=r"\S", strict=True)]


class Given(BaseModel):
    """Base of what comes in: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Told(BaseModel):
    """Base of what goes out."""

    model_config = ConfigDict(frozen=True)


class Error(Told):
    error: str
    next: str
    """What to do now; may be empty."""


class Grant(Told):
    role: Role
    campaign: str | None
    """None: every campaign."""


class Me(Told):
    name: str
    credential: str
    """Public id of the token in use; the ledger names it beside every word said with it."""
    grants: list[Grant]


class CampaignWaiting(Told):
    name: str
    waits_for: Literal["labels", "audit", "decision", "nobody"]
    labelled: int | None
    """Comparisons that need no more labels; null unless labels or an audit are waited for."""
    wanted: int | None
    mine: int | None
    """Labels by you."""
    refusal: str | None
    """Why you may not label what waits."""


class Comparison(Told):
    ticket: str
    number: int
    """The how-manieth of yours this is, from 1."""
    prompt: str
    left: str
    right: str


class Next(Told):
    comparison: Comparison | None
    refusal: str | None
    """Why you are given none, where that is about you."""
    guidelines: str | None


class LabelGiven(Given):
    ticket: Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,64}$", strict=True)]
    choice: Choice
    """`first` is the response on the left."""
    harm: Harm | None = None


class LabelTold(Told):
    standing: Literal["recorded", "again", "extra", "late"]
    choice: Choice


class UndoGiven(Given):
    number: Annotated[int, Field(ge=1, le=10**9, strict=True), WHOLE] | None = None
    """The how-manieth of your words it is; a repeated request takes no other word back."""


class UndoTold(Told):
    standing: Literal["undone", "too_late", "again"]
    """`again`: it was taken back before."""


class Word(Told):
    number: int
    prompt: str
    left: str
    right: str
    choice: Choice
    harm: Harm | None
    undoable: bool


class CandidateTold(Told):
    digest: Digest
    approvals: int
    approvers: int
    """Approvals that it needs."""
    case: dict[str, Any]
    """The safety case, in numbers and words."""


class DecisionGiven(Given):
    decision: Decision
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$", strict=True)]
    """The whole digest: a decision binds the candidate that was read."""
    reason: Reason
    override: Annotated[bool, Field(strict=True)] = False
    """Approve in the place of all who are missing, where the campaign allows it."""


class DecisionTold(Told):
    digest: str
    standing: Literal["recorded", "again"]
    approvals: int
    approvers: int


class Verdict(Told):
    rater: str
    choice: Choice


class Settled(Told):
    by: str
    choice: Choice
    reason: str


class DisagreementTold(Told):
    batch: str
    item: int
    prompt: str
    response_1: str
    response_2: str
    words: list[Verdict]
    settled: list[Settled]
    """The last one counts."""


class AdjudicationGiven(Given):
    batch: Annotated[str, Field(min_length=1, max_length=100, strict=True)]
    item: Annotated[int, Field(ge=0, le=10**9, strict=True), WHOLE]
    choice: Choice
    """`first` is response 1."""
    reason: Reason


class Adjudicated(Told):
    standing: Literal["recorded"]


_REFUSALS: Final = {
    400: "The request cannot be read.",
    401: "No token, or one that is unknown, expired or revoked.",
    403: "Not your role, or somebody else's ticket.",
    404: "No such campaign, or nothing there.",
    405: "No such method.",
    408: "The request came too slowly.",
    409: "Another word stands, or another candidate waits.",
    413: "Too large.",
    421: "Wrong host.",
    422: "Malformed, or not allowed now.",
    429: "Too many requests.",
    431: "Too large an address, or headers.",
    500: "A mistake of the server's.",
    503: "Busy; try again.",
}


def router(site: Site) -> APIRouter:
    def caller(request: Request) -> Person:
        secret = bearer_of(request.scope["headers"])
        if secret is None:
            raise UnauthenticatedError("no token was given; send `Authorization: Bearer rtc_…`")
        person = site.person(secret, address_of(request.scope))
        prove(request.scope)
        return person

    me_now = Annotated[Person, Depends(caller)]
    found = APIRouter(
        prefix=PREFIX,
        dependencies=[Depends(HTTPBearer(auto_error=False, description="A token from `ratchet review invite`"))],
        responses={status: {"model": Error, "description": what} for status, what in _REFUSALS.items()},
    )

    @found.get("/me", operation_id="me")
    def me(person: me_now) -> Me:
        """Who you are here, and what you may do."""
        grants = sorted(person.grants, key=lambda grant: (grant[1] or "", grant[0]))
        return Me(
            name=person.name,
            credential=person.credential,
            grants=[Grant(role=role, campaign=campaign) for role, campaign in grants],
        )

    @found.get("/campaigns", operation_id="campaigns")
    def campaigns(person: me_now) -> list[CampaignWaiting]:
        """The campaigns in which you have a part, and what they wait for; without those that cannot be read."""
        found = []
        for name in site.campaigns(person):
            try:
                found.append(_waiting(site, person, name))
            except (IntegrityError, LedgerVersionError) as error:
                log.error("passing over %s: %s", name, error)
        return found

    @found.get("/campaigns/{campaign}/next", operation_id="next")
    def next_comparison(campaign: Campaign, person: me_now) -> Next:
        """What you are to label now. It is lent to you for some minutes; asking again gives the same one."""
        desk = site.desk(person, campaign)
        asked = desk.asked()
        shown = None
        if asked is not None:
            shown = Comparison(
                ticket=asked.ticket,
                number=asked.number,
                prompt=_sendable(asked.prompt),
                left=_sendable(asked.left),
                right=_sendable(asked.right),
            )
        guidelines = site.office(campaign).settings().feedback.guidelines
        return Next(comparison=shown, refusal=None if shown else desk.refusal(), guidelines=guidelines)

    @found.post("/campaigns/{campaign}/labels", operation_id="label")
    def label(campaign: Campaign, given: LabelGiven, person: me_now) -> LabelTold:
        """Say which response is better. Saying the same twice is saying it once."""
        said = site.desk(person, campaign).label(given.ticket, given.choice, given.harm)
        return LabelTold(standing=said.standing.value, choice=said.choice)

    @found.post("/campaigns/{campaign}/undo", operation_id="undo")
    def undo(campaign: Campaign, given: UndoGiven, person: me_now) -> UndoTold:
        """Take your last word back; the comparison comes again."""
        return UndoTold(standing=site.desk(person, campaign).undo(given.number).standing.value)

    @found.get("/campaigns/{campaign}/history", operation_id="history")
    def history(campaign: Campaign, person: me_now, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> list[Word]:
        """Your own words, the newest first."""
        return [
            Word(
                number=word.number,
                prompt=_sendable(word.prompt),
                left=_sendable(word.left),
                right=_sendable(word.right),
                choice=word.choice,
                harm=word.harm,
                undoable=word.undoable,
            )
            for word in site.desk(person, campaign).mine(limit)
        ]

    @found.get("/campaigns/{campaign}/candidate", operation_id="candidate")
    def candidate(campaign: Campaign, person: me_now) -> CandidateTold:
        """The candidate that waits for a decision, with its safety case; 404 where none waits."""
        site.approvers_desk(person, campaign)
        office = site.office(campaign)
        command = office.command()
        if not isinstance(command, AskForDecision) or command.attempt.candidate is None:
            raise RefusedError("no candidate waits for a decision; see what waits at /api/v1/campaigns", status=404)
        case = case_of(
            office.state(), office.settings(), command.attempt, site.artifacts, code_version=office.code_version
        )
        return CandidateTold(
            digest=command.attempt.candidate,
            approvals=command.approvals,
            approvers=command.approvers,
            case=_plain(asdict(case)),
        )

    @found.post("/campaigns/{campaign}/decision", operation_id="decide")
    def decide(campaign: Campaign, given: DecisionGiven, person: me_now) -> DecisionTold:
        """Approve or reject the candidate of this digest."""
        desk = site.approvers_desk(person, campaign)
        decided = desk.decide(given.decision, given.digest, given.reason, override=given.override)
        return DecisionTold(
            digest=decided.digest,
            standing=decided.standing.value,
            approvals=decided.approvals,
            approvers=decided.approvers,
        )

    @found.get("/campaigns/{campaign}/disagreements", operation_id="disagreements")
    def disagreements(campaign: Campaign, person: me_now) -> list[DisagreementTold]:
        """Comparisons that raters saw differently."""
        return [
            DisagreementTold(
                batch=found.batch,
                item=found.item,
                prompt=_sendable(found.prompt),
                response_1=_sendable(found.response_1),
                response_2=_sendable(found.response_2),
                words=[Verdict(rater=rater, choice=choice) for rater, choice in found.words],
                settled=[Settled(by=by, choice=choice, reason=reason) for by, choice, reason in found.settled],
            )
            for found in site.approvers_desk(person, campaign).disagreements()
        ]

    @found.post("/campaigns/{campaign}/settlements", operation_id="adjudicate")
    def adjudicate(campaign: Campaign, given: AdjudicationGiven, person: me_now) -> Adjudicated:
        """Settle one of them. What the raters said stays."""
        desk = site.approvers_desk(person, campaign)
        desk.adjudicate(given.batch, given.item, given.choice, given.reason)
        return Adjudicated(standing="recorded")

    @found.get("/openapi.json", include_in_schema=False)
    def openapi() -> JSONResponse:
        return JSONResponse(_document(found))

    return found


def refusal(answer: Answer) -> JSONResponse:
    headers = {}
    if answer.status == 401:
        headers["www-authenticate"] = "Bearer"
    if answer.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(answer.retry_after_s)))
    return JSONResponse({"error": answer.error, "next": answer.next}, answer.status, headers)


async def refused(request: Request, error: Exception) -> JSONResponse:
    """What a rule refused, to a program."""
    assert isinstance(error, RatchetError)
    answer = answer_to(error)
    if answer.status >= 500:
        log.error("%s %s: %s", request.method, visible(request.url.path, 200), answer.error)
    return refusal(answer)


def invalid(error: RequestValidationError) -> JSONResponse:
    """Names the places, unknown keys too, and what they should be; quotes no value that was sent."""
    problems = "; ".join(
        f"{'.'.join(visible(str(part), 60) for part in problem['loc'])}: {problem['msg']}"
        for problem in error.errors()[:5]
    )
    return refusal(Answer(422, visible(problems, 1000), f"see {OPENAPI_PATH}"))


def _waiting(site: Site, person: Person, campaign: str) -> CampaignWaiting:
    desk, command = site.desk(person, campaign), site.office(campaign).command()
    progress = refusal = None
    waits_for: Literal["labels", "audit", "decision", "nobody"] = "nobody"
    if isinstance(command, AskForDecision):
        waits_for = "decision"
    elif isinstance(command, AskForLabels):
        waits_for = "audit" if command.batch.purpose is Purpose.AUDIT else "labels"
        progress, refusal = desk.progress(), desk.refusal()
    return CampaignWaiting(
        name=campaign,
        waits_for=waits_for,
        labelled=progress.labelled if progress else None,
        wanted=progress.wanted if progress else None,
        mine=progress.mine if progress else None,
        refusal=refusal,
    )


def _document(routes: APIRouter) -> dict[str, Any]:
    return get_openapi(
        title="Ratchet review",
        version="1",
        description="Label comparisons; approve or reject candidates. Every word is recorded once, with its author.",
        routes=[route for route in routes.routes if isinstance(route, APIRoute)],
    )


def _sendable(text: str) -> str:
    """Lone surrogates have no form in UTF-8; everything else goes out as it is."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _plain(value: Any) -> Any:
    """As JSON has it: NaN and infinity become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return _sendable(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return value
