"""Whether ensembles help: `python -m benchmarks.reward_aggregates [--seeds 0-5] [--json]`, some minutes on one core.

For each seed: grow a base on `memo`, label pairs of its samples by a simulated rater, fit an ensemble (and one whose
members share their start, for averaged weights), and hold each aggregate against
    fresh pairs of the base's samples: accuracy against gold, log-loss and calibration slope against fresh labels,
    the best of n samples by the aggregate: gold gained over the base's mean, what the rewards promise of it (predicted
    less labelled win rate against a plain sample), and the members' spread there against that on plain samples.
The best of n is an optimiser that needs no training, so that what is compared is the reward and nothing else.
"""

import argparse
import json
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policies import language_model, seedling
from policies.calibration import accuracy, calibration_slope, log_loss
from policies.language_model import LanguageModel
from policies.reward_fit import Comparison, FitReport, fit
from policies.reward_model import Aggregate, RewardModel, RewardModelSettings, aggregate, disagreement
from policies.rng import derive_seed, generator
from policies.sampler import sample
from policies.seedling import SeedlingSettings
from policies.tasks.base import Rater, RaterSettings, Split
from policies.tasks.memo import Memo

BASE = SeedlingSettings(width=64, layers=2, heads=4, steps=800)
ENSEMBLE = RewardModelSettings(members=4, epochs=4, learning_rate=1e-3, batch_size=16)
LABELS, FRESH_PAIRS, BEST_OF_PROMPTS, BEST_OF = 400, 1_000, 200, (4, 16, 64)
MAX_TOKENS = 24

ROWS: dict[str, RewardModelSettings] = {
    "one member": replace(ENSEMBLE, members=1),
    "mean": ENSEMBLE,
    "min": replace(ENSEMBLE, aggregate=Aggregate.MIN),
    "mean_minus_variance, λ 0.5": replace(ENSEMBLE, aggregate=Aggregate.MEAN_MINUS_VARIANCE, variance_weight=0.5),
    "mean_minus_variance, λ 5": replace(ENSEMBLE, aggregate=Aggregate.MEAN_MINUS_VARIANCE, variance_weight=5.0),
    "weights": replace(ENSEMBLE, aggregate=Aggregate.WEIGHTS),
}


