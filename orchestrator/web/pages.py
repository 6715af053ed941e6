"""The pages: forms and links that work without script. What they do is the desk's; here it is read and told.

Nothing in a page, its address, its order of markup or its headers says which response is the candidate's, that an item
is a check, or that it was shown before: a page knows a ticket, and two texts as they are shown.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from orchestrator import differences
from orchestrator.core.commands import AskForDecision, AskForLabels
from orchestrator.core.records import Choice, Decision, Harm, Purpose, Role
from orchestrator.errors import IntegrityError, LedgerVersionError, RatchetError, UnauthenticatedError
from orchestrator.review.case import case_of
from orchestrator.review.desk import Desk, Outlook, Standing
from orchestrator.review.identity import Person
from orchestrator.web.answers import TITLES, Answer, RefusedError, answer_to
from orchestrator.web.rendering import Templates, counted, shown_length
from orchestrator.web.security import address_of, prove
from orchestrator.web.sessions import Cookie, form_mark, require_own_form, require_own_site
from orchestrator.web.site import Site

log: Final = logging.getLogger(__name__)

CHOICE_WORDS: Final = {
    Choice.FIRST: "response 1 is better",
    Choice.SECOND: "response 2 is better",
    Choice.TIE: "a tie",
    Choice.BOTH_BAD: "both are bad",
    Choice.SKIP: "skipped",
}
HARM_WORDS: Final = {
    Harm.FIRST: "response 1 is harmful",
    Harm.SECOND: "response 2 is harmful",
    Harm.BOTH: "both are harmful",
}
TOLD: Final = {
    "recorded": "Recorded: {}.",
    "again": "Recorded already: {}. It counts once.",
    "extra": "Kept: {}. Others were quicker, so this comparison had its labels already.",
    "late": "Kept: {}. The candidate was decided meanwhile, so it changes nothing there.",
    "undone": "Taken back. Here is the comparison again.",
    "back": "It was taken back already.",
    "settled": "Settled. What the raters said stays beside it.",
    "too_late": "Noted that you take it back; it came too late to change anything.",
}
DECISION_WORDS: Final = {Decision.APPROVE: "approved", Decision.REJECT: "rejected"}
DIGITS: Final = 8
"""Of a digest, typed by whoever decides."""
PIECE_CHARACTERS: Final = 100_000
"""Of one text on the page that shows the whole of it."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of one person."""

    site: Site
    templates: Templates
    person: Person
    secret: str
    path: dict[str, str]
    query: dict[str, str]
    form: dict[str, str]

    @property
    def campaign(self) -> str:
        return self.path["campaign"]

    def desk(self) -> Desk:
        return self.site.desk(self.person, self.campaign)

    def approvers_desk(self) -> Desk:
        return self.site.approvers_desk(self.person, self.campaign)

    def page(self, template: str, *, status: int = 200, **values: Any) -> Response:
        return self.templates.page(template, status=status, **_frame(self.person, self.secret), **values)


Handler = Callable[[Visit], Response]


