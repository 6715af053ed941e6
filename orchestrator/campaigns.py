"""Beginning and following campaigns: what the commands share."""

import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from orchestrator.artifacts import ArtifactStore
from orchestrator.assembly import code_version, preflight
from orchestrator.config import input_digests, parse_settings
from orchestrator.core.commands import AskForDecision, AskForLabels
from orchestrator.core.events import CampaignCreated, Event, parse
from orchestrator.core.history import apply
from orchestrator.core.machine import next_command
from orchestrator.core.panels import deadline
from orchestrator.core.settings import Advance, CampaignSettings
from orchestrator.core.state import CampaignState
from orchestrator.errors import (
    CampaignExistsError,
    ConfigError,
    IntegrityError,
    LedgerVersionError,
    LockedError,
    StorageError,
    UsageError,
)
from orchestrator.home import Home
from orchestrator.names import checked_campaign_name
from orchestrator.runner import draft, fold_stored, read_settings, read_state_at
from orchestrator.store.ledger import Ledger
from orchestrator.tracking.tracker import Tracker, require_address
from orchestrator.yaml_loader import apply_overrides

FOLLOW_EVERY_SECONDS: Final = 0.5
IDLE_AFTER_LOOKS: Final = 6
AWAIT_EVERY_SECONDS: Final = 2.0
_DIGEST: Final = re.compile(r"[0-9a-f]{8,64}")
"""A digest, or its beginning."""
Unreadable = IntegrityError | LedgerVersionError
"""Why one campaign cannot be read, while those beside it can: it is damaged, or a newer Ratchet wrote it."""
TEMPLATES: Final = Path(__file__).resolve().parents[1] / "configs"

log = logging.getLogger(__name__)


def create(
    settings: CampaignSettings, home: Home, *, author: str, start_from: str | None = None, base: str | None = None
) -> None:
    """Check that the campaign can be run, then put its creation on the ledger.

    Args:
        start_from: an approved checkpoint of this home, or the beginning of its digest.
        base: a base checkpoint that is ready already; several campaigns may share it.

    Raises:
        ConfigError, UsageError, CampaignExistsError, StorageError: refused, and nothing is on disk that was not before.
    """
    if home.exists():
        with home.ledger() as ledger:
            if settings.name in ledger.campaigns() and ledger.head(settings.name).seq >= 0:
                raise CampaignExistsError(
                    f"campaign {settings.name} exists already; choose another --name, "
                    f"or `ratchet campaign resume {settings.name}`"
                )
    settings = _with_whole_digests(settings, home)
    origin = base if start_from is None else _approved_in(home, start_from)
    if settings.candidate is None:
        model = settings.base.model
        from_home = model if model is not None and _is_digest(model) else None
        _require_unused_gate_prompts(settings, home, (None if start_from is None else origin, from_home))
    require_address(settings.tracking.mlflow)
    preflight(settings, home)
    home.create()
    with home.ledger() as ledger:
        body = CampaignCreated(
            settings=settings.model_dump(mode="json"),
            settings_digest=settings.digest(),
            inputs=input_digests(settings),
            code_version=code_version(),
            start_from=origin,
        )
        if settings.name not in ledger.campaigns():  # a name without events was left by a crash right here
            ledger.create_campaign(settings.name)
        ledger.append(settings.name, [draft(body, "created", author=author)], epoch=None)


def follow(
    ledger: Ledger, campaign: str, *, on_idle: Callable[[CampaignState], None] = lambda state: None
) -> Iterator[tuple[Event, CampaignState]]:
    """All events so far, then new ones as they come in, until the campaign has ended.

    Args:
        on_idle: called every few seconds while none come in.
    """
    state, seq = CampaignState(), -1
    idle = 0
    while state.ended_by is None:
        idle += 1
        for stored in ledger.events(campaign, seq):
            event = parse(stored)
            state, seq, idle = apply(state, event), event.seq, 0
            yield event, state
        if idle == IDLE_AFTER_LOOKS:
            on_idle(state)
            idle = 0
        if state.ended_by is None:
            time.sleep(FOLLOW_EVERY_SECONDS)


def fold_all(ledger: Ledger) -> tuple[dict[str, CampaignState], dict[str, Unreadable]]:
    """The state of every campaign that has begun and is whole; and of each other one, by its name, what is wrong."""
    states: dict[str, CampaignState] = {}
    damaged: dict[str, Unreadable] = {}
    for name in ledger.campaigns():
        try:
            if ledger.head(name).seq >= 0:
                states[name], _ = read_state_at(ledger, name)
        except (IntegrityError, LedgerVersionError) as error:
            damaged[name] = error
    return states, damaged


