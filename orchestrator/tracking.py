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

The only file that imports mlflow, and only once something is mirrored: the import alone takes two seconds.
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self

import yaml

from orchestrator import failpoints, views
from orchestrator.core import events as ev
from orchestrator.core.canonical import digest_of
from orchestrator.core.envelope import Head, StoredEvent
from orchestrator.core.events import Event, UnknownEventError, parse
from orchestrator.core.gate import GateVerdict
from orchestrator.core.history import IllegalEventError, apply, fold
from orchestrator.core.records import EndedBy
from orchestrator.core.settings import PriceSettings
from orchestrator.core.state import Attempt, CampaignState
from orchestrator.core.verification import Problem
from orchestrator.errors import ConfigError, IntegrityError, RatchetError, UnknownCampaignError
from orchestrator.redaction import redacted, redacted_text

EXPERIMENT: Final = "ratchet"
ALIAS: Final = "approved"
SAMPLES_SHOWN: Final = 20

# Tags. A campaign is known by the hash of its first event: two homes may use one server and one name.
LEDGER: Final = "ratchet.ledger"
CAMPAIGN: Final = "ratchet.campaign"
ATTEMPT: Final = "ratchet.attempt"
CURSOR: Final = "ratchet.seq"

_EVENTS_PER_FLUSH: Final = 50
_METRICS_PER_CALL: Final = 1000
_PARAMS_PER_CALL: Final = 100
_LONGEST_PARAM: Final = 6000
_LONGEST_TAG: Final = 5000
_LOCK_PATIENCE: Final = timedelta(seconds=5)
_LONGEST_BACKOFF: Final = timedelta(minutes=1)

_STEP_METRICS: Final = {
    "reward": "proxy/reward",
    "reward_spread": "proxy/spread",
    "kl_nats": "kl/nats",
    "kl_coefficient": "kl/coefficient",
    "return_": "phase/return",
}
"""Columns of a phase's step table that have names of their own; every other number becomes `phase/COLUMN`."""

_log = logging.getLogger(__name__)


class TrackingError(RatchetError):
    """MLflow did not take something. The campaign is unharmed, and a later sync repeats it."""


class EventSource(Protocol):
    """What the tracker needs of a ledger."""

    def events(self, campaign: str, after_seq: int = -1) -> tuple[StoredEvent, ...]: ...

    def head(self, campaign: str) -> Head: ...


class ArtifactSource(Protocol):
    """What the tracker needs of an artifact store."""

    def open(self, digest: str) -> Path: ...

    def read_lines(self, digest: str) -> Iterator[Any]: ...


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


class Tracker:
    """Mirrors campaigns into one MLflow. Safe to share between threads; processes take turns by a lock file."""

    def __init__(self, ledger: EventSource, artifacts: ArtifactSource, where: str, *, home: Path) -> None:
        """Nothing is contacted or imported yet.

        Args:
            where: `default` (SQLite under `home`), a tracking server's or database's address, or `none`.

        Raises:
            ConfigError: if `where` is none of these.
        """
        if where not in ("default", "none") and "://" not in where:
            raise ConfigError(
                f"tracking.mlflow: {where!r} is no address; give `default`, `none` or http://HOST:PORT, "
                "sqlite:////ABSOLUTE/PATH"
            )
        if where.startswith("file:"):
            raise ConfigError("tracking.mlflow: MLflow has closed its file store; give `default` for SQLite instead")
        self._ledger = ledger
        self._artifacts = artifacts
        self._where = where
        self._folder = home.absolute() / "mlflow"
        self._view: _View | None = None
        self._mirrors: dict[str, _Mirror] = {}
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
                mirror = _Mirror.open(campaign, events, self._connected(), self._artifacts)
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
                return list(_drift(campaign, events, self._connected()))
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
                view.client.log_artifact(run, str(path), f"figures/{_safe_key(title)}")
            view.end(run, "FINISHED", at=max(ends))

    # --- connection -------------------------------------------------------------------------------------------

    @property
    def _database(self) -> Path:
        return self._folder / "mlflow.db"

    @property
    def _uri(self) -> str:
        return f"sqlite:///{self._database}" if self._where == "default" else self._where

    def _connected(self) -> _View:
        if self._view is None:
            if self._where == "default":
                with _locked(self._folder / "locks" / "mlflow.db", patience=timedelta(minutes=1)):
                    _create_database(self._database)
            # A server knows where its artifacts belong; a database would put them beside the current directory.
            on_server = self._uri.startswith(("http://", "https://"))
            location = None if on_server else (self._folder / "artifacts").as_uri()
            self._view = _View(_mlflow_client(self._uri), location)
        return self._view

    @contextmanager
    def _turn(self, name: str) -> Iterator[None]:
        """Search-before-create needs the campaign to itself, across processes too."""
        with _locked(self._folder / "locks" / name, patience=_LOCK_PATIENCE):
            yield

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
        run = view.find_run(_campaign_tags(campaign, first))
        if run is not None:
            view.client.set_tag(run.info.run_id, CURSOR, "-1")


