"""A phase's rollouts as files: written when it ends, read by those who may see gold and by the gate's path."""

import gzip
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from orchestrator.core.events import ROLLOUT_STEPS
from policies.phase_records import PhaseResult
from workers.bench import Bench

ROLLOUTS_FILE: Final = "rollouts.jsonl.gz"


def publish_rollouts(result: PhaseResult, bench: Bench) -> str:
    """Publish the steps in numbers and every response that was drawn; same phase, same digest."""
    with bench.artifacts.staging() as staged:
        steps = "".join(json.dumps(asdict(record), sort_keys=True) + "\n" for record in result.records)
        (staged / ROLLOUT_STEPS).write_text(steps)
        lines = "".join(json.dumps(asdict(rollout), sort_keys=True) + "\n" for rollout in result.rollouts)
        (staged / ROLLOUTS_FILE).write_bytes(gzip.compress(lines.encode(), mtime=0))
        return bench.artifacts.publish(staged, kind="rollouts")


def read_rollouts(folder: Path) -> list[dict[str, Any]]:
    """Read a phase's rollouts; those written before rows said so all count as the policy's own."""
    with gzip.open(folder / ROLLOUTS_FILE, "rt") as lines:
        return [{"own": True, **json.loads(line)} for line in lines]