def controller_at_work(ledger: Ledger, campaign: str) -> bool | None:
    """Whether some process runs the campaign; None where this machine cannot know.

    That is so where a controller's lock cannot be tried, since the ledger's folder cannot be written to, and where the
    last controller was another machine's on a network file system, which may not show its locks.
    """
    try:
        controller = ledger.controller(campaign)
    except StorageError:
        return None
    if controller.live or controller.owner is None:
        return controller.live
    ours = controller.owner.rpartition(":")[0] == socket.gethostname()
    return False if ours or not ledger.is_on_network else None


def await_people(
    ledger: Ledger, campaign: str, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> CampaignState:
    """Stay until people have answered, their deadline has passed, or somebody paused or stopped the campaign; the state
    then. Holds no lease, so that meanwhile another controller may go on instead."""
    settings = read_settings(ledger, campaign)
    state, seq = read_state_at(ledger, campaign)
    while True:
        command = next_command(state, settings)
        if not isinstance(command, AskForLabels | AskForDecision):
            return state
        due = deadline(state, command.batch) if isinstance(command, AskForLabels) else None
        if due is not None and now() > due:
            return state
        time.sleep(AWAIT_EVERY_SECONDS)
        state, seq = fold_stored(ledger, campaign, state, after_seq=seq)


def require_same_inputs(ledger: Ledger, campaign: str) -> None:
    """Resuming on other data than the campaign began with would mix two campaigns.

    Raises:
        ConfigError: a file that it reads has changed or is gone.
    """
    created = parse(ledger.events(campaign)[0]).body
    if not isinstance(created, CampaignCreated):
        return
    for key, digest in input_digests(read_settings(ledger, campaign)).items():
        if created.inputs.get(key) != digest:
            raise ConfigError(
                f"{key}: the file is not the one that campaign {campaign} began with; "
                "restore it or start a new campaign"
            )


def settings_for_run(ledger: Ledger, campaign: str, overrides: Sequence[str]) -> CampaignSettings:
    """The campaign's settings, with other resources, tracking or notices for this run.

    Raises:
        ConfigError: an override is malformed, or would change what decides results.
    """
    settings = read_settings(ledger, campaign)
    if not overrides:
        return settings
    changed = parse_settings(apply_overrides(settings.model_dump(mode="json"), overrides), source="--set")
    elsewhere = {"resources": settings.resources, "tracking": settings.tracking, "notify": settings.notify}
    placed = changed.model_copy(update=elsewhere)
    same_threads = changed.resources.threads_per_worker == settings.resources.threads_per_worker
    if placed != settings or not same_threads:
        raise ConfigError(
            "--set: a campaign under way takes other resources (threads aside), tracking and notices, nothing that "
            "decides results; start a new campaign for that"
        )
    return changed


def require_free(ledger: Ledger, campaign: str) -> None:
    """Look before workers are started; the lease that the runner takes is what counts.

    Raises:
        LockedError: another controller runs the campaign.
    """
    controller = ledger.controller(campaign)
    if controller.live:
        raise LockedError(
            f"campaign {campaign} is run by {controller.owner}; wait for it to end, "
            f"or `ratchet campaign pause {campaign}`"
        )


def detach(home: Home, campaign: str, overrides: Sequence[str] = (), *, wait: bool = False) -> Path:
    """Run `ratchet campaign resume` in a session of its own; gives its log file."""
    further = [*(f"--set={override}" for override in overrides), *(["--wait"] if wait else [])]
    log = home.logs / f"{campaign}.log"
    command = [sys.executable, "-m", "orchestrator.cli.main", "--home", os.fspath(home.root.resolve())]
    # Not among the arguments, which everybody on this machine may read.
    elsewhere = {} if home.ledger_at is None else {"RATCHET_LEDGER": home.ledger_at}
    with log.open("ab") as out:
        subprocess.Popen(
            [*command, "campaign", "resume", campaign, *further],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, **elsewhere},
            start_new_session=True,
        )
    return log


def tracker_for(settings: CampaignSettings, ledger: Ledger, home: Home) -> Tracker:
    return Tracker(ledger, home.artifacts(), settings.tracking.mlflow, home=home.root)


def write_template(name: str, template: str, folder: Path) -> Path:
    """Copy a shipped campaign file to `folder`/NAME.yaml under its new name.

    Raises:
        ConfigError: there is no such template.
        UsageError: the file exists, or the name is unsafe.
    """
    checked_campaign_name(name)
    source = TEMPLATES / f"{template}.yaml"
    known = sorted(path.stem for path in TEMPLATES.glob("*.yaml"))
    if template not in known:
        raise ConfigError(f"no template {template!r}; known: {', '.join(known)}")
    target = folder / f"{name}.yaml"
    lines = source.read_text().splitlines(keepends=True)
    try:
        with target.open("x") as out:
            # Quoted, since 007, true and 1e5 are names here and something else to YAML.
            out.writelines(f'name: "{name}"\n' if line.startswith("name:") else line for line in lines)
    except FileExistsError as error:
        raise UsageError(f"{target.name} exists already; choose another name") from error
    return target


