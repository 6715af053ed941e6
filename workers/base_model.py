"""Preparing the base: growing a seedling, taking in a Hugging Face model, or another campaign's checkpoint."""

from pathlib import Path

from orchestrator.core.events import BaseReady
from orchestrator.core.records import Costs
from orchestrator.core.settings import SeedlingSettings
from orchestrator.core.work import PrepareBase
from orchestrator.errors import WorkFailedError
from policies import language_model, seedling
from policies.rng import derive_seed
from workers.bench import Bench, task_of


def prepare_base(work: PrepareBase, bench: Bench) -> BaseReady:
    if work.start_from is not None:
        parameters = bench.policy(work.start_from).model.num_parameters()
        return BaseReady(checkpoint=work.start_from, parameters=parameters, costs=Costs())
    if work.base.seedling is not None:
        return _grow(work, work.base.seedling, bench)
    assert work.base.model is not None
    folder = local_model(work.base.model, work.base.revision)
    model = language_model.load(folder, bench.device)
    with bench.artifacts.staging() as staged:
        language_model.save(model, staged, like=folder)
        digest = bench.publish_checkpoint(staged, {"parent": None})
    return BaseReady(checkpoint=digest, parameters=model.model.num_parameters(), costs=Costs())


def local_model(model: str, revision: str | None) -> Path:
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
            f"base.model {model!r} is no folder here and the hub does not give it ({type(error).__name__}); "
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
