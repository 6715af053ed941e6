"""What the gate costs and how often it errs: `python -m benchmarks.gate [--only PART] [--json]`, minutes on one core.

Its parts:

    campaigns    plausible candidates under four settings, with the tests of the simulation that fixed the defaults
                 (improvement, over_promise) and with the top half as well, which a real gate asks too
    cells        labels that one test needs. The fixed bet is tuned to a cap, so a cell gives the smallest with which
                 80% of attempts pass, and the median at that cap; beside them the median and 80th percentile of the
                 mixture of bets over a grid, which has no cap, and the exact fixed sample for 80% power
    errors       campaigns in which every candidate ought to be refused, over the whole budget of 20 attempts
    peeking      Wilson's bound at every 20th label from 40 to 1,000, and the e-process at every label, on fair coins
    throughput   processor time of one whole verdict on 100,000 labels, bounds included
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from orchestrator.core import evidence, planning
from orchestrator.core.fixed_sample import wilson_lower
from orchestrator.core.gate import decide
from orchestrator.core.planning import Candidates, Plan, Truth
from orchestrator.core.settings import GateSettings
from orchestrator.core.worlds import BetaWorld, World, gate_world, over_confident_world

TWO_TESTS = frozenset(planning.GATE_TESTS[:2])
SETTINGS = {
    "default": Plan(GateSettings(), 0.10, stages=4, attempts=5),
    "limit .10": Plan(GateSettings(over_promise_limit=0.10), 0.10, stages=4, attempts=5),
    "strict: limit .10, 600 labels": Plan(
        GateSettings(over_promise_limit=0.10, max_labels=600), 0.10, stages=4, attempts=5
    ),
    "people: 2 stages, 4 attempts, alpha .20, 200 labels": Plan(
        GateSettings(max_labels=200), 0.20, stages=2, attempts=4
    ),
}
FOUND_BEFORE = {
    "default": (0.57, 0.95, 502, 180),
    "limit .10": (0.31, 0.77, 793, 176),
    "strict: limit .10, 600 labels": (0.42, 0.86, 736, None),
    "people: 2 stages, 4 attempts, alpha .20, 200 labels": (0.53, 0.88, 329, 109),
}
"""Within 2 attempts, within all, labels an advance, labels an attempt: the simulation that fixed the defaults."""
LEVELS = (0.05, 0.0125, 0.003)
GRID_CELLS: dict[str, tuple[str, float, World, tuple[tuple[int | None, int, int], ...]]] = {
    "T1 win rate .55": (
        "improvement", 0.1, gate_world(0.55), ((620, 633, 1161), (965, 1009, 1689), (1305, 1365, 2009))
    ),
    "T1 win rate .60": ("improvement", 0.1, gate_world(0.60), ((160, 164, 289), (240, 240, 393), (325, 317, 480))),
    "T1 win rate .65": ("improvement", 0.1, gate_world(0.65), ((80, 74, 132), (115, 113, 178), (150, 147, 222))),
    "T1 win rate .70": ("improvement", 0.1, gate_world(0.70), ((40, 44, 72), (65, 61, 94), (80, 76, 118))),
    "T2 limit .10, bias 0": (
        "over_promise", 0.10, BetaWorld(0.60, 0.0), ((None, 139, 247), (None, 202, 333), (None, 269, 411))
    ),
    "T2 limit .10, bias .03": (
        "over_promise", 0.10, BetaWorld(0.57, 0.03), ((None, 304, 537), (None, 453, 717), (None, 577, 882))
    ),
    "T2 limit .15, bias 0": (
        "over_promise", 0.15, BetaWorld(0.60, 0.0), ((None, 67, 114), (None, 96, 148), (None, 124, 181))
    ),
}  # fmt: skip
"""Test, limit, truth; by level: an exact fixed sample for 80% power, the grid's median and 80th percentile."""


