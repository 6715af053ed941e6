"""What a task is worth as a study object: `python -m benchmarks.tasks configs/sums.yaml configs/cue.yaml`.

For each campaign file, on one thread: grows the base, asks its raters, fits the first reward model to the initial
labels, and optimises it offline for a number of steps without a KL budget. Gold, proxy and the raters' own opinion
are then held against one another, and where the task has probes, gold on them against gold on the prompts that they
were made from. `--json` gives every step's figures.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orchestrator.config import load_settings
from orchestrator.core.settings import CampaignSettings
from policies import language_model, seedling
from policies.language_model import LanguageModel
from policies.phase import run_phase
from policies.phase_records import PhaseSettings
from policies.reward_fit import Comparison, fit
from policies.reward_model import Aggregate, RewardModel, RewardModelSettings
from policies.rng import derive_seed, generator
from policies.sampler import sample
from policies.seedling import SeedlingSettings
from policies.tasks.base import Choice, Rater, RaterSettings, Split, Task, probe_prompts
from policies.tasks.registry import load_task

LABELS, EVALUATED, NORMALISED = 400, 256, 256
JUDGED = 1_024
"""Pairs that the reward model is judged on; those of equal gold are left out."""


class Study:
    """One campaign file, one seed."""

    def __init__(self, settings: CampaignSettings, seed: int, folder: Path) -> None:
        self.settings, self.seed, self.folder = settings, seed, folder
        self.task: Task = load_task(settings.task.kind, settings.task.options)
        self.rater: Rater = self.task.raters(RaterSettings(**settings.feedback.options))[0]
        self.evaluated = self.task.prompts(Split.EVALUATE, EVALUATED, derive_seed(seed, "prompts"))

    def run(self, steps: int) -> dict[str, Any]:
        began = time.monotonic()
        section = self.settings.base.seedling
        assert section is not None, "a study grows its base"
        report = seedling.grow(
            self.task, SeedlingSettings(**section.model_dump()), seed=self.seed, out_dir=self.folder / "base"
        )
        base = language_model.load(self.folder / "base")
        pairs = self.pairs(base, self.task.prompts(Split.LABEL, LABELS, derive_seed(self.seed, "prompts")), "label")
        comparisons, agreement = self.labelled(pairs)
        model = self.fitted(base, comparisons)
        judged = self.task.prompts(Split.EVALUATE, JUDGED, derive_seed(self.seed, "prompts"))
        base_pairs = self.pairs(base, judged, "evaluate")
        result = self.phase(model, steps)
        candidate = language_model.load(self.folder / "candidate")
        rollouts = result.rollouts
        by_step = [
            [self.task.gold(one.prompt, one.response) for one in rollouts if one.step == record.step]
            for record in result.records
        ]
        gold = [float(np.mean(step)) for step in by_step]
        return {
            "task": self.settings.task.kind,
            "seed": self.seed,
            "grow_seconds": report.seconds,
            "parameters": report.parameters,
            "base_gold": self.gold(base, self.evaluated),
            "agreement_with_gold": agreement,
            "reward_model_accuracy": self.accuracy(model, base_pairs),
            "proxy": [record.reward for record in result.records],
            "kl_nats": [record.kl_nats for record in result.records],
            "gold": gold,
            "peak_step": int(np.argmax(gold)),
            "wins_by_rater": self.wins(candidate, base, by_gold=False),
            "wins_by_gold": self.wins(candidate, base, by_gold=True),
            "candidate_gold": self.gold(candidate, self.evaluated),
            "probes": self.probes(base, candidate),
            "samples": [(one.prompt, one.response) for one in rollouts[-4:]],
            "seconds": time.monotonic() - began,
        }

    def pairs(self, policy: LanguageModel, prompts: Sequence[str], purpose: str) -> list[tuple[str, str, str]]:
        """Give each prompt with two responses of the policy."""
        drawn = self.responses(policy, prompts, purpose, each=2)
        return list(zip(prompts, drawn[0::2], drawn[1::2], strict=True))

    def responses(self, policy: LanguageModel, prompts: Sequence[str], purpose: str, *, each: int) -> tuple[str, ...]:
        dice = generator(derive_seed(self.seed, purpose))
        limit = self.settings.phase.max_response_tokens
        return sample(policy, prompts, max_new_tokens=limit, generator=dice, samples_per_prompt=each).responses

    def labelled(self, pairs: Sequence[tuple[str, str, str]]) -> tuple[list[Comparison], float]:
        """Ask the rater, and count how often it names gold's winner where both name one."""
        comparisons, agreed = [], []
        for number, (prompt, first, second) in enumerate(pairs):
            choice = self.rater.label(prompt, first, second, random.Random(derive_seed(self.seed, "rate", number)))
            comparisons.append(Comparison(prompt, first, second, choice.target))
            difference = self.task.gold(prompt, first) - self.task.gold(prompt, second)
            if difference and choice in (Choice.FIRST, Choice.SECOND):
                agreed.append((choice is Choice.FIRST) == (difference > 0))
        return comparisons, float(np.mean(agreed))

    def fitted(self, base: LanguageModel, comparisons: list[Comparison]) -> RewardModel:
        section = self.settings.reward_model
        settings = RewardModelSettings(
            members=section.members,
            aggregate=Aggregate(section.aggregate),
            epochs=section.epochs,
            learning_rate=section.learning_rate,
            batch_size=section.batch_size,
        )
        model, _ = fit(base, comparisons, settings, seed=derive_seed(self.seed, "reward_model"))
        prompts = self.task.prompts(Split.NORMALISE, NORMALISED, derive_seed(self.seed, "prompts"))
        return model.normalised(prompts, self.responses(base, prompts, "normalise", each=1))

    def accuracy(self, model: RewardModel, pairs: Sequence[tuple[str, str, str]]) -> float:
        """Share of the pairs of unequal gold that the model orders as gold does."""
        prompts, first, second = ([pair[part] for pair in pairs] for part in range(3))
        promised = model.score(prompts, first).aggregate_B - model.score(prompts, second).aggregate_B
        right = [
            (promise > 0) == (difference > 0)
            for promise, pair in zip(promised.tolist(), pairs, strict=True)
            if (difference := self.task.gold(pair[0], pair[1]) - self.task.gold(pair[0], pair[2]))
        ]
        return float(np.mean(right))

    def phase(self, model: RewardModel, steps: int) -> Any:
        section = self.settings.phase
        settings = PhaseSettings(
            steps=steps,
            prompts_per_step=section.prompts_per_step,
            samples_per_prompt=section.samples_per_prompt,
            max_new_tokens=section.max_response_tokens,
            learning_rate=section.learning_rate,
            kl_coefficient=section.kl.coefficient,
            kl_budget_nats=None,
            missing_end_penalty=section.missing_eos_penalty,
        )
        prompts = self.task.prompts(Split.TRAIN, steps * section.prompts_per_step, derive_seed(self.seed, "prompts"))
        base = self.folder / "base"
        return run_phase(
            settings,
            start_dir=base,
            reference_dir=base,
            reward_model=model,
            prompts=prompts,
            seed=derive_seed(self.seed, "phase"),
            out_dir=self.folder / "candidate",
        )

    def gold(self, policy: LanguageModel, prompts: Sequence[str]) -> float:
        drawn = self.responses(policy, prompts, "evaluate", each=2)
        each = [prompt for prompt in prompts for _ in range(2)]
        return float(np.mean([self.task.gold(*pair) for pair in zip(each, drawn, strict=True)]))

    def wins(self, candidate: LanguageModel, base: LanguageModel, *, by_gold: bool) -> float:
        """Share of comparisons that the candidate wins against the base, a tie counting half."""
        ours = self.responses(candidate, self.evaluated, "ours", each=1)
        theirs = self.responses(base, self.evaluated, "theirs", each=1)
        won = []
        for number, (prompt, our, their) in enumerate(zip(self.evaluated, ours, theirs, strict=True)):
            if by_gold:
                won.append(0.5 + 0.5 * np.sign(self.task.gold(prompt, our) - self.task.gold(prompt, their)))
            else:
                won.append(self.rater.label(prompt, our, their, random.Random(number)).target)
        return float(np.mean(won))

    def probes(self, base: LanguageModel, candidate: LanguageModel) -> dict[str, float] | None:
        probes = probe_prompts(self.task, Split.EVALUATE, EVALUATED, derive_seed(self.seed, "prompts"))
        if probes is None:
            return None
        return {"base_gold": self.gold(base, probes), "candidate_gold": self.gold(candidate, probes)}


