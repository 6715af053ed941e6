"""The demo over many seeds: `python -m benchmarks.demo_seeds --seeds 0-9 --out outcomes.jsonl`.

Runs `ratchet demo --seed N --json` once a seed, each in a home of its own, and writes one line a seed with the
document that it printed, its wall time and its peak memory (sum of proportional set sizes over the process tree).
`--table` renders such a file as the Markdown table of docs/demo.md, every seed, good and bad.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

SAMPLE_EVERY_SECONDS = 2.0
STANDARD_ERRORS = 3.0


def run_seed(seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "out").open("w+") as out:
        command = [sys.executable, "-m", "orchestrator.cli.main", "--home", f"{folder}/home", "demo"]
        began = time.monotonic()
        process = subprocess.Popen([*command, "--seed", str(seed), "--json"], stdout=out)
        peak = 0
        while process.poll() is None:
            peak = max(peak, proportional_bytes(process.pid))
            time.sleep(SAMPLE_EVERY_SECONDS)
        wall = time.monotonic() - began
        out.seek(0)
        document = json.loads(out.read()) if process.returncode == 0 else None
    return {
        "seed": seed,
        "exit_code": process.returncode,
        "wall_seconds": wall,
        "peak_gib": peak / 1024**3,
        "demo": document,
    }


def proportional_bytes(pid: int) -> int:
    """Proportional set size of a process and everything it started; processes that end meanwhile count nothing."""
    total = 0
    try:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            try:
                total += process.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
    except psutil.NoSuchProcess:
        return total
    return total


def table(outcomes: list[dict[str, Any]]) -> Iterator[str]:
    yield (
        "| seed | base gold | reward model's accuracy | ratchet: advances / rollbacks | ratchet: deployed gold | "
        "online: deployed gold | offline: peak → end | tax: labels | tax: tokens | minutes |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for outcome in outcomes:
        demo = outcome["demo"]
        if demo is None:
            yield f"| {outcome['seed']} | failed with exit code {outcome['exit_code']} |||||||||"
            continue
        arms = demo["arms"]
        offline = arms["offline"]
        yield (
            f"| {outcome['seed']} | {demo['base_gold']:.2f} ± {demo['base_gold_se']:.2f} "
            f"| {demo['reward_model_accuracy_gold']:.2f} "
            f"| {arms['ratchet']['advances']} / {arms['ratchet']['rollbacks']} "
            f"| {_path(arms['ratchet'])} | {_path(arms['online'])} "
            f"| {max(offline['gold_by_step']):.2f} → {offline['deployed_gold'][-1]:.2f} "
            f"| {_ratio(demo['tax']['labels'])} | {_ratio(demo['tax']['tokens'])} "
            f"| {outcome['wall_seconds'] / 60:.1f} |"
        )


def verdicts(outcomes: list[dict[str, Any]]) -> dict[str, int]:
    """How many seeds show what the demo is meant to show."""
    demos = [outcome["demo"] for outcome in outcomes if outcome["demo"] is not None]
    return {
        "seeds": len(outcomes),
        "two advances or more": sum(demo["arms"]["ratchet"]["advances"] >= 2 for demo in demos),
        "a rollback": sum(demo["arms"]["ratchet"]["rollbacks"] >= 1 for demo in demos),
        "ratchet never under the base by more than 3 standard errors": sum(map(never_under_base, demos)),
        "offline ends 3 standard errors or more below its own peak": sum(map(falls_from_peak, demos)),
    }


def never_under_base(demo: dict[str, Any]) -> bool:
    arm = demo["arms"]["ratchet"]
    pairs = zip(arm["deployed_gold"], arm["deployed_gold_se"], strict=True)
    return all(gold >= demo["base_gold"] - STANDARD_ERRORS * _both(se, demo["base_gold_se"]) for gold, se in pairs)


def falls_from_peak(demo: dict[str, Any]) -> bool:
    """By the evaluated checkpoints, whose standard errors are known; the base counts as a possible peak."""
    arm = demo["arms"]["offline"]
    pairs = list(zip(arm["deployed_gold"], arm["deployed_gold_se"], strict=True))
    (peak, peak_se), (end, end_se) = max(pairs), pairs[-1]
    return bool(peak - end >= STANDARD_ERRORS * _both(peak_se, end_se))


def _both(first_se: float, second_se: float) -> float:
    return float((first_se**2 + second_se**2) ** 0.5)


def _path(arm: dict[str, Any]) -> str:
    return " ".join(f"{gold:.2f}" for gold in arm["deployed_gold"])


def _ratio(told: dict[str, Any]) -> str:
    if told["reached"]:
        return f"{told['ratio']:.2f}"
    return "unreached by " + " and ".join(arm for arm in ("ratchet", "online") if not told["reached_by"][arm])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0-9", help="first-last")
    parser.add_argument("--out", type=Path, default=Path("outcomes.jsonl"))
    parser.add_argument("--table", action="store_true", help="render --out instead of running")
    arguments = parser.parse_args()
    if not arguments.table:
        first, _, last = arguments.seeds.partition("-")
        for seed in range(int(first), int(last or first) + 1):
            outcome = run_seed(seed)
            with arguments.out.open("a") as out:
                out.write(json.dumps(outcome) + "\n")
            print(f"seed {seed}: exit {outcome['exit_code']}, {outcome['wall_seconds']:.0f} s", file=sys.stderr)
    outcomes = [json.loads(line) for line in arguments.out.read_text().splitlines()]
    print("\n".join(table(sorted(outcomes, key=lambda outcome: outcome["seed"]))))
    print()
    for what, count in verdicts(outcomes).items():
        print(f"- {what}: {count}")


if __name__ == "__main__":
    main()
