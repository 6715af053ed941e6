"""How the cost of an RL step grows: `python -m benchmarks.scaling [--json]`.

Time of a step and peak memory for responses, batches and widths once, twice and four times as large as the first:
the step of `benchmarks.rl_phase`, each point in a fresh process, whose peak resident size is its own. A growth is the
time (or memory above that of a process which has only imported everything) relative to the first point of its series.

The number of operations is linear in the batch. In the length it is linear but for attention, whose share is small at
these lengths; in the width it is quadratic, as that of every dense layer. `operations` is what growth in time would be
if the machine did nothing else and did it at one rate.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import rl_phase
from benchmarks.rl_phase import Shape
from policies.phase_records import Algorithm
from policies.precision import Precision

FACTORS = (1, 2, 4)
FIRST = Shape(width=128, layers=3, vocabulary=256)


def series(base: Shape) -> dict[str, list[Shape]]:
    return {
        "response length": [replace(base, response_tokens=base.response_tokens * factor) for factor in FACTORS],
        "batch": [replace(base, prompts=base.prompts * factor) for factor in FACTORS],
        "width": [replace(base, width=base.width * factor) for factor in FACTORS],
    }


def measure(shape: Shape, steps: int) -> dict[str, float]:
    """Run in this process: seconds of a step, peak memory and memory before, in bytes."""
    before = _peak_bytes()
    with tempfile.TemporaryDirectory() as name:
        rl_phase.write_model(shape, Path(name))
        seconds = statistics.median(
            rl_phase.own_seconds(shape, Algorithm.RLOO, Precision.FLOAT32, steps, "cpu", Path(name))
        )
    return {"seconds": seconds, "peak_bytes": _peak_bytes(), "bytes_before": before}


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def measure_apart(shape: Shape, arguments: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.scaling", "--point", json.dumps(asdict(shape))]
    command += ["--steps", str(arguments.steps), "--threads", str(arguments.threads)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(said.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5, help="counted steps a point")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--point", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.point:
        print(json.dumps(measure(Shape(**json.loads(arguments.point)), arguments.steps)))
        return
    points: list[dict[str, Any]] = []
    for name, shapes in series(FIRST).items():
        measured = [measure_apart(shape, arguments) for shape in shapes]
        counts = [sum(sum(kinds.values()) for kinds in rl_phase.operations(shape).values()) for shape in shapes]
        for factor, found, count in zip(FACTORS, measured, counts, strict=True):
            own, first = (point["peak_bytes"] - point["bytes_before"] for point in (found, measured[0]))
            growth = {
                "time": found["seconds"] / measured[0]["seconds"],
                "memory": own / first,
                "operations": count / counts[0],
            }
            points.append({"series": name, "factor": factor, **found, "growth": growth})
    if arguments.json:
        print(json.dumps({"torch": torch.__version__, "threads": arguments.threads, "points": points}, indent=2))
        return
    print("| what | times | seconds a step | peak MiB | growth of time | of memory | of operations |")
    print("|---|---|---|---|---|---|---|")
    for point in points:
        shown = " | ".join(f"{point['growth'][kind]:.1f}" for kind in ("time", "memory", "operations"))
        peak = point["peak_bytes"] / 1024**2
        print(f"| {point['series']} | {point['factor']} | {point['seconds']:.2f} | {peak:.0f} | {shown} |")


if __name__ == "__main__":
    main()