def campaigns(trials: int, seed: int) -> list[dict[str, Any]]:
    rows = []
    for name, plan in SETTINGS.items():
        for tests in (TWO_TESTS, plan.tests):
            rng = np.random.default_rng(seed)
            asked = replace(plan, tests=tests)
            done = planning.lineages(planning.reference_candidates, asked, trials=trials, rng=rng)
            found = planning.summarise(list(done), asked)
            rows.append(
                {
                    "setting": name,
                    "tests": len(tests),
                    "within_2": found.advanced_within(2).value,
                    "within_all": found.advanced_within(plan.attempts).value,
                    "labels_per_advance": found.labels_per_advance,
                    "labels_per_attempt": found.labels_per_attempt,
                    "wrong_approval_rate": found.wrong.value,
                    "before": FOUND_BEFORE[name] if tests == TWO_TESTS else None,
                }
            )
            _say(f"campaigns: {name}, {len(tests)} tests")
    return rows


def cells(trials: int, seed: int) -> list[dict[str, Any]]:
    rows = []
    for name, (test, limit, world, before) in GRID_CELLS.items():
        truth = Truth(world)
        for alpha, (fixed, median, p80) in zip(LEVELS, before, strict=True):
            settings = GateSettings.model_validate({"over_promise_limit": limit, "min_labels": 1, "max_labels": 100})
            plan = Plan(settings, alpha, tests=frozenset({test}))
            cap = planning.max_labels_needed(truth, plan, trials=trials, seed=seed)
            assert cap is not None
            tuned = replace(plan, settings=planning.with_max_labels(settings, cap))
            rng = np.random.default_rng(seed + 1)
            found = planning.power(truth, tuned, trials=trials, rng=rng)
            rows.append(
                {
                    "cell": name,
                    "alpha": alpha,
                    "fixed_sample": fixed,
                    "grid_median": median,
                    "grid_p80": p80,
                    "bet_cap": cap,
                    "bet_median": found.needed(0.5),
                    "bet_pass_rate": found.passed.value,
                    "bet_spent_mean": float(found.spent_T.mean()),
                }
            )
            _say(f"cells: {name}, alpha {alpha}")
    return rows


def errors(trials: int, seed: int) -> list[dict[str, Any]]:
    plan = replace(SETTINGS["default"], press_on=True)
    limit = plan.settings.over_promise_limit
    alike: dict[str, World] = {
        "win rate .5, over-promise 0": gate_world(0.5, 0.0),
        "win rate .65, over-promise at the limit": gate_world(0.65, limit),
        "win rate .85, over-promise at the limit": gate_world(0.85, limit),
        "win rate .5, over-promise at the limit": gate_world(0.5, limit),
        "win rate .65, top half alone at the limit": over_confident_world(0.65, 0.0, limit, 1.5),
    }
    makers: dict[str, Callable[[np.random.Generator], Candidates]] = {
        name: lambda rng, world=world: planning.always(Truth(world))
        for name, world in alike.items()  # type: ignore[misc]
    }
    makers["another null at every attempt, all queues"] = lambda rng: planning.adversary(plan, rng)
    rows = []
    for name, make in makers.items():
        rng = np.random.default_rng(seed)
        done = [planning.simulate(make(rng), plan, rng) for _ in range(trials)]
        wrong = planning.summarise(done, plan).wrong
        rows.append({"truth": name, "alpha": plan.alpha, "campaigns": trials, "wrong_approvals": wrong.count}
                    | {"rate": wrong.value, "low": wrong.low, "high": wrong.high})  # fmt: skip
        _say(f"errors: {name}")
    return rows


def peeking(trials: int, seed: int, *, alpha: float = 0.05, labels: int = 1000, every: int = 20) -> dict[str, Any]:
    z_TN = (np.random.default_rng(seed).random((trials, labels)) < 0.5).astype(np.float64)
    looks = range(2 * every, labels + 1, every)
    bet = evidence.bet_fraction(alpha, labels, 0.5)
    threshold = np.log(1 / alpha)
    wilson = sum(any(wilson_lower(z_N[:n], alpha) > 0.5 for n in looks) for z_N in z_TN)
    betting = sum(bool((evidence.log_fortune(z_N, 0.5, bet) >= threshold).any()) for z_N in z_TN)
    _say("peeking")
    return {"trials": trials, "alpha": alpha, "wilson_peeked": wilson / trials, "e_process": betting / trials}


