"""What the loop costs besides learning: `python -m benchmarks.loop [--json]`.

Runs one attempt-rich campaign of the quickstart's shape twice, in this process and on Ray with MLflow, and reports
    samples a second of the RL phase,
    the share of wall time that is not work (folding, appending, waiting for the port, MLflow),
    the share of a work item's wall time that is Ray (the way there and back),
    the share of work that is artifacts (hashing, fsync, reading back),
    save and restore rates of checkpoints of several sizes.
Shares are taken within one run, so they compare between machines better than seconds do.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from orchestrator.artifacts import ArtifactStore
from orchestrator.assembly import make_workers
from orchestrator.campaigns import TEMPLATES, create, tracker_for
from orchestrator.config import load_settings
from orchestrator.core.events import Event, PhaseFinished
from orchestrator.core.state import CampaignState
from orchestrator.core.work import Work
from orchestrator.home import Home
from orchestrator.ports import Claim, Progress, WorkDone, Workers
from orchestrator.runner import Runner, Watcher
from orchestrator.tracking.follower import Follower

OVERRIDES = (
    "approval.by=gate",
    "protocol.stages=1",
    "protocol.attempts=3",
    "base.seedling.steps=300",
    "resources.workers=1",
)
CHECKPOINT_MIB = (1, 16, 256)


class TimedWorkers:
    """Adds up how long the port was in use, and how long the work itself took."""

    def __init__(self, inner: Workers) -> None:
        self._inner = inner
        self.port_seconds = 0.0
        self.busy_seconds = 0.0

    def run(self, work: Work, claim: Claim, progress: Progress) -> WorkDone:
        began = time.perf_counter()
        done = self._inner.run(work, claim, progress)
        self.port_seconds += time.perf_counter() - began
        self.busy_seconds += done.busy_seconds
        return done

    def close(self) -> None:
        self._inner.close()


def campaign(address: str, mlflow: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        overrides = [*OVERRIDES, f"resources.address={address}", f"tracking.mlflow={mlflow}"]
        settings = load_settings(TEMPLATES / "quickstart.yaml", overrides)
        create(settings, home, author="benchmark")
        phases: list[PhaseFinished] = []

        def on_event(event: Event, state: CampaignState) -> None:
            if isinstance(event.body, PhaseFinished):
                phases.append(event.body)

        workers = TimedWorkers(make_workers(settings.resources, home))
        artifact_seconds = _timed_artifacts() if address == "in_process" else None
        try:
            with home.ledger() as ledger, Follower(tracker_for(settings, ledger, home), [settings.name]):
                runner = Runner(
                    settings.name,
                    ledger=ledger,
                    artifacts=home.artifacts(),
                    workers=workers,
                    watcher=Watcher(on_event=on_event),
                )
                began = time.perf_counter()
                outcome = runner.run()
                wall = time.perf_counter() - began
        finally:
            workers.close()
    samples = sum(phase.costs.samples for phase in phases)
    seconds = sum(phase.costs.compute_seconds for phase in phases)
    return {
        "attempts": len(outcome.state.attempts),
        "wall_seconds": wall,
        "rl_phase_samples_per_second": samples / seconds,
        "share_outside_work": 1 - workers.port_seconds / wall,
        "share_of_work_that_is_the_way_there": 1 - workers.busy_seconds / workers.port_seconds,
        "share_of_work_that_is_artifacts": None if artifact_seconds is None else artifact_seconds() / wall,
    }


def _timed_artifacts() -> Callable[[], float]:
    """Time every publish and open of this process; gives a function that tells the sum."""
    spent = [0.0]
    for name in ("publish", "open", "publish_lines"):
        setattr(ArtifactStore, name, _timed(getattr(ArtifactStore, name), spent))
    return lambda: spent[0]


def _timed(method: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    depth = [0]

    def timed(*args: Any, **kwargs: Any) -> Any:
        depth[0] += 1
        began = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            depth[0] -= 1
            if not depth[0]:
                spent[0] += time.perf_counter() - began

    return timed


def checkpoints() -> list[dict[str, float]]:
    """Publish (write, hash, fsync, rename) and open (read, verify) of one random tensor."""
    rows = []
    for mib in CHECKPOINT_MIB:
        with tempfile.TemporaryDirectory() as folder:
            store = ArtifactStore(Path(folder))
            tensor = torch.randn(mib * 1024**2 // 4, generator=torch.Generator().manual_seed(0))
            began = time.perf_counter()
            with store.staging() as staged:
                save_file({"weight": tensor}, staged / "model.safetensors")
                digest = store.publish(staged, kind="checkpoint")
            saved = time.perf_counter()
            ArtifactStore(Path(folder)).open(digest)
            restored = time.perf_counter()
        rows.append(
            {
                "mib": mib,
                "save_mib_per_second": mib / (saved - began),
                "restore_mib_per_second": mib / (restored - saved),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    as_json = parser.parse_args().json
    found: dict[str, Any] = {
        "checkpoints": checkpoints(),
        "ray_with_mlflow": campaign("local", "default"),
        "in_process": campaign("in_process", "none"),
    }
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for row in found["checkpoints"]:
        print("checkpoint " + ", ".join(f"{key} {value:.0f}" for key, value in row.items()))
    for mode in ("in_process", "ray_with_mlflow"):
        for key, value in found[mode].items():
            print(f"{mode:>16}  {key:<38} {'–' if value is None else f'{value:.3f}'}")


if __name__ == "__main__":
    main()