def table(outcomes: list[dict[str, Any]]) -> list[str]:
    """Render the outcomes as Markdown."""
    head = (
        *("task", "seed", "base gold", "raters agree with gold", "reward model's accuracy", "proxy: end"),
        *("gold: start, peak (step), end", "KL, nats", "wins by rater", "wins by gold", "gold on probes: base, end"),
    )
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for one in outcomes:
        gold, probes = one["gold"], one["probes"]
        cells = (
            one["task"],
            one["seed"],
            f"{one['base_gold']:.2f}",
            f"{one['agreement_with_gold']:.2f}",
            f"{one['reward_model_accuracy']:.2f}",
            f"{one['proxy'][-1]:+.2f}",
            f"{gold[0]:.2f}, {max(gold):.2f} ({one['peak_step']}), {gold[-1]:.2f}",
            f"{one['kl_nats'][-1]:.1f}",
            f"{one['wins_by_rater']:.2f}",
            f"{one['wins_by_gold']:.2f}",
            f"{probes['base_gold']:.2f}, {probes['candidate_gold']:.2f}" if probes else "–",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 0 on")
    parser.add_argument("--steps", type=int, default=40, help="of the offline phase")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="A.B=C")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of the table")
    given = parser.parse_args()
    torch.set_num_threads(1)
    outcomes = []
    for config in given.configs:
        for seed in range(given.seeds):
            with tempfile.TemporaryDirectory() as folder:
                outcomes.append(
                    Study(load_settings(config, tuple(given.overrides)), seed, Path(folder)).run(given.steps)
                )
            if given.json:
                print(json.dumps(outcomes[-1]), flush=True)
    if not given.json:
        print("\n".join(table(outcomes)))


if __name__ == "__main__":
    main()
