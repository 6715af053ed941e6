"""A real browser for tests: the system's Chromium, the page's server as a process, a watch over what pages do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hostile_texts import FLAG
from small_campaigns import Campaign

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser. For one module at a time: playwright holds the thread's event loop while it is open."""
    api = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if found is None:
        pytest.skip("needs a browser")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@contextmanager
def served(home: Path, *options: str) -> Iterator[str]:
    """`ratchet review serve` as a process of its own, on a free port; gives its address."""
    command = [sys.executable, "-m", "orchestrator.cli.main", "review", "serve", "--port", "0", *options]
    environment = {**os.environ, "RATCHET_HOME": str(home)}
    serving = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    assert serving.stdout is not None
    try:
        told = serving.stdout.readline()
        assert told.startswith("review page: http://"), told
        yield told.removeprefix("review page: ").strip()
    finally:
        serving.terminate()
        serving.wait(30)
        serving.stdout.close()


def forged(campaign: Campaign, purpose: str, texts: list[tuple[str, str, str]]) -> None:
    """Have a policy write these prompts and responses, over and over, for a queue that is yet to be sealed."""
    append = campaign.ledger.append

    def forging(name: str, drafts: Any, **options: Any) -> Any:
        body = drafts[0].body
        if drafts[0].type == "comparisons_drawn" and body["purpose"] == purpose:
            count = body["count"] if purpose == "gate" else len(texts)
            rows = (
                {"item": item, "prompt": prompt, "response_1": first, "response_2": second}
                for item in range(count)
                for prompt, first, second in [texts[item % len(texts)]]
            )
            digest = campaign.home.artifacts().publish_lines("comparisons", rows)
            drafts = [replace(drafts[0], body={**body, "comparisons": digest, "count": count})]
        return append(name, drafts, **options)

    campaign.ledger.append = forging  # type: ignore[method-assign]


@dataclass
class Watch:
    """What a browser context asked for, and what its pages tried."""

    context: Any
    requests: list[str] = field(default_factory=list)
    happened: list[str] = field(default_factory=list)
    """What no page of ours does: dialogs, downloads, further windows, websockets, errors, complaints on the console."""

    def __post_init__(self) -> None:
        self.context.add_init_script(
            f"Object.defineProperty(window, '{FLAG}', "
            "{set() { console.error('hostile text ran'); }, get() { return undefined; }});"
        )
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.context.on("page", self._follow)
        self.context.on("weberror", lambda error: self.happened.append(f"error: {error.error}"))
        self.context.on("console", self._heard)
        self.context.on("dialog", self._asked)

    def hosts(self) -> set[str]:
        """Where requests went."""
        return {urlsplit(url).netloc for url in self.requests}

    def _follow(self, page: Any) -> None:
        page.on("popup", lambda popup: self.happened.append(f"popup: {popup.url}"))
        page.on("download", lambda download: self.happened.append(f"download: {download.url}"))
        page.on("websocket", lambda socket: self.happened.append(f"websocket: {socket.url}"))

    def _heard(self, message: Any) -> None:
        # A refusal's status is told on the console, too; it is the answer of a page of ours.
        if message.type in ("error", "warning") and "the server responded with a status of" not in message.text:
            self.happened.append(f"{message.type}: {message.text}")

    def _asked(self, dialog: Any) -> None:
        self.happened.append(f"dialog: {dialog.message}")
        dialog.dismiss()
