"""Telling people that a campaign waits for them: one JSON document, by webhook or command, once for each wait.

The document holds names, counts and a command to type; never a text of a model, never a secret. Nothing that happens
here changes what a campaign does: what goes wrong comes back as one line for people.
"""

import hashlib
import hmac
import http.client
import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlsplit

from orchestrator.core.canonical import digest_of
from orchestrator.core.commands import AskForDecision, AskForLabels
from orchestrator.core.records import Purpose
from orchestrator.core.settings import CampaignSettings, NotifySettings
from orchestrator.review.asking import missing_by_name

TIMEOUT_SECONDS: Final = 10
"""For a command, and for each answer of a web address."""
SECRET_VARIABLE: Final = "RATCHET_WEBHOOK_SECRET"
SIGNATURE_HEADER: Final = "X-Ratchet-Signature"

Ask = AskForLabels | AskForDecision


def notice(campaign: str, settings: CampaignSettings, ask: Ask) -> dict[str, Any]:
    """What is told of a wait: `wanted` and `settled` count comparisons or approvals, `missing` verdicts by name."""
    if isinstance(ask, AskForDecision):
        return {
            "campaign": campaign,
            "kind": "decision",
            "batch": None,
            "candidate": ask.attempt.candidate,
            "wanted": ask.approvers,
            "settled": ask.approvals,
            "missing": {},
            "next": f"ratchet review list {campaign}",
        }
    return {
        "campaign": campaign,
        "kind": "audit" if ask.batch.purpose is Purpose.AUDIT else "comparisons",
        "batch": ask.batch.id,
        "candidate": None,
        "wanted": ask.wanted,
        "settled": ask.settled,
        "missing": missing_by_name(ask, settings),
        "next": f"ratchet review label {campaign}",
    }


def tell_once(
    campaign: str,
    settings: CampaignSettings,
    ask: Ask,
    *,
    told: Path,
    environment: Mapping[str, str] = os.environ,
) -> str | None:
    """Send a notice of this wait, unless it was sent before; gives what went wrong, in one line.

    A wait is the same however many of its labels have come in meanwhile. Which one was told last is kept in the file
    `told`: the ledger knows that people are asked, not whether the notice reached anybody, and one that failed is
    to be sent again.
    """
    notify = settings.notify
    if notify.url is None and notify.command is None:
        return None
    document = notice(campaign, settings, ask)
    wait = digest_of({key: document[key] for key in ("campaign", "kind", "batch", "candidate", "wanted")})
    try:
        if told.exists() and told.read_bytes() == wait.encode():
            return None
        send(notify, document, environment)
        told.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        told.write_text(wait)
    except (OSError, ValueError, subprocess.SubprocessError, http.client.HTTPException) as error:
        return f"nobody may know that {campaign} waits: {_told_by(notify)}: {_why(error)}"
    return None


def send(notify: NotifySettings, document: dict[str, Any], environment: Mapping[str, str]) -> None:
    """Raises:
    OSError, SubprocessError, HTTPException: it was not taken.
    """
    body = json.dumps(document, allow_nan=False).encode()
    if notify.command is not None:
        subprocess.run(
            notify.command,
            input=body,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=TIMEOUT_SECONDS,
            check=True,
        )
    if notify.url is not None:
        headers = {"Content-Type": "application/json", "User-Agent": "ratchet"}
        secret = environment.get(SECRET_VARIABLE)
        if secret:
            headers[SIGNATURE_HEADER] = signature(secret, body)
        request = urllib.request.Request(notify.url, data=body, headers=headers, method="POST")
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=TIMEOUT_SECONDS):
            pass


def signature(secret: str, body: bytes) -> str:
    """HMAC-SHA-256 (RFC 2104) of the very bytes that are sent, as `sha256=` and lower-case hexadecimal digits."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Following one would turn the POST into a GET without its document, at a place that nobody named."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        return None


def _told_by(notify: NotifySettings) -> str:
    """The program or the host alone: arguments, paths and queries may hold secrets."""
    if notify.command is not None:
        return f"notify.command ({Path(notify.command[0]).name})"
    return f"notify.url ({urlsplit(notify.url or '').hostname})"


def _why(error: Exception) -> str:
    match error:
        case urllib.error.HTTPError():
            redirected = " (redirects are not followed)" if 300 <= error.code < 400 else ""
            return f"it answered {error.code}{redirected}"
        case subprocess.TimeoutExpired():
            return f"it took longer than {TIMEOUT_SECONDS} s"
        case subprocess.CalledProcessError():
            return f"it ended with exit code {error.returncode}"
        case urllib.error.URLError():
            return str(error.reason)
        case OSError():
            return error.strerror or "no answer"
        case _:
            return type(error).__name__