@dataclass(frozen=True, slots=True)
class Pages:
    """Builds the routes."""

    site: Site
    templates: Templates
    cookie: Cookie
    origin: str | None
    """Ours as seen from outside, where a proxy stands in front."""

    def routes(self) -> list[BaseRoute]:
        campaign = "/c/{campaign}"
        return [
            self._route("/", home),
            Route("/join", self._join, methods=["GET", "POST"]),
            self._route("/leave", None, self._leave),
            self._route("/help", help_page),
            self._route(f"{campaign}/label", label_page, label),
            self._route(f"{campaign}/undo", None, undo),
            self._route(f"{campaign}/label/{{ticket}}/{{part}}", whole_text),
            self._route(f"{campaign}/guidelines", guidelines),
            self._route(f"{campaign}/history", history),
            self._route(f"{campaign}/candidate", candidate, confirm),
            self._route(f"{campaign}/decision", None, decide),
            self._route(f"{campaign}/disagreements", disagreements, adjudicate),
        ]

    def refusal(
        self, answer: Answer, person: Person | None = None, secret: str | None = None, *, stranger: bool = True
    ) -> Response:
        """A refusal as a page: what is wrong, and the way on.

        Args:
            stranger: whether to offer the way in, rather than the first page; nobody that is named here is one.
        """
        response = self.templates.page(
            "error.html",
            status=answer.status,
            title=TITLES.get(answer.status, "This did not work"),
            error=answer.error,
            next=answer.next,
            stranger=stranger and person is None,
            **_frame(person, secret),
        )
        if answer.retry_after_s is not None:
            response.headers["retry-after"] = str(max(1, round(answer.retry_after_s)))
        return response

    def _route(self, path: str, shows: Handler | None, does: Handler | None = None) -> Route:
        async def endpoint(request: Request) -> Response:
            handler = does if request.method == "POST" else shows
            assert handler is not None
            body = await request.body() if request.method == "POST" else None
            return await run_in_threadpool(self._visit, request, handler, body)

        return Route(path, endpoint, methods=[*(["GET"] if shows else []), *(["POST"] if does else [])])

    def _visit(self, request: Request, handler: Handler, body: bytes | None) -> Response:
        secret = self.cookie.read(request.scope["headers"])
        if secret is None:
            return self._unknown(request)
        person = None
        try:
            if body is not None:
                require_own_site(request, self.origin, anonymous=False)
            person = self.site.person(secret, address_of(request.scope))
            prove(request.scope)
            form = {} if body is None else _fields(request, body)
            if body is not None:
                require_own_form(secret, form.get("mark", ""))
            query = dict(request.query_params)
            return handler(Visit(self.site, self.templates, person, secret, request.path_params, query, form))
        except RatchetError as error:
            answer = answer_to(error)
            if answer.status >= 500:
                log.error("%s %s: %s", request.method, request.url.path, answer.error)
            gone = isinstance(error, UnauthenticatedError)
            response = self.refusal(answer, person, None if person is None else secret, stranger=gone)
            if gone:
                self.cookie.clear(response)
            return response

    def _unknown(self, request: Request) -> Response:
        if request.method == "GET" and request.headers.get("sec-fetch-site") == "cross-site":
            # A link from elsewhere carries no cookie of ours, signed in or not; a click from this page does.
            again = request.url.path
            return self.templates.page("arrive.html", status=401, again=again, **_frame(None, None))
        return self.refusal(
            Answer(401, "nobody is signed in on this device", "open your invitation link, or paste its code on /join")
        )

    async def _join(self, request: Request) -> Response:
        if request.method == "POST":
            return await run_in_threadpool(self._redeem, request, await request.body())
        return await run_in_threadpool(self._join_page)

    def _join_page(self, wrong: Answer | None = None) -> Response:
        anybody = wrong is not None or self.site.ledger.people.any()
        status = 200 if wrong is None else wrong.status
        return self.templates.page("join.html", status=status, anybody=anybody, wrong=wrong, **_frame(None, None))

    def _redeem(self, request: Request, body: bytes) -> Response:
        try:
            require_own_site(request, self.origin, anonymous=True)
            code = _fields(request, body).get("code", "").strip().rpartition("#")[2]  # or the whole link, pasted
            secret, person = self.site.redeem(code, address_of(request.scope))
        except UnauthenticatedError as error:
            return self._join_page(answer_to(error))
        except RatchetError as error:
            return self.refusal(answer_to(error))
        response = _go(_only_waiting(Visit(self.site, self.templates, person, secret, {}, {}, {})) or "/")
        self.cookie.write(response, secret)
        return response

    def _leave(self, visit: Visit) -> Response:
        self.site.ledger.people.end_session(visit.secret)
        response = _go("/join")
        self.cookie.clear(response)
        return response


# ---- what each page shows and does ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a campaign has for one person."""

    campaign: str
    what: str
    """One line."""
    link: str | None
    """Where it is done; None: there is nothing for them to do."""
    verb: str
    priority: int
    """Lower comes first."""
    detail: str = ""
    others: tuple[tuple[str, str], ...] = ()
    """Further pages of this campaign's for this person: name and address."""