# --- what one event shows ---------------------------------------------------------------------------------------


class _Mirror:
    """One campaign in MLflow: the state that is shown, and what changes with the next event."""

    def __init__(self, campaign: str, first: StoredEvent, view: _View, artifacts: ArtifactSource) -> None:
        created = parse(first).body
        if not isinstance(created, ev.CampaignCreated):
            raise IntegrityError(f"campaign {campaign}: its ledger does not begin with its creation")
        self.campaign = campaign
        self.tags = _campaign_tags(campaign, first)
        self.created = created
        self.born = first.time
        self.prices = PriceSettings.model_validate(created.settings.get("prices", {}))
        self.view = view
        self.artifacts = artifacts
        self.state = CampaignState()
        self.seq = -1
        self._written = -1
        self._alias_checked = False
        self._runs: dict[str, str] = {}
        self._candidates: dict[str, str] = {}
        self._points: list[Any] = []
        self._marks: dict[str, str] = {}

    @classmethod
    def open(cls, campaign: str, events: Sequence[StoredEvent], view: _View, artifacts: ArtifactSource) -> Self:
        """Go back to where MLflow says that it is."""
        mirror = cls(campaign, events[0], view, artifacts)
        run = view.find_run(mirror.tags)
        cursor = -1 if run is None else _cursor(run)
        if cursor is None or cursor > events[-1].seq:
            cursor = -1
        mirror.state = fold(parse(event) for event in events[: cursor + 1])
        mirror.seq = mirror._written = cursor
        return mirror

    def advance(self, events: Sequence[Event]) -> None:
        """Show the events that follow the last one shown."""
        for event in events:
            before, self.state = self.state, apply(self.state, event)
            self._show(event)
            self._show_totals(before, event)
            self.seq = event.seq
            if self.seq - self._written >= _EVENTS_PER_FLUSH:
                self._flush()
        if not self._alias_checked or any(isinstance(event.body, ev.Advanced) for event in events):
            # Last, so that repeating old events never moves the alias back, even for a moment.
            self._point_alias()
            self._alias_checked = True
        self._flush()

    def _show(self, event: Event) -> None:
        body = event.body
        match body:
            case ev.CampaignCreated():
                self._show_settings()
            case ev.BaseReady():
                self._mark({"ratchet.base": body.checkpoint, "ratchet.base_parameters": body.parameters})
            case ev.Evaluated(attempt=None):
                self._show_deployed(event)
                self._show_samples(self._campaign_run(), body.samples)
            case ev.Evaluated():
                self._show_evaluation(event, body)
            case ev.AttemptBegun():
                self.view.log(self._attempt_run(event), [], {"ratchet.start": body.start})
            case ev.RewardModelFitted():
                self._show_reward_model(event, body)
            case ev.PhaseFinished():
                self._show_phase(event, body)
            case ev.PhaseFailed():
                self.view.log(self._attempt_run(event), [], {"ratchet.phase_failed": body.why})
            case ev.VerdictGiven():
                self._show_verdict(event, body.decision)
            case ev.DecisionMade():
                said = "; ".join(f"{d.decision.value} by {d.reviewer}" for d in self._attempt.decisions)
                self.view.log(self._attempt_run(event), [], {"ratchet.decisions": said})
            case ev.RolledBack():
                run = self._attempt_run(event)
                self.view.log(run, [], {"ratchet.rolled_back_to": body.to, "ratchet.outcome": "rolled_back"})
                self.view.end(run, "FAILED" if self._attempt.failed_phase else "KILLED", at=event.at)
            case ev.Advanced():
                run = self._attempt_run(event)
                self._show_deployed(event)
                self._show_version(event)
                self.view.log(run, [], {"ratchet.outcome": "advanced"})
                self.view.end(run, "FINISHED", at=event.at)
            case ev.Finished():
                self._show_end(event, body)
            case ev.Paused():
                self._mark({"ratchet.why_paused": body.why})

    def _show_settings(self) -> None:
        run = self._campaign_run()
        settings = redacted(self.created.settings)
        self.view.params(run, _flat(settings))
        text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
        self.view.client.log_text(run, text, "campaign.yaml")

    def _show_totals(self, before: CampaignState, event: Event) -> None:
        old, new = _totals(before, self.prices), _totals(self.state, self.prices)
        changed = {name: value for name, value in new.items() if value != old[name] or event.seq == 0}
        self._points += self.view.points(changed, step=event.seq, at=event.at)
        self._mark(
            {
                "ratchet.status": self.state.status.value,
                "ratchet.stage": self.state.stage,
                "ratchet.approved": self.state.approved or "",
                "ratchet.advances": self.state.advances,
                "ratchet.rollbacks": self.state.rollbacks,
            }
        )

    def _show_deployed(self, event: Event) -> None:
        deployed = self.state.deployments[-1]
        numbers = {"gold/deployed": deployed.gold_mean, "gold/deployed_se": deployed.gold_se}
        self._points += self.view.points(numbers, step=self.state.advances, at=event.at)

    def _show_evaluation(self, event: Event, body: ev.Evaluated) -> None:
        run = self._attempt_run(event)
        points = []
        for step, gold in enumerate(body.gold_by_step):
            points += self.view.points({"gold/rollouts": gold}, step=step, at=event.at)
        numbers = {
            "gold/candidate": body.gold_mean,
            "gold/candidate_se": body.gold_se,
            "gold/wrong_reward": body.wrong_reward,
            "gold/wrong_reward_share": body.wrong_reward_share,
            "reward_model/accuracy_gold": body.reward_model_accuracy,
            "reward_model/accuracy_gold_candidate": body.reward_model_accuracy_candidate,
        }
        points += self.view.points(numbers, step=0, at=event.at, model=self._candidate(event))
        self.view.log(run, points)
        self._show_samples(run, body.samples)

    def _show_samples(self, run: str, digest: str) -> None:
        rows = self._rows(digest, limit=SAMPLES_SHOWN)
        if rows:
            self.view.table(run, "samples.json", rows)

    def _show_reward_model(self, event: Event, body: ev.RewardModelFitted) -> None:
        run = self._attempt_run(event)
        numbers = {
            "reward_model/accuracy": body.accuracy,
            "reward_model/accuracy_low": body.accuracy_low,
            "reward_model/accuracy_high": body.accuracy_high,
            "reward_model/log_loss_nats": body.log_loss_nats,
            "reward_model/temperature": body.temperature,
            "reward_model/labels": body.labels,
        }
        tags = {"ratchet.reward_model": body.reward_model, "ratchet.label_set": body.label_set}
        self.view.log(run, self.view.points(numbers, step=0, at=event.at), tags)
        rows = self._rows(body.label_set)
        if rows:
            self.view.dataset(run, f"{self.campaign}.labels", body.label_set, rows)

    def _show_phase(self, event: Event, body: ev.PhaseFinished) -> None:
        run = self._attempt_run(event)
        points = []
        for step, numbers in self._steps(body.rollouts):
            points += self.view.points(numbers, step=step, at=event.at)
        final = {"proxy/candidate": body.proxy, "kl/candidate_nats": body.kl_nats, "phase/steps": body.steps}
        seal = {
            "ratchet.candidate": body.candidate,
            "ratchet.start": body.start,
            "ratchet.start_digest": body.start_digest,
            "ratchet.reward_model": self._attempt.reward_model or "",
        }
        self.view.client.log_dict(run, seal, "candidate/candidate.json")
        points += self.view.points(final, step=0, at=event.at, model=self._candidate(event))
        self.view.log(run, points, {**seal, "ratchet.stopped_by": body.stopped_by})

    def _show_verdict(self, event: Event, verdict: GateVerdict) -> None:
        run = self._attempt_run(event)
        text = _verdict_text(self.campaign, self._attempt, verdict)
        self.view.client.log_dict(run, verdict.model_dump(mode="json"), "verdict.json")
        self.view.client.log_text(run, text, "verdict.txt")
        numbers = {
            "gate/win_rate": verdict.win_rate,
            "gate/win_rate_low": verdict.win_rate_low,
            "gate/over_promise": verdict.over_promise,
            "gate/over_promise_high": verdict.over_promise_high,
            "gate/alpha": verdict.alpha,
            "gate/labels": verdict.labels,
            "gate/skipped": verdict.skipped,
        }
        model = self._candidate(event)
        tags = {"ratchet.verdict": verdict.verdict.value}
        note = {"mlflow.note.content": text}
        self.view.log(run, self.view.points(numbers, step=0, at=event.at, model=model), {**tags, **note})
        if model is not None:
            self.view.client.set_logged_model_tags(model, tags)

    def _show_version(self, event: Event) -> None:
        run = self._attempt_run(event)
        name = self.view.registered_model(self.campaign, self.tags[LEDGER], create=True)
        assert name is not None
        self.view.version(name, run, self._candidate(event), self._version_tags(self.state.advances))

    def _point_alias(self) -> None:
        advances = self.state.advances
        name = self.view.registered_model(self.campaign, self.tags[LEDGER], create=False)
        if name is None:
            return
        shown = self.view.aliased(name)
        version = self.view.find_version(name, self._version_tags(advances)) if advances else None
        if version is not None and version != shown:
            self.view.client.set_registered_model_alias(name, ALIAS, version)
        elif version is None and shown is not None:
            self.view.client.delete_registered_model_alias(name, ALIAS)

    def _version_tags(self, advance: int) -> dict[str, str]:
        return _version_tags(self.state, advance)

    def _show_end(self, event: Event, body: ev.Finished) -> None:
        if self.state.open_attempt is not None:
            self.view.end(self._attempt_run(event), "KILLED", at=event.at)
        self._mark({"ratchet.ended_by": body.ended_by.value})
        ending = {EndedBy.STAGES_COMPLETED: "FINISHED", EndedBy.ATTEMPTS_EXHAUSTED: "FAILED"}
        self.view.end(self._campaign_run(), ending.get(body.ended_by, "KILLED"), at=event.at)

    # --- helpers

    @property
    def _attempt(self) -> Attempt:
        """The attempt that an event is about: always the last one."""
        return self.state.attempts[-1]

    def _campaign_run(self) -> str:
        if "" not in self._runs:
            more = {
                "ratchet.kind": "campaign",
                "ratchet.protocol": json.dumps(self.created.settings.get("protocol", {})),
                "ratchet.seed": str(self.created.settings.get("seed", "")),
                "ratchet.code_version": self.created.code_version,
                "ratchet.settings_digest": self.created.settings_digest,
            }
            self._runs[""] = self.view.run(self.campaign, self.tags, at=self.born, more=more)
        return self._runs[""]

    def _attempt_run(self, event: Event) -> str:
        place = _place(self._attempt)
        if place not in self._runs:
            tags = {**self.tags, ATTEMPT: place}
            more = {"ratchet.kind": "attempt", "mlflow.parentRunId": self._campaign_run()}
            self._runs[place] = self.view.run(place, tags, at=event.at, more=more)
        return self._runs[place]

    def _candidate(self, event: Event) -> str | None:
        """The logged model of the last attempt's candidate."""
        attempt = self._attempt
        if attempt.candidate is None:
            return None
        place = _place(attempt)
        if place not in self._candidates:
            tags = {**self.tags, ATTEMPT: place, "ratchet.candidate": attempt.candidate}
            more = {"ratchet.start": attempt.start, "ratchet.reward_model": attempt.reward_model or ""}
            name = f"{self.campaign}-{place}".replace(".", "-")
            self._candidates[place] = self.view.candidate(name, self._attempt_run(event), tags, more)
        return self._candidates[place]

    def _rows(self, digest: str, limit: int | None = None) -> list[dict[str, Any]]:
        """Rows of an artifact; none where it is gone or is no table, since the view shows what there is."""
        try:
            rows = list(islice(self.artifacts.read_lines(digest), limit))
        except (IntegrityError, OSError) as error:
            _log.debug("not shown in MLflow: %s", error)
            return []
        return [row if isinstance(row, dict) else {"value": row} for row in rows]

    def _steps(self, digest: str) -> list[tuple[int, dict[str, float | None]]]:
        try:
            return _step_metrics(self.artifacts.open(digest))
        except (IntegrityError, OSError, ValueError) as error:
            _log.debug("not shown in MLflow: %s", error)
            return []

    def _mark(self, tags: Mapping[str, Any]) -> None:
        self._marks.update({key: str(value) for key, value in tags.items()})

    def _flush(self) -> None:
        """Write what gathered for the campaign's run, and then that everything up to here is shown."""
        if self.seq == self._written:
            return
        run = self._campaign_run()
        self.view.log(run, self._points, self._marks)
        failpoints.hit("tracking.before_cursor")
        self.view.client.set_tag(run, CURSOR, str(self.seq))
        self._written = self.seq
        self._points, self._marks = [], {}


