"""Who is asking: cookies of pages, bearer tokens of programs, and the mark of a page's own forms.

The cookie holds the session's secret and nothing else. A form's mark is an HMAC under that secret, so it needs no
memory of the server's, ends with the session, and cannot be made by whoever does not hold the cookie.
"""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from orchestrator.web.answers import RefusedError

LONGEST_SECRET: Final = 200
_SESSION_DAYS: Final = 30


@dataclass(frozen=True, slots=True)
class Cookie:
    """The session's cookie: this host's alone, out of reach of scripts, never sent along from other sites."""

    secure: bool

    @property
    def name(self) -> str:
        return "__Host-ratchet_session" if self.secure else "ratchet_session"

    def read(self, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        wanted = self.name.encode() + b"="
        for key, value in headers:
            if key == b"cookie":
                for crumb in value.split(b";"):
                    if (crumb := crumb.strip()).startswith(wanted):
                        secret = crumb[len(wanted) :].decode("latin-1")
                        return secret if 0 < len(secret) <= LONGEST_SECRET else None
        return None

    def write(self, response: Response, secret: str) -> None:
        response.set_cookie(
            self.name,
            secret,
            max_age=_SESSION_DAYS * 86400,
            path="/",
            secure=self.secure,
            httponly=True,
            samesite="strict",
        )

    def clear(self, response: Response) -> None:
        response.delete_cookie(self.name, path="/", secure=self.secure, httponly=True, samesite="strict")


def bearer_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    for key, value in headers:
        if key == b"authorization":
            scheme, _, secret = value.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer" and 0 < len(secret.strip()) <= LONGEST_SECRET:
                return secret.strip()
    return None


def form_mark(secret: str) -> str:
    """What a session's own forms carry."""
    return hmac.new(secret.encode(), b"ratchet form 1", hashlib.sha256).hexdigest()


def require_own_form(secret: str, mark: str) -> None:
    """
    Raises:
        RefusedError: another site's form, or one from before the last sign-in.
    """
    if not hmac.compare_digest(form_mark(secret).encode(), mark.encode("utf-8", "replace")):
        raise RefusedError("this form is not from your session; go back, reload the page and send it again", status=403)


def require_own_site(request: Request, origin: str | None, *, anonymous: bool) -> None:
    """Refuse posts that another site's page made the browser send.

    Sec-Fetch-Site decides where the browser sends it (https, and localhost). Elsewhere the Origin does; ours is `null`
    on our own pages, whose referrer policy hides it, but for the page where people join.

    Args:
        origin: ours as seen from outside, where a proxy changes it.
        anonymous: no session stands behind the form, hence no mark either, and `null` is not enough.

    Raises:
        RefusedError: it came from elsewhere.
    """
    site, sender = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        own = site in ("same-origin", "none")
    elif sender is None:  # not a browser; they all send it with a post
        own = True
    elif sender == "null":
        own = not anonymous
    else:
        own = sender == origin or urlsplit(sender).netloc.lower() == request.headers.get("host", "").lower()
    if not own:
        raise RefusedError("this was sent by another site; open the page here and do it again", status=403)