def home(visit: Visit) -> Response:
    return visit.page("home.html", waiting=_all_waiting(visit))


def _all_waiting(visit: Visit) -> list[Waiting]:
    found = (_waiting_if_readable(visit, name) for name in visit.site.campaigns(visit.person))
    return sorted(found, key=lambda waiting: (waiting.priority, waiting.campaign))


def _only_waiting(visit: Visit) -> str | None:
    """Where somebody who comes in goes at once: to the one thing that waits for them."""
    try:
        links = [waiting.link for waiting in _all_waiting(visit) if waiting.link is not None]
    except RatchetError:  # told on the first page; here it would cost them the code, which works once
        return None
    return links[0] if len(links) == 1 else None


def _waiting_if_readable(visit: Visit, campaign: str) -> Waiting:
    try:
        return _waiting(visit, campaign)
    except (IntegrityError, LedgerVersionError) as error:
        log.error("passing over %s: %s", campaign, error)
        return Waiting(campaign, "This campaign cannot be read now; tell whoever runs it", None, "", 7)


def _waiting(visit: Visit, campaign: str) -> Waiting:
    desk, may, at = visit.site.desk(visit.person, campaign), visit.person.may, f"/c/{campaign}"
    command = visit.site.office(campaign).command()
    labels = may(Role.LABELER, campaign) or may(Role.AUDITOR, campaign)
    others = (("My history", f"{at}/history"),) if labels else ()
    if may(Role.APPROVER, campaign):
        others = (*others, ("Disagreements", f"{at}/disagreements"))
    if isinstance(command, AskForDecision):
        if not may(Role.APPROVER, campaign):
            return Waiting(campaign, "A candidate waits for its approvers", None, "", 5, "", others)
        count = f"{command.approvals} of {command.approvers} approvals"
        said = any(word.reviewer == visit.person.name for word in command.attempt.decisions)
        what = "You have decided; others are waited for" if said else "A candidate waits for your decision"
        return Waiting(campaign, what, f"{at}/candidate", "Read the case", 3 if said else 0, count, others)
    if isinstance(command, AskForLabels):
        progress, outlook = desk.progress(), desk.outlook()
        detail = f"{progress.labelled:,} of {progress.wanted:,} labelled"
        if labels:
            detail += f", {counted(progress.mine, 'label')} by you"
        audit = command.batch.purpose is Purpose.AUDIT
        if not may(Role.AUDITOR if audit else Role.LABELER, campaign):
            return Waiting(campaign, _others_label(visit.person, campaign, audit), None, "", 5, detail, others)
        if (refusal := desk.refusal()) is not None:
            return Waiting(campaign, _sentence(refusal), None, "", 4, detail, others)
        if not outlook.waits:
            return Waiting(campaign, _all_that_is_left(outlook), None, "", 4, detail, others)
        what = "Comparisons wait for an audit" if audit else "Comparisons wait for your word"
        return Waiting(campaign, what, f"{at}/label", "Label", 1 if audit else 2, detail, others)
    return Waiting(campaign, "Nothing waits for people", None, "", 6, "", others)


def _others_label(person: Person, campaign: str, audit: bool) -> str:
    """For whoever has another part in a campaign that is being labelled."""
    parts = {
        Role.LABELER: "when labels are wanted",
        Role.APPROVER: "when a candidate waits for a decision",
        Role.AUDITOR: "when an audit waits",
    }
    when = " or ".join(when for role, when in parts.items() if person.may(role, campaign))
    return f"{'Auditors' if audit else 'Labelers'} are at work; you are asked {when}"


def _all_that_is_left(outlook: Outlook) -> str:
    """For whoever may label, and finds nothing to label now."""
    if outlook.free_in is None:
        return "You have said all that is asked of you; others are waited for"
    minutes = math.ceil(outlook.free_in.total_seconds() / 60)
    return f"All that is left is on others' screens; look again in {counted(minutes, 'minute')}"


def help_page(visit: Visit) -> Response:
    return visit.page("help.html")