def _campaign_tags(campaign: str, first: StoredEvent) -> dict[str, str]:
    return {CAMPAIGN: campaign, LEDGER: first.hash}


def _version_tags(state: CampaignState, advance: int) -> dict[str, str]:
    deployed = state.deployments[advance]
    return {
        "ratchet.digest": deployed.checkpoint,
        "ratchet.parent": deployed.parent or "",
        "ratchet.advance": str(advance),
    }


def _place(attempt: Attempt) -> str:
    return f"s{attempt.stage}.a{attempt.attempt}"


def _cursor(run: Any) -> int | None:
    """The cursor on a campaign's run: -1 if none was written yet, None if it is no number."""
    text = run.data.tags.get(CURSOR, "-1")
    return int(text) if re.fullmatch(r"-1|\d{1,18}", text) else None


def _totals(state: CampaignState, prices: PriceSettings) -> dict[str, float | None]:
    totals = views.costs(state, prices)
    labels = totals.pop("labels")
    numbers = {**{f"labels_{purpose}": count for purpose, count in labels.items()}, **totals}
    return {f"cost/{name}": value for name, value in numbers.items()}


def _step_metrics(folder: Path) -> list[tuple[int, dict[str, float | None]]]:
    """Metrics of each step of a phase, from the table in its artifact; none where there is no table.

    Raises:
        ValueError: the table cannot be read.
    """
    table = folder / "steps.jsonl"
    lines = table.read_text(encoding="utf-8").splitlines() if table.exists() else []
    metrics: list[tuple[int, dict[str, float | None]]] = []
    for place, row in enumerate(json.loads(line) for line in lines if line.strip()):
        numbers: dict[str, float | None] = {
            _STEP_METRICS.get(key, f"phase/{_safe_key(key)}"): float(value)
            for key, value in row.items()
            if key != "step" and isinstance(value, int | float) and not isinstance(value, bool)
        }
        metrics.append((int(row.get("step", place)), numbers))
    return metrics


