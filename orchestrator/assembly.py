"""Where the parts are put together: the only place from which the orchestrator reaches its workers.

Imports of torch and ray stand inside the functions that need them, so that commands which need neither are quick.
"""

import logging
import os
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.core.settings import Advance, CampaignSettings, ResourceSettings
from orchestrator.errors import ConfigError, RatchetError, StorageFullError
from orchestrator.home import Home
from orchestrator.ports import Workers

if TYPE_CHECKING:
    from policies.tasks.base import Task

MIN_FREE_BYTES: Final = 256 * 1024**2
_KEYS_OF_SPLIT: Final = {
    "gate": (
        "lower protocol.stages, protocol.attempts, gate.max_labels, gate.direction.max_labels or "
        "gate.creep.max_labels (each gate prompt serves once)"
    ),
    "label": "lower feedback.initial_labels or feedback.labels_per_round (each label prompt serves once)",
    "train": "lower phase.steps or phase.prompts_per_step",
    "evaluate": "lower evaluation.prompts",
    "normalise": "give the task more prompts",
}
"""What to change where a split's prompts run out."""

log = logging.getLogger(__name__)


def make_workers(resources: ResourceSettings, home: Home) -> Workers:
    """The workers that a campaign's `resources` ask for, up and waiting.

    Raises:
        ConfigError: this machine has no room for them.
        WorkFailedError: they cannot be had.
    """
    from workers.room import cpus_here, require_resources

    require_resources(resources)
    threads = resources.workers * resources.threads_per_worker
    if resources.address == "local" and threads > (cpus := cpus_here()):
        log.warning("%d threads of workers share %d CPUs; fewer resources.workers may be as fast", threads, cpus)
    if resources.address == "in_process":
        from workers.local import InProcessWorkers

        return InProcessWorkers(home.artifact_root, threads=resources.threads_per_worker)
    from workers.actors import RayWorkers

    return RayWorkers(
        home.artifact_root.resolve(),
        home.progress.resolve(),
        address=resources.address,
        count=resources.workers,
        threads=resources.threads_per_worker,
        gpus_per_worker=resources.gpus_per_worker,
    )


def accelerator() -> str:
    """What the workers of this machine would compute on, in words."""
    from workers.local import device_name

    return device_name()


def preflight(settings: CampaignSettings, home: Home) -> None:
    """Refuse early what could not end well: nothing is on disk yet, nothing is lost.

    Raises:
        ConfigError: the task, the raters, the check items, the auditor, the base model or the precision cannot be
            had, or prompts would run out.
        ConfigError, WorkFailedError: the workers cannot be had.
        StorageFullError: too little room for even one checkpoint.
    """
    from policies.errors import PolicyError
    from policies.precision import Precision, require_supported
    from policies.reward_fit import MIN_LABELS
    from policies.tasks.base import Split
    from workers.bench import task_of
    from workers.comparisons import GOLD, raters_of
    from workers.learning import FEWEST_NORMALISE_PROMPTS
    from workers.local import device
    from workers.room import require_resources

    require_room(home.root)
    require_resources(settings.resources)
    feedback = settings.feedback
    try:
        task = task_of(settings.task)
        capacities = {split: task.prompt_capacity(split) for split in Split}
    except Exception as error:  # a plug-in raises what it likes
        raise ConfigError(f"task.kind {settings.task.kind}: {_told(error)}") from error
    raters: frozenset[str] = frozenset()
    if feedback.rater == GOLD:
        raise ConfigError("feedback.rater: gold never rates, it only audits; name `simulated`, `people` or a plug-in")
    if feedback.rater != "people":
        try:
            pool = raters_of(task, feedback.rater, feedback.options, raters_per_item=feedback.raters_per_item)
        except Exception as error:  # so does a rater
            raise ConfigError(f"feedback.rater {feedback.rater}: {_told(error)}") from error
        raters = frozenset(rater.name for rater in pool)
    if settings.protocol.advance is not Advance.ALWAYS:
        _require_checks(settings, task)
        _require_audit(settings, task, raters)
        _require_tripwires(settings)
    wanted = {Split.GATE: settings.gate_prompts, Split.EVALUATE: settings.evaluation.prompts}
    if settings.candidate is None:
        without = not settings.phase.algorithm.needs_reward_model
        # One label in six is held out to judge what was learned; of these there must be some, too.
        fewest = 3 * MIN_LABELS if without else MIN_LABELS
        if feedback.initial_labels < fewest:
            what = f"train a policy by {settings.phase.algorithm}" if without else "train a reward model"
            raise ConfigError(
                f"feedback.initial_labels: {feedback.initial_labels} cannot {what}; ask for {fewest} or more"
            )
        rounds = settings.protocol.stages * settings.protocol.attempts
        wanted |= {
            Split.LABEL: feedback.initial_labels + (rounds - 1) * feedback.labels_per_round,
            Split.TRAIN: settings.phase.steps * settings.phase.prompts_per_step,
            Split.NORMALISE: FEWEST_NORMALISE_PROMPTS,
        }
    for split, count in wanted.items():
        capacity = capacities[split]
        if capacity is not None and capacity < count:
            raise ConfigError(
                f"the task has {capacity} {split.value} prompts and the campaign may need {count}; "
                f"{_KEYS_OF_SPLIT[split.value]}"
            )
    resources = settings.resources
    if resources.address in ("in_process", "local"):  # what other machines have shows when the phase begins there
        computes_on = device() if resources.address == "in_process" or resources.gpus_per_worker else "cpu"
        try:
            require_supported(Precision(settings.phase.precision), computes_on)
        except PolicyError as error:
            raise ConfigError(str(error)) from error
    _require_models(settings)


