"""The workers' port in one process: for tests, and where a cluster would be too much."""

from pathlib import Path

import torch
import transformers

from orchestrator.artifacts import ArtifactStore
from orchestrator.core.work import Work
from orchestrator.ports import Claim, Progress, WorkDone
from workers import items
from workers.bench import Bench


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none; work runs on the CPU"


def prepare_process(threads: int) -> None:
    """Set what holds for a whole process. Sums depend on the number of threads in their last bits."""
    torch.set_num_threads(threads)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


class InProcessWorkers:
    """Runs every work item here and now."""

    def __init__(self, artifact_root: Path, *, threads: int = 1) -> None:
        prepare_process(threads)
        self._artifacts = ArtifactStore(artifact_root)

    def run(self, work: Work, claim: Claim, progress: Progress) -> WorkDone:
        return items.run(work, claim, Bench(self._artifacts, device(), progress))

    def close(self) -> None:
        """Nothing is held."""