def _verdict_text(campaign: str, attempt: Attempt, verdict: GateVerdict) -> str:
    budget = "no gate" if verdict.alpha is None else f"alpha {verdict.alpha:.4g}"
    lines = [
        f"{campaign} {_place(attempt)}: {verdict.verdict.value} ({budget}, {verdict.labels} labels)",
        f"candidate {attempt.candidate or 'none'}",
        *(f"- {reason}" for reason in verdict.reasons),
    ]
    for test in verdict.tests:
        estimate = "unknown" if test.estimate is None else f"{test.estimate:.3f}"
        lines.append(
            f"  {test.name}: estimate {estimate}, bound {test.bound:.3f}, limit {test.limit:.3f}, "
            f"log evidence {test.log_e_value:.2f} of {test.log_threshold:.2f} nats, "
            f"{'refuted' if test.passed else 'not refuted'}"
        )
    return "\n".join(lines) + "\n"


def _flat(value: Any, path: str = "") -> dict[str, str]:
    """Nested settings as `a.b.c: text`."""
    if isinstance(value, dict) and value:
        flat: dict[str, str] = {}
        for key, item in value.items():
            name = _safe_key(str(key))
            flat.update(_flat(item, f"{path}.{name}" if path else name))
        return flat
    return {path: value if isinstance(value, str) else json.dumps(value)}