def label_page(visit: Visit) -> Response:
    desk = visit.desk()
    asked = desk.asked()
    told = _told(visit.query)
    if asked is None:
        outlook = desk.outlook()
        left = None if outlook.free_in is None else _all_that_is_left(outlook)
        return visit.page("rest.html", campaign=visit.campaign, refusal=desk.refusal(), left=left, told=told)
    spans = None
    if "differences" in visit.query:
        spans = differences.of(asked.left[: shown_length(asked.left)], asked.right[: shown_length(asked.right)])
    return visit.page(
        "label.html",
        campaign=visit.campaign,
        asked=asked,
        progress=desk.progress(),
        guidelines=visit.site.office(visit.campaign).settings().feedback.guidelines,
        spans=spans,
        told=told,
    )


def label(visit: Visit) -> Response:
    ticket, choice = visit.form.get("ticket", ""), _choice(visit.form)
    harmed = {side for side in ("left", "right") if visit.form.get(f"harm_{side}")}
    harm = {0: None, 2: Harm.BOTH}.get(len(harmed), Harm.FIRST if "left" in harmed else Harm.SECOND)
    said = visit.desk().label(ticket, choice, harm)
    return _go(f"/c/{visit.campaign}/label?told={said.standing.value}.{said.choice.value}")


def undo(visit: Visit) -> Response:
    number = visit.form.get("number", "")
    undone = visit.desk().undo(_whole_number(number, below=10**9) if number else None)
    standing = "back" if undone.standing is Standing.AGAIN else undone.standing.value
    return _go(f"/c/{visit.campaign}/label?told={standing}")


def whole_text(visit: Visit) -> Response:
    """One text of the comparison on this person's screen, all of it, in pieces."""
    part = visit.path["part"]
    asked = visit.desk().asked() if part in ("prompt", "left", "right") else None
    if asked is None or asked.ticket != visit.path["ticket"]:
        raise RefusedError("this comparison is not on your screen any more; go on with the next one", status=404)
    text = {"prompt": asked.prompt, "left": asked.left, "right": asked.right}[part]
    start = _whole_number(visit.query.get("from", "0"), below=max(len(text), 1))
    return visit.page(
        "text.html",
        campaign=visit.campaign,
        title={"prompt": "The prompt", "left": "Response 1", "right": "Response 2"}[part],
        text=text[start : start + PIECE_CHARACTERS],
        start=start,
        end=min(start + PIECE_CHARACTERS, len(text)),
        total=len(text),
        piece=PIECE_CHARACTERS,
    )


def guidelines(visit: Visit) -> Response:
    visit.desk()
    text = visit.site.office(visit.campaign).settings().feedback.guidelines
    return visit.page("guidelines.html", campaign=visit.campaign, guidelines=text)


def history(visit: Visit) -> Response:
    return visit.page("history.html", campaign=visit.campaign, words=visit.desk().mine(50))


def candidate(visit: Visit) -> Response:
    return _candidate_page(visit)


def _candidate_page(visit: Visit, *, status: int = 200, problem: str | None = None) -> Response:
    visit.approvers_desk()
    office = visit.site.office(visit.campaign)
    command, told = office.command(), _told(visit.query)
    if not isinstance(command, AskForDecision):
        last = next((a for a in reversed(office.state().attempts) if a.candidate is not None), None)
        return visit.page("decided.html", campaign=visit.campaign, told=told, last=last, status=status)
    state, settings = office.state(), office.settings()
    return visit.page(
        "candidate.html",
        status=status,
        campaign=visit.campaign,
        case=case_of(state, settings, command.attempt, visit.site.artifacts, code_version=office.code_version),
        digest=command.attempt.candidate,
        approvals=command.approvals,
        approvers=command.approvers,
        mine=next((word for word in command.attempt.decisions if word.reviewer == visit.person.name), None),
        may_override=settings.approval.override and command.approvers - command.approvals > 1,
        owner=settings.approval.owner,
        self_approval=settings.approval.self_approval,
        reason=visit.form.get("reason", ""),
        problem=problem,
        told=told,
    )