def _with_whole_digests(settings: CampaignSettings, home: Home) -> CampaignSettings:
    """Models that are named by the beginning of a digest, named by all of it."""
    base, candidate = settings.base, settings.candidate
    if base.model is not None and _is_digest(base.model):
        base = base.model_copy(update={"model": _approved_in(home, base.model)})
    if candidate is not None and _is_digest(candidate.model):
        candidate = candidate.model_copy(update={"model": _artifact_in(home, candidate.model, "checkpoint")})
    if candidate is not None and candidate.reward_model is not None and _is_digest(candidate.reward_model):
        whole = _artifact_in(home, candidate.reward_model, "reward_model")
        candidate = candidate.model_copy(update={"reward_model": whole})
    return settings.model_copy(update={"base": base, "candidate": candidate})


def _require_unused_gate_prompts(settings: CampaignSettings, home: Home, begins_at: Iterable[str | None]) -> None:
    """Seed and task decide a campaign's gate prompts, and after a verdict these train: also the forebears of what the
    campaign advanced to. No gate of a descendant may ask them again.

    Args:
        begins_at: what the new campaign begins from; what no campaign of this home trained is as good as any.

    Raises:
        UsageError: a forebear asked them.
        IntegrityError, LedgerVersionError: a forebear's campaign is not among those that can be read.
    """
    pending = [model for model in begins_at if model is not None]
    if not pending or not home.exists():
        return
    artifacts = home.artifacts()
    with home.ledger() as ledger:
        states, damaged = fold_all(ledger)
        for name, error in damaged.items():
            log.warning("passing over %s, so none of its gate prompts is known as used: %s", name, error)
        seen: set[str] = set()
        while pending:
            checkpoint = pending.pop()
            trained = [
                name
                for name, state in states.items()
                if state.candidate is None and any(attempt.candidate == checkpoint for attempt in state.attempts)
            ]
            if not trained and damaged and not _is_untrained(artifacts, checkpoint):
                raise next(iter(damaged.values()))
            for name in trained:
                if name in seen:
                    continue
                seen.add(name)
                state, earlier = states[name], read_settings(ledger, name)
                asked = any(batch.purpose.judges for batch in state.batches)
                if asked and (earlier.seed, earlier.task) == (settings.seed, settings.task):
                    raise UsageError(
                        f"{checkpoint[:12]} comes from campaign {name}, whose seed and task are the same: its gate "
                        f"prompts, on which it trained, would judge again; begin with --set seed={settings.seed + 1}"
                    )
                pending.extend(origin for origin in (state.base, state.start_from) if origin is not None)


def _is_untrained(artifacts: ArtifactStore, checkpoint: str) -> bool:
    """Whether it says of itself that no campaign trained it: it was grown, or taken in from elsewhere."""
    try:
        return artifacts.manifest(checkpoint).meta["parent"] is None
    except (IntegrityError, KeyError):
        return False


def _is_digest(model: str) -> bool:
    return _DIGEST.fullmatch(model) is not None and not Path(model).exists()


def _artifact_in(home: Home, digest: str, kind: str) -> str:
    """The whole digest of an artifact of this home."""
    found = []
    if home.exists():
        artifacts = home.artifacts()
        found = [whole for whole in artifacts.digests() if whole.startswith(digest) and artifacts.kind(whole) == kind]
    if len(found) != 1:
        raise UsageError(
            f"{digest!r} names {len(found)} artifacts of this home that are a {kind}, wanted one; "
            "see `ratchet checkpoint list NAME`, or name a folder"
        )
    home.artifacts().open(found[0])
    return found[0]


def _approved_in(home: Home, digest: str) -> str:
    """The whole digest of an approved checkpoint of this home; `digest` may be its beginning.

    Raises:
        UsageError: it names none, or several.
        IntegrityError: no whole campaign has it, and one is damaged, whose it may be; or its files are damaged.
        LedgerVersionError: the same, of one that a newer Ratchet wrote.
    """
    approved: set[str] = set()
    damaged: dict[str, Unreadable] = {}
    if home.exists():
        with home.ledger() as ledger:
            folded, damaged = fold_all(ledger)
        states = folded.values()
        # What an ungated arm deployed was approved by nobody; its base is as good as any.
        lines = (s.deployments[:1] if s.protocol.advance is Advance.ALWAYS else s.deployments for s in states)
        found = (deployed.checkpoint for line in lines for deployed in line)
        approved.update(checkpoint for checkpoint in found if checkpoint.startswith(digest.lower()))
    if not approved and damaged:
        raise next(iter(damaged.values()))
    if len(approved) != 1 or len(digest) < 8:
        raise UsageError(
            f"{digest!r} names {len(approved)} approved checkpoints of this home, wanted one; "
            "see `ratchet checkpoint list NAME`"
        )
    checkpoint = approved.pop()
    home.artifacts().open(checkpoint)
    return checkpoint