def _safe_key(text: str) -> str:
    """MLflow keys look like paths; what a person wrote must not become one."""
    return re.sub(r"[^\w\-. ]", "_", text).strip(". ")[:200] or "_"


# --- drift ------------------------------------------------------------------------------------------------------


def _drift(campaign: str, events: Sequence[StoredEvent], view: _View) -> Iterator[Problem]:
    tags = _campaign_tags(campaign, events[0])
    run = view.find_run(tags)
    if run is None:
        yield Problem("run", "the campaign has no run in MLflow")
        return
    cursor, head = _cursor(run), events[-1].seq
    if cursor is None or cursor > head:
        yield Problem("cursor", f"it reads {run.data.tags[CURSOR]!r}, the ledger ends at event {head}")
        cursor = head
    elif cursor < head:
        yield Problem("cursor", f"the view is {head - cursor} events behind the ledger")
    state = fold(parse(event) for event in events[: cursor + 1])
    yield from _drifted_attempts(state, tags, view)
    yield from _drifted_model(campaign, state, tags, view)


def _drifted_attempts(state: CampaignState, tags: Mapping[str, str], view: _View) -> Iterator[Problem]:
    runs = {run.data.tags.get(ATTEMPT): run.data.tags for run in view.find_runs(tags)}
    for attempt in state.attempts:
        place = _place(attempt)
        shown = runs.get(place)
        verdict = attempt.verdict.verdict.value if attempt.verdict else None
        if shown is None:
            yield Problem(place, "the attempt has no run in MLflow")
        elif shown.get("ratchet.verdict") != verdict:
            yield Problem(place, f"MLflow shows the verdict {shown.get('ratchet.verdict')}, the ledger {verdict}")


