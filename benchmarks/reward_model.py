"""Fitting a reward model against a peer: `python -m benchmarks.reward_model [--peer trl] [--json]`.

Grows a memo seedling, lets it answer prompts twice, and has a simulated rater compare the answers; ties are left out,
since TRL takes none. One member of `policies.reward_fit.fit` and TRL's RewardTrainer then learn from the same
comparisons, starting from the same seedling, with the same epochs, batch, learning rate (falling to zero), gradient
clip and torch threads, in float32, and answer the same comparisons of other prompts. They take turns in one process,
`--rounds` times, each round with other comparisons. Ours is timed from texts to the judged model, TRL's over `train()`
alone, with its tokenization done before; no saving, logging, progress bar, evaluation or gradient checkpointing.

Accuracy is the share of held-out comparisons in which the model sides with the rater, who errs himself.
"""

import argparse
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from policies import language_model, reward_fit, seedling
from policies.language_model import LanguageModel
from policies.reward_fit import Comparison
from policies.reward_model import RewardModelSettings
from policies.rng import generator
from policies.sampler import sample
from policies.seedling import SeedlingSettings
from policies.tasks.base import RaterSettings
from policies.tasks.memo import Memo

EPOCHS, LEARNING_RATE, BATCH = 3, 3e-4, 32
NOTHING_HELD_OUT = 1_000_000_000
"""Folds: so many that the member sees every label, as the peer does."""

Found = tuple[float, float]
"""Seconds, held-out accuracy."""


def comparisons(base: LanguageModel, task: Memo, split: str, count: int, seed: int) -> list[Comparison]:
    prompts = task.prompts(split, count, seed)
    drawn = sample(base, prompts, max_new_tokens=24, generator=generator(seed), samples_per_prompt=2).responses
    (rater,) = task.raters(RaterSettings(temperature=0.25))
    rng = random.Random(seed)
    pairs = zip(prompts, drawn[0::2], drawn[1::2], strict=True)
    labelled = [
        Comparison(prompt, first, second, rater.label(prompt, first, second, rng).target)
        for prompt, first, second in pairs
    ]
    return [item for item in labelled if item.target != 0.5]


def own(base: LanguageModel, folder: Path, learn: list[Comparison], held: list[Comparison], seed: int) -> Found:
    settings = RewardModelSettings(
        members=1,
        epochs=EPOCHS,
        learning_rate=LEARNING_RATE,
        batch_size=BATCH,
        weight_decay=0.0,
        folds=NOTHING_HELD_OUT,
    )
    began = time.perf_counter()
    model, _ = reward_fit.fit(base, learn, settings, seed=seed)
    seconds = time.perf_counter() - began

    def score(prompts: Sequence[str], responses: Sequence[str]) -> torch.Tensor:
        return model.score(prompts, responses).aggregate_B

    return seconds, _accuracy(score, held)


def trl(base: LanguageModel, folder: Path, learn: list[Comparison], held: list[Comparison], seed: int) -> Found:
    from datasets import Dataset  # type: ignore[import-untyped]
    from trl import RewardConfig, RewardTrainer

    def texts(item: Comparison) -> dict[str, str]:
        # The tokens that a reward model of ours reads: prompt with its closing token, response, end.
        opened = f"{item.prompt} {seedling.REPLY}"
        first, second = (f"{opened} {text} {seedling.END}" for text in (item.response_1, item.response_2))
        return {"chosen": first, "rejected": second} if item.target == 1.0 else {"chosen": second, "rejected": first}

    tokenizer = language_model.load(folder).tokenizer
    tokenizer._tokenizer.post_processor = None  # the closing token is in the text already
    with tempfile.TemporaryDirectory() as out:
        config = RewardConfig(
            output_dir=out,
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=BATCH,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="linear",
            weight_decay=0.0,
            max_grad_norm=1.0,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            logging_strategy="no",
            save_strategy="no",
            eval_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_num_workers=0,
            seed=seed,
        )
        dataset = Dataset.from_list([texts(item) for item in learn])
        trainer = RewardTrainer(model=str(folder), args=config, train_dataset=dataset, processing_class=tokenizer)
        began = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):  # its summary would spoil --json
            trainer.train()
        seconds = time.perf_counter() - began
    model: Any = trainer.model
    model.eval()

    @torch.no_grad()
    def score(prompts: Sequence[str], responses: Sequence[str]) -> torch.Tensor:
        rows = [
            f"{prompt} {seedling.REPLY} {text} {seedling.END}" for prompt, text in zip(prompts, responses, strict=True)
        ]
        encoded = tokenizer(rows, return_tensors="pt", padding=True, padding_side="right")
        inputs = {name: encoded[name] for name in ("input_ids", "attention_mask")}
        return model(**inputs).logits.squeeze(-1)

    return seconds, _accuracy(score, held)


def _accuracy(score: Callable[[Sequence[str], Sequence[str]], torch.Tensor], held: list[Comparison]) -> float:
    prompts = [item.prompt for item in held]
    difference = score(prompts, [item.response_1 for item in held]) - score(prompts, [item.response_2 for item in held])
    target = torch.tensor([item.target for item in held])
    return float(((difference > 0) == (target > 0.5)).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--labels", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", choices=["trl"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    legs = {"ratchet": own} | ({"trl": trl} if arguments.peer else {})
    task = Memo()
    seconds: dict[str, list[float]] = {name: [] for name in legs}
    accuracy: dict[str, list[float]] = {name: [] for name in legs}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shape = SeedlingSettings(width=arguments.width, layers=arguments.layers, steps=300)
        seedling.grow(task, shape, seed=1, out_dir=folder)
        base = language_model.load(folder)
        for number in range(arguments.rounds):
            learn = comparisons(base, task, "label", arguments.labels, seed=number)
            held = comparisons(base, task, "evaluate", arguments.labels, seed=number)
            for leg, fit in legs.items():
                took, right = fit(base, folder, learn, held, number)
                seconds[leg].append(took)
                accuracy[leg].append(right)
                print(f"round {number}: {leg} {took:.1f} s, accuracy {right:.3f}", file=sys.stderr)
    found: dict[str, Any] = {
        "width": arguments.width,
        "layers": arguments.layers,
        "threads": arguments.threads,
        "torch": torch.__version__,
        "seconds_by_round": seconds,
        "accuracy_by_round": accuracy,
        "seconds": {leg: statistics.median(values) for leg, values in seconds.items()},
        "accuracy": {leg: statistics.mean(values) for leg, values in accuracy.items()},
    }
    if arguments.peer:
        ratios = [peer / mine for mine, peer in zip(seconds["ratchet"], seconds["trl"], strict=True)]
        found["ratio_to_peer"] = statistics.median(ratios)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for leg in legs:
        print(f"{leg:<8} {found['seconds'][leg]:.2f} s, held-out accuracy {found['accuracy'][leg]:.3f}")
    if arguments.peer:
        print(f"{found['ratio_to_peer']:.2f} times the peer")


if __name__ == "__main__":
    main()