def confirm(visit: Visit) -> Response:
    """The decision once more, with the digest that it binds, before anything is recorded."""
    waiting = visit.approvers_desk().candidate()
    decision, reason = _decision(visit.form), visit.form.get("reason", "").strip()
    if waiting is None or waiting.candidate != visit.form.get("digest", ""):
        problem = "The candidate that you read of does not wait any more; this one does. Nothing was recorded."
        return _candidate_page(visit, status=409, problem=problem)
    if not reason:
        return _candidate_page(visit, status=422, problem="Say why: the reason stays on the ledger.")
    return _confirm_page(visit, decision, reason)


def _confirm_page(
    visit: Visit, decision: Decision, reason: str, *, status: int = 200, problem: str | None = None
) -> Response:
    return visit.page(
        "confirm.html",
        status=status,
        campaign=visit.campaign,
        decision=decision.value,
        digest=visit.form.get("digest", ""),
        reason=reason,
        override=bool(visit.form.get("override")),
        problem=problem,
    )


def decide(visit: Visit) -> Response:
    desk = visit.approvers_desk()
    decision, reason, digest = _decision(visit.form), visit.form.get("reason", "").strip(), visit.form.get("digest", "")
    typed = "".join(visit.form.get("typed", "").split()).lower()
    if len(typed) < DIGITS or not digest.startswith(typed):
        problem = f"These are not the first {DIGITS} digits of the digest above. Nothing was recorded."
        return _confirm_page(visit, decision, reason, status=422, problem=problem)
    decided = desk.decide(decision, digest, reason, override=bool(visit.form.get("override")))
    return _go(f"/c/{visit.campaign}/candidate?told={decided.standing.value}.{decision.value}")


def disagreements(visit: Visit) -> Response:
    found = visit.approvers_desk().disagreements()
    return visit.page("disagreements.html", campaign=visit.campaign, found=found, told=_told(visit.query))


def adjudicate(visit: Visit) -> Response:
    desk = visit.approvers_desk()
    reason = visit.form.get("reason", "").strip()
    item = _whole_number(visit.form.get("item", ""), below=10**9)
    desk.adjudicate(visit.form.get("batch", ""), item, _choice(visit.form), reason)
    return _go(f"/c/{visit.campaign}/disagreements?told=settled")


# ---- reading what a browser sent -----------------------------------------------------------------------------------


def _frame(person: Person | None, secret: str | None) -> dict[str, Any]:
    """What the frame of every page wants to know."""
    return {
        "person": None if person is None else person.name,
        "mark": None if secret is None else form_mark(secret),
        "choice_words": CHOICE_WORDS,
        "harm_words": HARM_WORDS,
    }


def _fields(request: Request, body: bytes) -> dict[str, str]:
    """
    Raises:
        RefusedError: it is no form of ours.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise RefusedError("this is not one of the forms here; reload the page and send it again", status=422)
    try:
        fields = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=20, errors="strict")
    except ValueError as error:
        raise RefusedError("this form cannot be read; reload the page and send it again", status=422) from error
    return dict(fields)


def _choice(form: dict[str, str]) -> Choice:
    try:
        return Choice(form.get("choice", ""))
    except ValueError as error:
        raise RefusedError("say which response is better; choose one of the answers", status=422) from error


def _decision(form: dict[str, str]) -> Decision:
    try:
        return Decision(form.get("decision", ""))
    except ValueError as error:
        raise RefusedError("say whether to approve or to reject", status=422) from error


def _whole_number(text: str, *, below: int) -> int:
    if text.isascii() and text.isdigit() and len(text) < 12 and int(text) < below:
        return int(text)
    raise RefusedError("there is no such place; go back and take one of the links", status=404)


def _told(query: dict[str, str]) -> str | None:
    """What became of the last word, for the status line. The address carries two known words, never a sentence."""
    standing, _, choice = query.get("told", "").partition(".")
    sentence = TOLD.get(standing)
    if sentence is None or "{}" not in sentence:
        return sentence
    words = {kind.value: words for kind, words in (*CHOICE_WORDS.items(), *DECISION_WORDS.items())}.get(choice)
    return None if words is None else sentence.format(words)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _go(where: str) -> Response:
    return RedirectResponse(where, status_code=303)
