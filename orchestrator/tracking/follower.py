"""Following campaigns that run, from a thread of its own: when to mirror, never what. Used by the commands that run
campaigns, as a context around the run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

from orchestrator.errors import RatchetError, UnknownCampaignError
from orchestrator.tracking.tracker import Tracker

_LONGEST_BACKOFF: Final = timedelta(minutes=1)

_log = logging.getLogger(__name__)


class Follower:
    """Keeps MLflow up with running campaigns from a thread of its own. It may lag; it never blocks and never breaks."""

    def __init__(
        self,
        tracker: Tracker,
        campaigns: Iterable[str] = (),
        *,
        interval: timedelta = timedelta(seconds=1),
    ) -> None:
        self._tracker = tracker
        self._campaigns = list(dict.fromkeys(campaigns))
        self._interval = interval
        self._stop = threading.Event()
        self._warned = False
        self._caught_up = False
        # A daemon: a server that hangs must not keep the program from ending.
        self._thread = threading.Thread(target=self._work, name="mlflow-follower", daemon=True)

    def start(self) -> Self:
        if self._tracker.enabled:
            self._thread.start()
        return self

    def follow(self, campaign: str) -> None:
        if campaign not in self._campaigns:
            self._campaigns.append(campaign)

    def close(self, timeout: timedelta = timedelta(seconds=10)) -> bool:
        """Sync one last time, for no longer than `timeout`. Returns whether MLflow shows everything."""
        if not self._tracker.enabled:
            return True
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout.total_seconds())
        if self._thread.is_alive():
            self._warn(f"MLflow at {self._tracker.address} is slow; {self._next_action()}")
            return False
        return self._caught_up

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _work(self) -> None:
        delay = self._interval
        while True:
            stopping = self._stop.wait(delay.total_seconds())
            self._caught_up = self._round()
            delay = self._interval if self._caught_up else min(2 * delay, _LONGEST_BACKOFF)
            if stopping:
                return

    def _round(self) -> bool:
        """Sync every campaign once; False at the first that fails, since the others share its MLflow."""
        for campaign in tuple(self._campaigns):
            try:
                self._tracker.sync(campaign)
            except UnknownCampaignError:
                continue  # it is followed from before its first event
            except Exception as error:
                self._warn(str(error) if isinstance(error, RatchetError) else f"{error!r}; {self._next_action()}")
                _log.debug("the mirror failed", exc_info=True)
                return False
        if self._warned:
            _log.info("MLflow at %s shows everything again", self._tracker.address)
            self._warned = False
        return True

    def _warn(self, message: str) -> None:
        """Once per outage."""
        if not self._warned:
            _log.warning("%s", message)
        self._warned = True

    def _next_action(self) -> str:
        return f"the view catches up later: `ratchet campaign track {' '.join(self._campaigns)}`"