def _require_models(settings: CampaignSettings) -> None:
    """Look at the models that are here already, and at no more than their files.

    Raises:
        ConfigError: one is none, or there is only one where two are to be compared.
    """
    from policies.errors import PolicyError
    from policies.hf_reward_model import require_one_output
    from policies.model_folder import require_files, same_model

    base, candidate = settings.base, settings.candidate
    given = {"base.model": base.model}
    if candidate is not None:
        given |= {"candidate.model": candidate.model, "candidate.reward_model": candidate.reward_model}
    folders = {key: Path(model) for key, model in given.items() if model is not None and Path(model).is_dir()}
    for key, folder in folders.items():
        try:
            (require_one_output if key == "candidate.reward_model" else require_files)(folder)
        except PolicyError as error:
            raise ConfigError(f"{key}: {error}") from error
    if candidate is None:
        return
    ours, theirs = folders.get("candidate.model"), folders.get("base.model")
    by_name = (candidate.model, candidate.revision) == (base.model, base.revision)
    if by_name or (ours is not None and theirs is not None and same_model(ours, theirs)):
        raise ConfigError(f"candidate.model: {candidate.model} is base.model itself: there is nothing to compare")


def _require_checks(settings: CampaignSettings, task: "Task") -> None:
    """Raises ConfigError where a gate's check items cannot be had."""
    from workers.checks import made_checks, read_checks

    checks = settings.feedback.checks
    if checks is None:
        return
    try:
        found = read_checks(checks.file) if checks.file else made_checks(task, checks.items, random.Random(0))
    except Exception as error:  # a plug-in's corpus and gold raise what they like
        told = _told(error)
        raise ConfigError(told if told.startswith("feedback.checks") else f"feedback.checks: {told}") from error
    if len(found) < checks.items:
        raise ConfigError(
            f"feedback.checks.file {checks.file}: {len(found)} check items, and a gate takes {checks.items}; "
            "add some or lower feedback.checks.items"
        )


def _require_audit(settings: CampaignSettings, task: "Task", raters: frozenset[str]) -> None:
    """Raises ConfigError where the auditor cannot be had, or is one of the `raters`."""
    from policies.tasks.base import has_gold
    from workers.comparisons import GOLD, raters_of

    audit = settings.gate.audit
    if audit.evaluator in ("people", "none"):
        return
    if audit.evaluator == GOLD:
        if audit.limit is not None and not (has_gold(task) and settings.evaluation.prompts):
            why = "evaluation.prompts is 0, which switches gold off" if has_gold(task) else "the task has none"
            raise ConfigError(
                f"gate.audit.limit: it is gold that audits, and {why}; leave the limit out or set "
                "gate.audit.evaluator to people or a plug-in"
            )
        names = {GOLD}
    elif audit.evaluator == "simulated":
        raise ConfigError(
            "gate.audit.evaluator: the simulated raters are no better than the raters; name gold, people or a plug-in"
        )
    else:
        try:
            names = {auditor.name for auditor in raters_of(task, audit.evaluator, {}, raters_per_item=1)}
        except Exception as error:  # a plug-in raises what it likes
            raise ConfigError(f"gate.audit.evaluator {audit.evaluator}: {_told(error)}") from error
    if both := ", ".join(sorted(names & raters)):
        raise ConfigError(f"gate.audit.evaluator: {both} rates already and cannot audit; name another or `none`")


def _require_tripwires(settings: CampaignSettings) -> None:
    """Raises ConfigError where two have one name: their rates are told apart by it."""
    names = [tripwire.name for tripwire in settings.gate.vetoes.tripwires]
    if twice := ", ".join(sorted({name for name in names if names.count(name) > 1})):
        raise ConfigError(f"gate.vetoes.tripwires: two are named {twice}; rename one")


def _told(error: Exception) -> str:
    """Our own errors speak for themselves; of a plug-in's, the kind is worth knowing too."""
    from policies.errors import PolicyError

    own = isinstance(error, PolicyError | RatchetError | TypeError | ValueError)
    return str(error) if own else f"{type(error).__name__}: {error}"


def require_room(place: Path) -> None:
    """Raises StorageFullError where less than 256 MiB are free at `place` or its nearest existing parent."""
    existing = next(parent for parent in (place, *place.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < MIN_FREE_BYTES:
        raise StorageFullError(
            f"{existing}: {free // 1024**2} MiB free, a campaign needs {MIN_FREE_BYTES // 1024**2} MiB; "
            "make room or choose another place with --home"
        )


def code_version() -> str:
    """The distribution's version, and the revision of a checkout where there is one."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        released = version("ratchet-rlhf")
    except PackageNotFoundError:
        released = "unknown"
    return f"{released}{_revision()}"


def _revision() -> str:
    import subprocess

    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", os.fspath(root), "rev-parse", "--short=12", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"+g{found}"
