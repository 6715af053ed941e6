"""MLflow as a view of the ledger: it may lag, be lost or be edited by hand, and no decision ever looks at it.

    experiment `ratchet`
      run = campaign                    totals, deployed gold, configuration; holds the cursor
        run = attempt `s0.a1`           curves, gate figures, samples, label set, verdict
    logged model = candidate            no weights: digests, for the artifact store to resolve
    registered model = campaign         one version per advance; alias `approved` on the last

`Tracker.sync` mirrors the events behind a durable cursor. The cursor is a tag of the campaign's own run, written
after everything that it vouches for, so a crash in between only repeats work: runs, models and versions are searched
before they are created, and every point carries its event's time, which MLflow recognises as the same point. Since
the cursor lives in the view itself, a view that was lost starts again from the first event.

Here lives who may write when: the connection, the turns that processes take, and what becomes of a failure. What an
event shows is in mirror.py, what differs in drift.py, how MLflow is told in mlflow_view.py, when in follower.py.
The follower and the command line call it; nothing here imports mlflow.
"""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Protocol

from orchestrator.core.canonical import digest_of
from orchestrator.core.envelope import Head, StoredEvent
from orchestrator.core.events import UnknownEventError, parse
from orchestrator.core.rules import IllegalEventError
from orchestrator.core.verification import Problem
from orchestrator.errors import ConfigError, RatchetError
from orchestrator.redaction import redacted_text
from orchestrator.tracking.drift import drifts
from orchestrator.tracking.mirror import ArtifactSource, Mirror
from orchestrator.tracking.mlflow_view import View, create_database, mlflow_client, safe_key
from orchestrator.tracking.tags import CURSOR, LEDGER, campaign_tags

_LOCK_PATIENCE: Final = timedelta(seconds=5)


class TrackingError(RatchetError):
    """MLflow did not take something. The campaign is unharmed, and a later sync repeats it."""