@dataclass(frozen=True)
class World:
    """The task, a base grown on it, and somebody to ask."""

    memo: Memo
    base: LanguageModel
    rater: Rater
    seed: int

    def samples(self, split: Split, prompts: int, each: int) -> tuple[list[str], list[str]]:
        """Prompts, each as often as it has responses, and the base's responses."""
        names: list[str] = []
        texts: list[str] = []
        asked = self.memo.prompts(split, prompts, derive_seed(self.seed, "prompts"))
        source = generator(derive_seed(self.seed, split, "samples", each))
        for begin in range(0, prompts, 64):
            chunk = asked[begin : begin + 64]
            drawn = sample(self.base, chunk, max_new_tokens=MAX_TOKENS, generator=source, samples_per_prompt=each)
            names += drawn.prompts
            texts += drawn.responses
        return names, texts

    def gold(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        return np.array([self.memo.gold(*texts) for texts in zip(prompts, responses, strict=True)])

    def targets(self, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        """Labels of pairs: 1, 0 or ½."""
        rng = random.Random(derive_seed(self.seed, "labels", *prompts[:1], len(prompts), *first[:1]))
        pairs = zip(prompts, first, second, strict=True)
        return np.array([self.rater.label(*texts, rng).target for texts in pairs])


def run_seed(seed: int) -> dict[str, Any]:
    began = time.perf_counter()
    memo = Memo()
    with tempfile.TemporaryDirectory() as folder:
        seedling.grow(memo, BASE, seed=derive_seed(seed, "base"), out_dir=Path(folder))
        base = language_model.load(folder)
    world = World(memo, base, memo.raters(RaterSettings())[0], seed)
    prompts, responses = world.samples(Split.LABEL, LABELS, 2)
    targets = world.targets(prompts[::2], responses[::2], responses[1::2])
    labels = [
        Comparison(prompt, first, second, float(target))
        for prompt, first, second, target in zip(prompts[::2], responses[::2], responses[1::2], targets, strict=True)
    ]
    apart, apart_report = fit(base, labels, ENSEMBLE, seed=derive_seed(seed, "fit"))
    shared, shared_report = fit(base, labels, ROWS["weights"], seed=derive_seed(seed, "fit"))
    pairs = world.samples(Split.EVALUATE, FRESH_PAIRS, 2)
    groups = world.samples(Split.GATE, BEST_OF_PROMPTS, max(BEST_OF))
    asked = {id(model): (model.opinions(*pairs), model.opinions(*groups)) for model in (apart, shared)}
    rows = {}
    for name, settings in ROWS.items():
        averages = settings.aggregate is Aggregate.WEIGHTS
        model, report = (shared, shared_report) if averages else (apart, apart_report)

        def reward(
            texts: tuple[list[str], list[str]],
            members_MB: Tensor,
            settings: RewardModelSettings = settings,
            model: RewardModel = model,
        ) -> Tensor:
            """In logits of preference."""
            if settings.aggregate is Aggregate.WEIGHTS:
                return model.score(*texts).aggregate_B / model.temperature
            return aggregate(members_MB[: settings.members], settings, model.temperature) / model.temperature

        on_pairs, on_groups = asked[id(model)]
        rows[name] = {
            **_held_out(report),
            **_on_pairs(world, pairs, reward(pairs, on_pairs)),
            **_best_of(world, groups, reward(groups, on_groups), on_groups / model.temperature),
        }
    return {"seed": seed, "seconds": time.perf_counter() - began, "rows": rows}


def _held_out(report: FitReport) -> dict[str, float]:
    """What the fit said of its members, on labels that they did not see."""
    return {
        "held_out_accuracy": report.accuracy,
        "held_out_log_loss": report.log_loss,
        "held_out_slope": report.calibration_slope,
        "temperature": report.temperature,
        "train_accuracy": report.train_accuracy,
    }


def _on_pairs(world: World, texts: tuple[list[str], list[str]], reward_B: Tensor) -> dict[str, float]:
    prompts, responses = texts
    logit = (reward_B[::2] - reward_B[1::2]).double().numpy()
    gold = world.gold(prompts, responses)
    better = np.sign(gold[::2] - gold[1::2]) / 2 + 0.5
    target = world.targets(prompts[::2], responses[::2], responses[1::2])
    return {
        "accuracy_gold": accuracy(logit, better),
        "label_accuracy_gold": accuracy(target - 0.5, better),
        "log_loss": log_loss(logit, target),
        "slope": calibration_slope(logit, target).value,
    }


def _best_of(
    world: World, texts: tuple[list[str], list[str]], reward_B: Tensor, members_MB: Tensor
) -> dict[str, float]:
    """Of the first n samples of each prompt, the one with the highest reward, against the last sample."""
    prompts, responses = texts
    most = max(BEST_OF)
    gold_GK = world.gold(prompts, responses).reshape(-1, most)
    reward_GK = reward_B.reshape(-1, most)
    plain_G = np.arange(len(gold_GK)) * most + most - 1
    plain_spread = disagreement(members_MB)
    found: dict[str, float] = {"spread": plain_spread}
    for n in BEST_OF:
        # The last sample of each prompt is the opponent, so it does not stand for election.
        best_G = reward_GK[:, : min(n, most - 1)].argmax(dim=1).numpy()
        at_G = np.arange(len(best_G)) * most + best_G
        chosen, opponent = ([responses[at] for at in where] for where in (at_G, plain_G))
        won = world.targets(prompts[::most], chosen, opponent)
        promised_G = torch.sigmoid(reward_B[torch.tensor(at_G)] - reward_B[torch.tensor(plain_G)])
        found[f"gold_gain_{n}"] = float(gold_GK.ravel()[at_G].mean() - gold_GK.mean())
        found[f"over_promise_{n}"] = float(promised_G.mean()) - float(won.mean())
        found[f"spread_ratio_{n}"] = disagreement(members_MB[:, torch.tensor(at_G)]) / plain_spread
    return found


def summary(outcomes: Sequence[dict[str, Any]]) -> dict[str, dict[str, tuple[float, float]]]:
    """Mean and standard error over seeds of each figure of each row."""

    def over_seeds(name: str, figure: str) -> tuple[float, float]:
        values = [outcome["rows"][name][figure] for outcome in outcomes]
        error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return statistics.fmean(values), error

    return {name: {figure: over_seeds(name, figure) for figure in row} for name, row in outcomes[0]["rows"].items()}


COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("accuracy against gold", "accuracy_gold", "{:.3f}".format),
    ("log-loss of fresh labels", "log_loss", "{:.3f}".format),
    ("slope", "slope", "{:.2f}".format),
    ("spread, logits", "spread", "{:.2f}".format),
    *((f"gold gained, best of {n}", f"gold_gain_{n}", "{:.2f}".format) for n in BEST_OF),
    (f"over-promise, best of {BEST_OF[1]}", f"over_promise_{BEST_OF[1]}", "{:+.3f}".format),
    (f"spread there / on plain samples, best of {BEST_OF[1]}", f"spread_ratio_{BEST_OF[1]}", "{:.2f}".format),
)


def table(outcomes: Sequence[dict[str, Any]]) -> list[str]:
    lines = ["| aggregate | " + " | ".join(title for title, _, _ in COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, figures in summary(outcomes).items():
        cells = [f"{show(figures[key][0])} ± {show(figures[key][1]).lstrip('+')}" for _, key, show in COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0-5", help="first-last")
    parser.add_argument("--json", action="store_true", help="print every figure of every seed instead of the table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    first, _, last = arguments.seeds.partition("-")
    outcomes = [run_seed(seed) for seed in range(int(first), int(last or first) + 1)]
    if arguments.json:
        print(json.dumps({"outcomes": outcomes, "summary": summary(outcomes)}, indent=2))
    else:
        print("\n".join(table(outcomes)))


if __name__ == "__main__":
    main()
