"""Every algorithm inside the ratchet, on `memo`: `python -m benchmarks.algorithms --seeds 0-3 --out outcomes.jsonl`.

Runs one campaign a seed and algorithm by `ratchet campaign start`, all algorithms of a seed from the same base, the
same initial labels and the same rater, under the settings below, and writes one line a campaign. `--table` renders
such a file as the Markdown tables of docs/algorithms.md, every algorithm, good and bad. `--jobs` campaigns run at once.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from orchestrator.assembly import make_workers
from orchestrator.campaigns import TEMPLATES
from orchestrator.config import load_settings
from orchestrator.core.events import BaseReady
from orchestrator.core.work import PrepareBase
from orchestrator.home import Home
from orchestrator.ports import Claim

COMMON: Final = (
    "approval.by=gate",
    "tracking.mlflow=none",
    "resources.address=in_process",
    "protocol.stages=2",
    "protocol.attempts=4",
)
WITHOUT_REWARD_MODEL: Final = ("protocol.reward_model=none",)
ALGORITHMS: Final[dict[str, tuple[str, ...]]] = {
    "rloo": (),
    "grpo": (),
    "dr_grpo": (),
    "reinforce": (),
    "ppo": (),
    "best_of_n": (),
    "expert_iteration": (),
    "dpo": WITHOUT_REWARD_MODEL,
    "ipo": WITHOUT_REWARD_MODEL,
    "labels": WITHOUT_REWARD_MODEL,
}
"""What each algorithm changes of configs/quickstart.yaml, chosen on seeds 100 and 101."""


def grow(seed: int, folder: Path) -> Path:
    """Grow a seed's base once, by the very work item that a campaign uses."""
    home = Home(folder)
    settings = load_settings(TEMPLATES / "quickstart.yaml", [*COMMON, f"seed={seed}"])
    workers = make_workers(settings.resources, home)
    try:
        work = PrepareBase(seed=seed, task=settings.task, base=settings.base)
        body = workers.run(work, Claim("base", "base", 1), lambda *_: None).body
    finally:
        workers.close()
    assert isinstance(body, BaseReady)
    return home.artifacts().open(body.checkpoint)


def run_campaign(algorithm: str, seed: int, base: Path, more: tuple[str, ...]) -> dict[str, Any]:
    """One campaign to its end; `outcome` is what `campaign show --json` prints."""
    overrides = [
        *COMMON,
        f"seed={seed}",
        f"phase.algorithm={algorithm}",
        "base.seedling=null",
        f"base.model={base}",
        *ALGORITHMS[algorithm],
        *more,
    ]
    with tempfile.TemporaryDirectory() as folder:
        ratchet = [sys.executable, "-m", "orchestrator.cli.main", "--home", f"{folder}/home"]
        start = [*ratchet, "campaign", "start", str(TEMPLATES / "quickstart.yaml"), "--name", "study"]
        began = time.monotonic()
        ended = subprocess.run(
            [*start, *(word for override in overrides for word in ("--set", override))], capture_output=True, text=True
        )
        wall = time.monotonic() - began
        shown = subprocess.run([*ratchet, "campaign", "show", "study", "--json"], capture_output=True, text=True)
    return {
        "algorithm": algorithm,
        "seed": seed,
        "overrides": list(more),
        "exit_code": ended.returncode,
        "error": None if ended.returncode in (0, 4) else ended.stderr[-500:],
        "wall_seconds": wall,
        "outcome": json.loads(shown.stdout) if shown.returncode == 0 else None,
    }


