"""The review site as one ASGI application: the guard, the pages, the API, the static files."""

from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from orchestrator.artifacts import ArtifactStore
from orchestrator.errors import RatchetError, UsageError
from orchestrator.store.ledger import Ledger
from orchestrator.web import api
from orchestrator.web.answers import Answer
from orchestrator.web.limits import Limits
from orchestrator.web.pages import Pages
from orchestrator.web.rendering import Templates, read_static
from orchestrator.web.security import Guard, host_name
from orchestrator.web.sessions import Cookie
from orchestrator.web.site import Site

LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "[::1]")


def create_app(
    ledger: Ledger,
    artifacts: ArtifactStore,
    *,
    public_url: str | None = None,
    allowed_hosts: Collection[str] = (),
    limits: Limits | None = None,
) -> FastAPI:
    """The site over one ledger.

    Args:
        public_url: its address as people see it, where a proxy stands in front; with https, cookies are Secure.
        allowed_hosts: names it answers to, beside this machine's own and the public one.

    Raises:
        UsageError: the public address is none.
    """
    limits = limits or Limits()
    origin = None if public_url is None else origin_of(public_url)
    hosts = {*LOCAL_HOSTS, *map(host_name, allowed_hosts)}
    if origin is not None:
        hosts.add(host_name(urlsplit(origin).netloc))
    cookie = Cookie(secure=origin is not None and origin.startswith("https://"))
    static = read_static()
    files = {file.url: file for file in static.values()}
    site = Site(ledger, artifacts, limits)
    pages = Pages(site, Templates(static), cookie, origin)

    def refuse(scope: Scope, answer: Answer) -> Response:
        if scope["path"].startswith(api.PREFIX):
            return api.refusal(answer)
        # Whose cookie it is takes a look at the database, which a flood of refusals is not worth. Where it opens
        # nothing any more, the first page says so.
        return pages.refusal(answer, stranger=cookie.read(scope["headers"]) is None)

    async def static_file(request: Request) -> Response:
        file = files.get(request.url.path)
        if file is None:
            return refuse(request.scope, Answer(404, "there is no such file", ""))
        kept = {"cache-control": "public, max-age=31536000, immutable"}
        return Response(file.body, media_type=file.media_type, headers=kept)

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        said = {404: "there is no such page", 405: "this address does not take such requests"}
        action = "go back to your first page" if error.status_code == 404 else ""
        answer = Answer(error.status_code, said.get(error.status_code, "the request could not be read"), action)
        response = refuse(request.scope, answer)
        response.headers.update(error.headers or {})
        return response

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return api.invalid(error)

    app = FastAPI(
        title="Ratchet review",
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        exception_handlers={HTTPException: http_error, RequestValidationError: invalid, RatchetError: api.refused},
        routes=[Route("/static/{digest}/{name}", static_file, methods=["GET"]), *pages.routes()],
    )
    app.include_router(api.router(site))
    app.add_middleware(Guard, hosts=hosts, cookie=cookie, limits=limits, is_known=site.is_known, refuse=refuse)
    return app


def origin_of(url: str) -> str:
    """Scheme, host and port of an address.

    Raises:
        UsageError: it is none, or has more to it than these.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise UsageError(f"{url!r} is no public address; give one like https://review.example.org")
    return f"{parts.scheme}://{parts.netloc.lower()}"