def _drifted_model(campaign: str, state: CampaignState, tags: Mapping[str, str], view: _View) -> Iterator[Problem]:
    name = view.registered_model(campaign, tags[LEDGER], create=False)
    if name is None:
        if state.advances:
            yield Problem("model", "no approved checkpoint is registered in MLflow")
        return
    version = None
    for advance in range(1, state.advances + 1):
        version = view.find_version(name, _version_tags(state, advance))
        if version is None:
            yield Problem(f"model {name}", f"approved checkpoint {advance} has no version in MLflow")
    shown = view.aliased(name)
    if shown != version:
        where = "nothing" if shown is None else f"version {shown}"
        right = "nothing is approved" if version is None else f"the ledger approves version {version}"
        yield Problem(f"alias {ALIAS} of {name}", f"it points to {where}; {right}")


# --- MLflow's verbs, made repeatable ------------------------------------------------------------------------------


class _View:
    """MLflow's client with verbs that may be repeated: what is there already is found, not made again."""

    def __init__(self, client: Any, artifact_location: str | None) -> None:
        self.client = client
        self._artifact_location = artifact_location
        self._experiment: str | None = None

    @property
    def experiment(self) -> str:
        if self._experiment is None:
            found = self.client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                try:
                    self._experiment = self.client.create_experiment(EXPERIMENT, self._artifact_location)
                except Exception as error:
                    if not _says(error, "RESOURCE_ALREADY_EXISTS"):
                        raise
                    found = self.client.get_experiment_by_name(EXPERIMENT)  # another process was quicker
            if found is not None:
                if found.lifecycle_stage == "deleted":
                    self.client.restore_experiment(found.experiment_id)
                self._experiment = found.experiment_id
        assert self._experiment is not None
        return self._experiment

    def find_runs(self, tags: Mapping[str, str]) -> list[Any]:
        return list(self.client.search_runs([self.experiment], _where(tags), max_results=5000))

    def find_run(self, tags: Mapping[str, str]) -> Any | None:
        """The run with these tags; where no attempt is asked for, the campaign's own."""
        runs = [run for run in self.find_runs(tags) if run.data.tags.get(ATTEMPT) == tags.get(ATTEMPT)]
        return min(runs, key=lambda run: run.info.start_time) if runs else None

    def run(self, name: str, tags: Mapping[str, str], *, at: datetime, more: Mapping[str, str] | None = None) -> str:
        """Find the run by `tags`, or create it with `more` of them."""
        found = self.find_run(tags)
        if found is None:
            found = self.client.create_run(
                self.experiment, start_time=_milliseconds(at), tags={**tags, **(more or {})}, run_name=name
            )
        run_id: str = found.info.run_id
        return run_id

    def end(self, run: str, status: str, *, at: datetime) -> None:
        self.client.set_terminated(run, status, _milliseconds(at))

    def points(
        self, numbers: Mapping[str, float | None], *, step: int, at: datetime, model: str | None = None
    ) -> list[Any]:
        """Metrics at the event's own time. What is unknown or infinite has none: MLflow makes 1e308 of infinity."""
        from mlflow.entities import Metric

        time_ms = _milliseconds(at)
        return [
            Metric(key, float(value), time_ms, step, model_id=model)
            for key, value in numbers.items()
            if value is not None and math.isfinite(value)
        ]

    def log(self, run: str, points: Sequence[Any], tags: Mapping[str, str] | None = None) -> None:
        from mlflow.entities import RunTag

        marks = [RunTag(key, str(value)[:_LONGEST_TAG]) for key, value in (tags or {}).items()]
        for start in range(0, max(len(points), 1), _METRICS_PER_CALL - _PARAMS_PER_CALL):
            batch = points[start : start + _METRICS_PER_CALL - _PARAMS_PER_CALL]
            self.client.log_batch(run, metrics=batch, tags=marks if start == 0 else [], synchronous=True)

    def params(self, run: str, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        values = [Param(key, value[:_LONGEST_PARAM]) for key, value in params.items()]
        for start in range(0, len(values), _PARAMS_PER_CALL):
            self.client.log_batch(run, params=values[start : start + _PARAMS_PER_CALL], synchronous=True)

    def table(self, run: str, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """What `log_table` writes, except that repeating it replaces the rows instead of appending them."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        data = [[row.get(column) for column in columns] for row in rows]
        self.client.log_text(run, json.dumps({"columns": columns, "data": data}), name)
        self.client.set_tag(run, "mlflow.loggedArtifacts", json.dumps([{"path": name, "type": "table"}]))

    def dataset(self, run: str, name: str, digest: str, rows: Sequence[Mapping[str, Any]]) -> None:
        import pandas as pd  # type: ignore[import-untyped]
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.pandas_dataset import from_pandas
        from mlflow.entities import DatasetInput, InputTag

        frame = pd.DataFrame([{str(key): _cell(value) for key, value in row.items()} for row in rows])
        source = CodeDatasetSource(tags={"ratchet.label_set": digest})
        dataset = from_pandas(frame, source=source, name=name, digest=digest[:36])  # MLflow's longest
        tags = [InputTag("mlflow.data.context", "reward_model")]
        self.client.log_inputs(run, datasets=[DatasetInput(dataset._to_mlflow_entity(), tags)])

    def candidate(self, name: str, run: str, tags: Mapping[str, str], more: Mapping[str, str]) -> str:
        """A logged model without weights: `mlflow.create_external_model`, but on this client, not the global one."""
        from mlflow.entities import LoggedModelStatus

        found = self.client.search_logged_models([self.experiment], _where(tags), max_results=1)
        if found:
            model = found[0]
        else:
            every = {**tags, **more, "mlflow.model.isExternal": "true"}
            model = self.client.create_logged_model(self.experiment, name, run, tags=every, model_type="policy")
        if model.status != LoggedModelStatus.READY:
            model = self.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        model_id: str = model.model_id
        return model_id

    def registered_model(self, campaign: str, ledger: str, *, create: bool) -> str | None:
        """Name of the campaign's registered model; another campaign of that name keeps its own."""
        for name in (campaign, f"{campaign}-{ledger[:8]}"):
            try:
                found = self.client.get_registered_model(name)
            except Exception as error:
                if not _says(error, "RESOURCE_DOES_NOT_EXIST"):
                    raise
                if not create:
                    continue
                self.client.create_registered_model(name, tags={LEDGER: ledger, CAMPAIGN: campaign})
                return name
            if found.tags.get(LEDGER) == ledger:
                return name
        return None

    def find_version(self, model: str, tags: Mapping[str, str]) -> str | None:
        versions = self.client.search_model_versions(f"name='{model}'")
        found = [int(v.version) for v in versions if all(v.tags.get(key) == value for key, value in tags.items())]
        return str(min(found)) if found else None

    def version(self, model: str, run: str, candidate: str | None, tags: Mapping[str, str]) -> str:
        found = self.find_version(model, tags)
        if found is not None:
            return found
        # The attempt's run holds the candidate's digests. A server takes neither local paths as a source, nor a
        # logged model's id beside a run's source: hence a tag.
        every = {**tags, "ratchet.logged_model": candidate or ""}
        made = self.client.create_model_version(model, f"runs:/{run}/candidate", run, tags=every, await_creation_for=0)
        return str(made.version)

    def aliased(self, model: str) -> str | None:
        version = self.client.get_registered_model(model).aliases.get(ALIAS)
        return None if version is None else str(version)


def _where(tags: Mapping[str, str]) -> str:
    """MLflow's filter language; the values are digests, places and campaign names, which hold no quotes."""
    return " AND ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())


def _says(error: Exception, code: str) -> bool:
    return getattr(error, "error_code", None) == code


def _milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _cell(value: Any) -> str | float:
    """A value that gives a column one type, whatever its rows hold."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return value if isinstance(value, str) else json.dumps(value)


def _cause(error: Exception) -> str:
    """One line: the system's own word where there is one below MLflow's, which quotes whole pools and addresses."""
    below: BaseException | None = error
    told: BaseException = error
    while below is not None:
        told = below if isinstance(below, OSError) and below.errno is not None else told
        below = below.__cause__ or (None if below.__suppress_context__ else below.__context__)
    return str(told).strip().partition("\n")[0][:200] or type(told).__name__


# --- the process's own MLflow -------------------------------------------------------------------------------------


def _mlflow_client(uri: str) -> Any:
    """A client for this address that leaves the process's global MLflow settings alone."""
    quiet = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_CONFIGURE_LOGGING": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        # The default waits minutes for a server that is away. The follower retries by itself.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow", "alembic"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.ERROR)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _create_database(path: Path) -> None:
    """Make MLflow's tables under another name first: a crash in the middle would leave a database it cannot open."""
    if path.exists():
        return
    unfinished = path.with_name("unfinished.db")
    unfinished.unlink(missing_ok=True)
    _mlflow_client(f"sqlite:///{unfinished}").search_experiments(max_results=1)
    unfinished.rename(path)


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


# --- following a campaign that runs -------------------------------------------------------------------------------


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