def throughput(labels: int, seed: int) -> dict[str, Any]:
    """Candidates so close to even that all labels, or most, are looked at."""
    rng = np.random.default_rng(seed)
    settings = GateSettings(max_labels=labels)
    rows = []
    for name, win_rate, alpha in (("refused after a while", 0.50, 0.01), ("passes late", 0.505, 1e-4)):
        drawn = gate_world(win_rate, 0.0).draw(rng, labels)
        p_hat, z = drawn.p_hat_N.tolist(), drawn.z_N.tolist()
        wall, own = time.perf_counter(), time.process_time()
        found = decide(p_hat, z, alpha=alpha, settings=settings)
        took = {"seconds": time.perf_counter() - wall, "processor_seconds": time.process_time() - own}
        rows.append({"what": name, "verdict": found.verdict.value, "looked_at": found.labels, **took})
    _say("throughput")
    return {"labels": labels, "verdicts": rows}


PARTS = ("campaigns", "cells", "errors", "peeking", "throughput")


def measure(parts: Sequence[str], *, scale: float, seed: int) -> dict[str, Any]:
    """Args: scale: of all numbers of trials."""
    run: dict[str, Callable[[], Any]] = {
        "campaigns": lambda: campaigns(max(round(1500 * scale), 10), seed),
        "cells": lambda: cells(max(round(1000 * scale), 10), seed),
        "errors": lambda: errors(max(round(2000 * scale), 10), seed),
        "peeking": lambda: peeking(max(round(2000 * scale), 10), seed),
        "throughput": lambda: throughput(100_000, seed),
    }
    return {part: run[part]() for part in parts}


def show(found: dict[str, Any]) -> None:
    if "campaigns" in found:
        table(
            ["setting", "tests", "within 2", "within all", "labels an advance", "an attempt", "wrong", "before"],
            [
                [row["setting"], row["tests"], f"{row['within_2']:.0%}", f"{row['within_all']:.0%}",
                 f"{row['labels_per_advance']:.0f}", f"{row['labels_per_attempt']:.0f}",
                 f"{row['wrong_approval_rate']:.3f}", _before(row["before"])]
                for row in found["campaigns"]
            ],
        )  # fmt: skip
    if "cells" in found:
        table(
            ["cell", "alpha", "fixed sample", "grid median / 80th", "bet median / cap for 80%", "bet passes", "spent"],
            [
                [row["cell"], row["alpha"], row["fixed_sample"] or "", f"{row['grid_median']} / {row['grid_p80']}",
                 f"{row['bet_median']} / {row['bet_cap']}", f"{row['bet_pass_rate']:.2f}",
                 f"{row['bet_spent_mean']:.0f}"]
                for row in found["cells"]
            ],
        )  # fmt: skip
    if "errors" in found:
        table(
            ["every candidate", "campaigns", "wrong approvals", "rate", "95% interval", "alpha"],
            [
                [row["truth"], row["campaigns"], row["wrong_approvals"], f"{row['rate']:.3f}",
                 f"{row['low']:.3f} to {row['high']:.3f}", row["alpha"]]
                for row in found["errors"]
            ],
        )  # fmt: skip
    if "peeking" in found:
        told = found["peeking"]
        rates = f"Wilson's bound, peeked at, passes {told['wilson_peeked']:.1%}, the e-process {told['e_process']:.1%}"
        print(f"fair coins at {told['alpha']:.0%}, {told['trials']} times: {rates}\n")
    if "throughput" in found:
        for row in found["throughput"]["verdicts"]:
            print(
                f"{found['throughput']['labels']:,} labels, {row['what']} (at {row['looked_at']:,}): "
                f"{row['seconds']:.2f} s, {row['processor_seconds']:.2f} s of the processor"
            )


def _before(figures: tuple[float, float, int, int | None] | None) -> str:
    if figures is None:
        return ""
    two, all_of_them, advance, attempt = figures
    return f"{two:.0%} / {all_of_them:.0%} / {advance}" + (f" / {attempt}" if attempt else "")


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    for row in (columns, ["---"] * len(columns), *rows):
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print()


def _say(done: str) -> None:
    print(done, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; may be repeated")
    parser.add_argument("--scale", type=float, default=1.0, help="of all numbers of trials")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    found = measure(arguments.only or PARTS, scale=arguments.scale, seed=arguments.seed)
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        show(found)


if __name__ == "__main__":
    main()