def table(outcomes: list[dict[str, Any]]) -> Iterator[str]:
    """One row an algorithm: means over seeds, with the smallest and largest."""
    yield (
        "| algorithm | advances (of 2) | attempts | base gold | deployed gold | candidates' gold | "
        "candidates' proxy, sd | candidates' KL, nats | labels | response tokens, thousands | gradient steps |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    by_algorithm: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for outcome in outcomes:
        by_algorithm[outcome["algorithm"]].append(outcome)
    for algorithm in sorted(by_algorithm, key=list(ALGORITHMS).index):
        shown = [outcome["outcome"] for outcome in by_algorithm[algorithm] if outcome["outcome"] is not None]
        columns: tuple[tuple[Callable[[dict[str, Any]], float | None], int], ...] = (
            (lambda campaign: len(campaign["deployed_gold"]) - 1, 1),
            (lambda campaign: len(campaign["attempts"]), 1),
            (lambda campaign: campaign["deployed_gold"][0], 2),
            (lambda campaign: campaign["deployed_gold"][-1], 2),
            (lambda campaign: _mean(attempt["gold"] for attempt in campaign["attempts"]), 2),
            (lambda campaign: _mean(attempt["proxy"] for attempt in campaign["attempts"]), 2),
            (lambda campaign: _mean(attempt["kl_nats"] for attempt in campaign["attempts"]), 1),
            (lambda campaign: sum(campaign["costs"]["labels"].values()), 0),
            (lambda campaign: campaign["costs"]["tokens"] / 1000, 0),
            (lambda campaign: campaign["costs"]["gradient_steps"], 0),
        )
        cells = [_cell([figure(campaign) for campaign in shown], digits) for figure, digits in columns]
        yield f"| `{algorithm}` | {' | '.join(cells)} |"


def every_campaign(outcomes: list[dict[str, Any]]) -> Iterator[str]:
    yield "| algorithm | seed | deployed gold | attempts: gold (proxy, KL) and what came of it | labels |"
    yield "|---|---|---|---|---|"
    for outcome in sorted(outcomes, key=lambda one: (list(ALGORITHMS).index(one["algorithm"]), one["seed"])):
        campaign = outcome["outcome"]
        if campaign is None:
            yield f"| `{outcome['algorithm']}` | {outcome['seed']} | failed: {outcome['error']} |||"
            continue
        told = "; ".join(_told(attempt) for attempt in campaign["attempts"])
        gold = " ".join(f"{value:.2f}" for value in campaign["deployed_gold"])
        labels = sum(campaign["costs"]["labels"].values())
        yield f"| `{outcome['algorithm']}` | {outcome['seed']} | {gold} | {told} | {labels:,} |"


def _told(attempt: dict[str, Any]) -> str:
    if attempt["candidate"] is None:
        return f"failed: {attempt['failure'] or attempt['stopped_by']}"
    proxy = "–" if attempt["proxy"] is None else f"{attempt['proxy']:+.1f}"
    came = "advanced" if attempt["advanced"] else "refused"
    return f"{attempt['gold']:.2f} ({proxy}, {attempt['kl_nats']:.1f}) {came}"


def _mean(values: Iterator[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _cell(values: list[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    low, high = f"{min(known):,.{digits}f}", f"{max(known):,.{digits}f}"
    mean = f"{statistics.fmean(known):,.{max(digits, 1) if digits else 0}f}"
    return mean if low == high else f"{mean} ({low} … {high})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0-3", help="first-last")
    parser.add_argument("--algorithms", default=",".join(ALGORITHMS))
    parser.add_argument("--set", action="append", default=[], dest="more", help="a further override, for all of them")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("algorithms.jsonl"))
    parser.add_argument("--table", action="store_true", help="render --out instead of running")
    arguments = parser.parse_args()
    if not arguments.table:
        first, _, last = arguments.seeds.partition("-")
        more = tuple(arguments.more)
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.jobs) as pool:

            def run_seed(seed: int) -> Iterator[dict[str, Any]]:
                base = grow(seed, Path(folder) / str(seed))
                for algorithm in arguments.algorithms.split(","):
                    yield run_campaign(algorithm, seed, base, more)

            def all_of(seed: int) -> None:
                for outcome in run_seed(seed):
                    with arguments.out.open("a") as out:
                        out.write(json.dumps(outcome) + "\n")
                    told = f"{outcome['algorithm']} seed {seed}: exit {outcome['exit_code']}"
                    print(f"{told}, {outcome['wall_seconds']:.0f} s", file=sys.stderr)

            list(pool.map(all_of, range(int(first), int(last or first) + 1)))
    outcomes = [json.loads(line) for line in arguments.out.read_text().splitlines()]
    print("\n".join([*table(outcomes), "", *every_campaign(outcomes)]))


if __name__ == "__main__":
    main()