class EventSource(Protocol):
    """What the tracker needs of a ledger."""

    def events(self, campaign: str, after_seq: int = -1) -> tuple[StoredEvent, ...]: ...

    def head(self, campaign: str) -> Head: ...


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a sync ended."""

    mirrored: int
    """Events mirrored by this call."""
    cursor: int
    """The last event that MLflow shows; -1 for none."""
    head: int
    """The last event that the ledger holds."""

    @property
    def behind(self) -> int:
        return self.head - self.cursor


def require_address(where: str) -> None:
    """Refuse what can be no place of MLflow's; contacts nobody.

    Raises:
        ConfigError: it is neither `default`, `none` nor an address.
    """
    if where not in ("default", "none") and "://" not in where:
        raise ConfigError(
            f"tracking.mlflow: {where!r} is no address; give `default`, `none` or http://HOST:PORT, "
            "sqlite:////ABSOLUTE/PATH"
        )
    if where.startswith("file:"):
        raise ConfigError("tracking.mlflow: MLflow has closed its file store; give `default` for SQLite instead")


class Tracker:
    """Mirrors campaigns into one MLflow. Safe to share between threads; processes take turns by a lock file."""

    def __init__(self, ledger: EventSource, artifacts: ArtifactSource, where: str, *, home: Path) -> None:
        """Nothing is contacted or imported yet.

        Args:
            where: `default` (SQLite under `home`), a tracking server's or database's address, or `none`.

        Raises:
            ConfigError: if `where` is none of these.
        """
        require_address(where)
        self._ledger = ledger
        self._artifacts = artifacts
        self._where = where
        self._folder = home.absolute() / "mlflow"
        self._view: View | None = None
        self._mirrors: dict[str, Mirror] = {}
        self._lock = threading.RLock()

    @property
    def enabled(self) -> bool:
        return self._where != "none"

    @property
    def address(self) -> str:
        """For people: without credentials."""
        return redacted_text(self._uri)

    def sync(self, campaign: str) -> Progress:
        """Mirror what is new since the cursor.

        Raises:
            TrackingError: if MLflow did not take it all; what it took stays, and the next sync goes on.
        """
        if not self.enabled:
            head = self._ledger.head(campaign).seq
            return Progress(mirrored=0, cursor=head, head=head)
        with self._lock, self._trouble(campaign), self._turn(campaign):
            mirror = self._mirrors.get(campaign)
            if mirror is None:
                events = self._ledger.events(campaign)
                if not events:
                    return Progress(mirrored=0, cursor=-1, head=-1)
                mirror = Mirror.open(campaign, events, self._connected(), self._artifacts)
                self._mirrors[campaign] = mirror
            new = self._ledger.events(campaign, after_seq=mirror.seq)
            mirror.advance([parse(event) for event in new])
            return Progress(mirrored=len(new), cursor=mirror.seq, head=mirror.seq)

    def drift(self, campaign: str) -> list[Problem]:
        """Where MLflow differs from the ledger, a lag included. Changes nothing, and never raises for MLflow's sake."""
        if not self.enabled:
            return []
        events = self._ledger.events(campaign)
        if not events:
            return []
        if self._where == "default" and not self._database.exists():
            return [Problem("mlflow", f"{self._database} does not exist; nothing is mirrored yet")]
        try:
            with self._lock, self._trouble(campaign):
                return list(drifts(campaign, events, self._connected()))
        except TrackingError as error:
            return [Problem("mlflow", str(error))]

    def repair(self, campaign: str) -> list[Problem]:
        """Make MLflow agree with the ledger again, and say what had drifted.

        Raises:
            TrackingError: if MLflow cannot be reached.
        """
        problems = self.drift(campaign)
        if problems:
            with self._lock:
                with self._trouble(campaign):
                    self._mirrors.pop(campaign, None)
                    self._rewind(campaign)
                self.sync(campaign)
        return problems

    def log_tax(
        self,
        name: str,
        arms: Mapping[str, str],
        tax: Mapping[str, Mapping[str, Any]],
        figures: Mapping[str, Path],
    ) -> None:
        """Log what a comparison of arms came to, as a run of its own.

        Args:
            name: of the run, as `demo-0`.
            arms: campaign of each arm.
            tax: per resource `target_gold`, `ratio` and `reached`; one that was not reached gets a tag, no metric.
            figures: files by the name under which they are shown.

        Raises:
            TrackingError: if MLflow did not take it.
        """
        if not self.enabled:
            return
        with self._lock, self._trouble(name), self._turn(f"tax.{name}"):
            histories = {arm: self._ledger.events(campaign) for arm, campaign in sorted(arms.items())}
            ends = [events[-1].time for events in histories.values() if events]
            ledgers = digest_of({arm: events[0].hash for arm, events in histories.items() if events})
            if not ends:
                return
            view = self._connected()
            tags = {LEDGER: ledgers, "ratchet.kind": "tax"}
            run = view.run(name, tags, at=min(events[0].time for events in histories.values() if events))
            points: dict[str, float | None] = {}
            marks = {f"ratchet.arm.{arm}": campaign for arm, campaign in arms.items()}
            for resource, figure in tax.items():
                points[f"tax/{resource}_target_gold"] = figure.get("target_gold")
                if figure.get("reached"):
                    points[f"tax/{resource}"] = figure.get("ratio")
                else:
                    marks[f"tax/{resource}"] = "unreached"
            view.log(run, view.points(points, step=0, at=max(ends)), marks)
            for title, path in figures.items():
                view.client.log_artifact(run, str(path), f"figures/{safe_key(title)}")
            view.end(run, "FINISHED", at=max(ends))

    # --- connection -------------------------------------------------------------------------------------------

    @property
    def _database(self) -> Path:
        return self._folder / "mlflow.db"

    @property
    def _uri(self) -> str:
        return f"sqlite:///{self._database}" if self._where == "default" else self._where

    def _connected(self) -> View:
        if self._view is None:
            if self._where == "default":
                _require_database(self._database)
                with _locked(self._folder / "locks" / "mlflow.db", patience=timedelta(minutes=1)):
                    create_database(self._database)
            # A server knows where its artifacts belong; a database would put them beside the current directory.
            on_server = self._uri.startswith(("http://", "https://"))
            location = None if on_server else (self._folder / "artifacts").as_uri()
            self._view = View(mlflow_client(self._uri), location)
        return self._view

    def _turn(self, name: str) -> AbstractContextManager[None]:
        """Search-before-create needs the campaign to itself, across processes too."""
        return _locked(self._folder / "locks" / name, patience=_LOCK_PATIENCE)

    @contextmanager
    def _trouble(self, campaign: str) -> Iterator[None]:
        """Whatever MLflow throws becomes a `TrackingError`, and what was remembered of it is looked up anew."""
        try:
            yield
        except (RatchetError, IllegalEventError, UnknownEventError):
            self._mirrors.pop(campaign, None)
            raise
        except Exception as error:
            self._mirrors.pop(campaign, None)
            raise TrackingError(
                f"MLflow at {self.address} is behind ({redacted_text(_cause(error))}); "
                f"the view catches up later: `ratchet campaign track {campaign}`"
            ) from error

    def _rewind(self, campaign: str) -> None:
        view = self._connected()
        first = self._ledger.events(campaign)[0]
        run = view.find_run(campaign_tags(campaign, first))
        if run is not None:
            view.client.set_tag(run.info.run_id, CURSOR, "-1")


@contextmanager
def _locked(path: Path, *, patience: timedelta) -> Iterator[None]:
    """Hold `path`.lock; the system frees it when the process dies."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    deadline = time.monotonic() + patience.total_seconds()
    with path.with_name(f"{path.name}.lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TimeoutError("another process is mirroring it at the moment") from None
                time.sleep(0.05)
        yield


def _require_database(path: Path) -> None:
    """Said at once and plainly: MLflow itself tries for minutes."""
    if not path.exists():
        return
    with path.open("rb") as file:
        head = file.read(16)
    if head not in (b"", b"SQLite format 3\0"):
        raise TrackingError(f"{path} is no database; move it away, and it is made anew")


def _cause(error: Exception) -> str:
    """One line: the system's own word where there is one below MLflow's, which quotes whole pools and addresses."""
    below: BaseException | None = error
    told: BaseException = error
    while below is not None:
        told = below if isinstance(below, OSError) and below.errno is not None else told
        below = below.__cause__ or (None if below.__suppress_context__ else below.__context__)
    return str(told).strip().partition("\n")[0][:200] or type(told).__name__
