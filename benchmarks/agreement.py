"""Every agreement figure on a million labels: `python -m benchmarks.agreement [--json]`, some seconds on one core.

100,000 items with ten raters each out of a thousand, who lapse to different degrees. Times, in seconds, of the
figures themselves (coded labels to the finished document), and of reading the same labels from a file of JSON lines
and printing the document, which is what `ratchet labels agreement FILE --json` adds. Processor time stands beside wall
time, since the machine may be busy with other work.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.labels import figures
from orchestrator.labels.judgements import read_judgements

CLASSES = ("second", "tie", "first")


def write_file(path: Path, *, items: int, raters: int, raters_per_item: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth_I = rng.choice(3, size=items, p=[0.42, 0.16, 0.42])
    lapse_R = rng.uniform(0.1, 0.9, raters)
    who_IM = rng.permuted(np.tile(np.arange(raters), (1_000, 1)), axis=1)[:, :raters_per_item]
    with path.open("w") as file:
        for item in range(items):
            who_M = (who_IM[item % 1_000] + rng.integers(raters)) % raters
            lapsed_M = rng.random(raters_per_item) < lapse_R[who_M]
            said_M = np.where(lapsed_M, rng.integers(3, size=raters_per_item), truth_I[item])
            for rater, said in zip(who_M, said_M, strict=True):
                file.write(f'{{"item": "item {item}", "rater": "rater {rater}", "label": "{CLASSES[said]}"}}\n')


def measure(*, items: int, raters: int, raters_per_item: int, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.jsonl"
        write_file(path, items=items, raters=raters, raters_per_item=raters_per_item, seed=seed)
        began = _now()
        judgements = read_judgements(path)
        read = _now()
    fitted = figures.fit(judgements, smoothing=5.0)
    fit = _now()
    found = figures.document(judgements, fitted, smoothing=5.0)
    done = _now()
    text = json.dumps(found, allow_nan=False)
    printed = _now()
    assert fitted is not None
    return {
        "items": items,
        "raters": raters,
        "labels": found["labels"],
        "pairs_of_raters": len(found["pairs"]),
        "seconds": {
            "figures": _since(read, done),
            "of_which_dawid_skene": _since(read, fit),
            "reading": _since(began, read),
            "printing": _since(done, printed),
            "command": _since(began, printed),
        },
        "dawid_skene_rounds": fitted.iterations,
        "labels_per_second": found["labels"] / (done[0] - read[0]),
        "megabytes_printed": len(text) / 1e6,
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(began: tuple[float, float], ended: tuple[float, float]) -> dict[str, float]:
    return {"wall": ended[0] - began[0], "processor": ended[1] - began[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--raters", type=int, default=1_000)
    parser.add_argument("--raters-per-item", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = vars(parser.parse_args())
    as_json = arguments.pop("json")
    found = measure(**arguments)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    print(f"{found['labels']:,} labels, {found['pairs_of_raters']:,} pairs of raters")
    for what, seconds in found["seconds"].items():
        print(f"{what:>22}  {seconds['wall']:6.2f} s, {seconds['processor']:6.2f} s of the processor")


if __name__ == "__main__":
    main()
