"""Models that are there before a phase: growing a seedling, taking in given models or another campaign's checkpoint."""

import re
from pathlib import Path
from typing import Final

from orchestrator.artifacts import MANIFEST, FileEntry
from orchestrator.core.events import BaseReady, CandidateTaken
from orchestrator.core.records import Costs
from orchestrator.core.settings import SeedlingSettings
from orchestrator.core.work import PrepareBase, TakeCandidate
from orchestrator.errors import WorkFailedError
from policies import hf_reward_model, language_model, seedling
from policies.rng import derive_seed
from workers.bench import Bench, task_of

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


def prepare_base(work: PrepareBase, bench: Bench) -> BaseReady:
    if work.start_from is not None:
        parameters = bench.policy(work.start_from).model.num_parameters()
        return BaseReady(checkpoint=work.start_from, parameters=parameters, costs=Costs())
    if work.base.seedling is not None:
        return _grow(work, work.base.seedling, bench)
    assert work.base.model is not None
    checkpoint, parameters = _taken_in(work.base.model, work.base.revision, bench, "base.model")
    return BaseReady(checkpoint=checkpoint, parameters=parameters, costs=Costs())


def take_candidate(work: TakeCandidate, bench: Bench) -> CandidateTaken:
    """Raises WorkFailedError where the candidate is, file by file, what it is to be judged against."""
    given = work.candidate
    candidate, parameters = _taken_in(given.model, given.revision, bench, "candidate.model")
    if _model_files(candidate, bench) == _model_files(work.start, bench):
        raise WorkFailedError(f"candidate.model {given.model} is base.model itself: there is nothing to compare")
    return CandidateTaken(
        stage=work.stage,
        attempt=work.attempt,
        candidate=candidate,
        start=work.start,
        parameters=parameters,
        reward_model=None if given.reward_model is None else _reward_model(given.reward_model, bench),
        costs=Costs(),
    )


def _taken_in(model: str, revision: str | None, bench: Bench, key: str) -> tuple[str, int]:
    """Digest of the checkpoint that a given model is here, and its number of parameters."""
    if _is_digest(model):
        _require_kind(model, "checkpoint", bench, key)
        return model, bench.policy(model).model.num_parameters()
    folder = local_model(model, revision, key)
    opened = language_model.load(folder, bench.device)
    with bench.artifacts.staging() as staged:
        language_model.save(opened, staged, like=folder)
        return bench.publish_checkpoint(staged, {"parent": None}), opened.model.num_parameters()


def _reward_model(model: str, bench: Bench) -> str:
    """Digest of the artifact that a given reward model is here."""
    key = "candidate.reward_model"
    if _is_digest(model):
        _require_kind(model, "reward_model", bench, key)
        return model
    opened = hf_reward_model.load(local_model(model, None, key), bench.device)
    with bench.artifacts.staging() as staged:
        opened.save(staged)
        (staged / MANIFEST).unlink(missing_ok=True)
        return bench.artifacts.publish(staged, kind="reward_model")


def _model_files(checkpoint: str, bench: Bench) -> dict[str, FileEntry]:
    """Its files, without what a phase leaves beside them."""
    files = bench.artifacts.manifest(checkpoint).files
    return {name: entry for name, entry in files.items() if not name.startswith("trainer_state")}


def _is_digest(model: str) -> bool:
    return _DIGEST.fullmatch(model) is not None and not Path(model).exists()


def _require_kind(digest: str, kind: str, bench: Bench, key: str) -> None:
    found = bench.artifacts.kind(digest)
    if found != kind:
        raise WorkFailedError(f"{key}: {digest[:12]} is no {kind} but {found}; name another")


def local_model(model: str, revision: str | None, key: str = "base.model") -> Path:
    """The folder of a model: a local one, or the hub's, downloaded without code and without pickles.

    Raises:
        WorkFailedError: it is neither here nor to be had.
    """
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        patterns = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.txt", "*.jinja"]
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise WorkFailedError(
            f"{key} {model!r} is no folder here and the hub does not give it ({type(error).__name__}); "
            "name a local folder"
        ) from error


def _grow(work: PrepareBase, settings: SeedlingSettings, bench: Bench) -> BaseReady:
    with bench.artifacts.staging() as staged:
        report = seedling.grow(
            task_of(work.task),
            seedling.SeedlingSettings(
                width=settings.width,
                layers=settings.layers,
                heads=settings.heads,
                steps=settings.steps,
                batch_size=settings.batch_size,
                learning_rate=settings.learning_rate,
            ),
            seed=derive_seed(work.seed, "seedling"),
            out_dir=staged,
            progress=bench.progress,
        )
        digest = bench.publish_checkpoint(staged, {"parent": None})
    return BaseReady(
        checkpoint=digest,
        parameters=report.parameters,
        loss_nats=report.loss,
        costs=Costs(gradient_steps=report.steps),
    )
