"""What one event shows in MLflow, and the cursor that remembers how far that went.

Events go in, calls of the view come out. No connection, lock or retry lives here (tracker.py has them), no names of
totals or columns (figures.py), and nothing of how MLflow finds things again (mlflow_view.py, tags.py). The tracker
alone calls it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol, Self

import yaml

from orchestrator import failpoints
from orchestrator.core import events as ev
from orchestrator.core.envelope import StoredEvent
from orchestrator.core.events import Event, parse
from orchestrator.core.gate import GateVerdict
from orchestrator.core.history import apply, fold
from orchestrator.core.records import EndedBy
from orchestrator.core.settings import PriceSettings
from orchestrator.core.state import Attempt, CampaignState
from orchestrator.errors import IntegrityError
from orchestrator.redaction import redacted
from orchestrator.tracking.figures import attribution_metrics, gate_metrics, step_metrics, totals, verdict_text
from orchestrator.tracking.mlflow_view import ALIAS, View
from orchestrator.tracking.tags import (
    ATTEMPT,
    CURSOR,
    LEDGER,
    campaign_tags,
    cursor_of,
    shown_tags,
    verdict_tags,
    version_tags,
)

SAMPLES_SHOWN: Final = 20

_EVENTS_PER_FLUSH: Final = 50

_log = logging.getLogger(__name__)


class ArtifactSource(Protocol):
    """What the mirror needs of an artifact store."""

    def open(self, digest: str) -> Path: ...

    def read_lines(self, digest: str) -> Iterator[Any]: ...


class Mirror:
    """One campaign in MLflow: the state that is shown, and what changes with the next event."""

    def __init__(self, campaign: str, first: StoredEvent, view: View, artifacts: ArtifactSource) -> None:
        created = parse(first).body
        if not isinstance(created, ev.CampaignCreated):
            raise IntegrityError(f"campaign {campaign}: its ledger does not begin with its creation")
        self.campaign = campaign
        self.tags = campaign_tags(campaign, first)
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
    def open(cls, campaign: str, events: Sequence[StoredEvent], view: View, artifacts: ArtifactSource) -> Self:
        """Go back to where MLflow says that it is."""
        mirror = cls(campaign, events[0], view, artifacts)
        run = view.find_run(mirror.tags)
        cursor = -1 if run is None else cursor_of(run.data.tags)
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
            case ev.CandidateTaken():
                self._show_taken(event, body)
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
            case ev.Resumed():
                self._mark({"ratchet.why_paused": ""})

    def _show_settings(self) -> None:
        run = self._campaign_run()
        settings = redacted(self.created.settings)
        self.view.params(run, settings)
        text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
        self.view.client.log_text(run, text, "campaign.yaml")

    def _show_totals(self, before: CampaignState, event: Event) -> None:
        old, new = totals(before, self.prices), totals(self.state, self.prices)
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
        for step, gold in body.gold_course:
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

    def _show_taken(self, event: Event, body: ev.CandidateTaken) -> None:
        run = self._attempt_run(event)
        seal = {
            "ratchet.candidate": body.candidate,
            "ratchet.start": body.start,
            "ratchet.reward_model": body.reward_model or "",
        }
        self.view.client.log_dict(run, seal, "candidate/candidate.json")
        points = self.view.points({"candidate/parameters": body.parameters}, step=0, at=event.at)
        self.view.log(run, points, seal)
        self._candidate(event)

    def _show_verdict(self, event: Event, verdict: GateVerdict) -> None:
        run = self._attempt_run(event)
        text = verdict_text(self.campaign, self._attempt, verdict)
        self.view.client.log_dict(run, verdict.model_dump(mode="json"), "verdict.json")
        self.view.client.log_text(run, text, "verdict.txt")
        numbers = gate_metrics(self.state, self._attempt, verdict) | attribution_metrics(self._attempt.attribution)
        model = self._candidate(event)
        tags = verdict_tags(self._attempt)
        note = {"mlflow.note.content": text}
        self.view.log(run, self.view.points(numbers, step=0, at=event.at, model=model), {**tags, **note})
        if model is not None:
            self.view.client.set_logged_model_tags(model, shown_tags(tags))

    def _show_version(self, event: Event) -> None:
        run = self._attempt_run(event)
        name = self.view.registered_model(self.campaign, self.tags[LEDGER], create=True)
        assert name is not None
        self.view.version(name, run, self._candidate(event), version_tags(self.state, self.state.advances))

    def _point_alias(self) -> None:
        advances = self.state.advances
        name = self.view.registered_model(self.campaign, self.tags[LEDGER], create=False)
        if name is None:
            return
        shown = self.view.aliased(name)
        version = self.view.find_version(name, version_tags(self.state, advances)) if advances else None
        if version is not None and version != shown:
            self.view.client.set_registered_model_alias(name, ALIAS, version)
        elif version is None and shown is not None:
            self.view.client.delete_registered_model_alias(name, ALIAS)

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
        place = self._attempt.place
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
        place = attempt.place
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
            return step_metrics(self.artifacts.open(digest))
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
