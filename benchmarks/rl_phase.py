"""An RL step against its peers and against the machine: `python -m benchmarks.rl_phase [--peer trl] [--json]`.

Times whole gradient steps of `policies.phase.run_phase` (RLOO and GRPO, from the end of one step to the end of the
next: prompts, sampling, reference, reward, policy forward and backward, clipping, AdamW, records) and, with
`--peer trl`, of TRL's RLOOTrainer and GRPOTrainer. The legs take turns in one process, `--rounds` times; a leg's first
steps are not counted. A leg's figure is the median over its counted steps, a ratio is taken within each round, and the
median over rounds is reported, so that a machine whose speed drifts favours nobody.

Same for all: a Llama with random weights, 16 prompts of 16 tokens with 8 samples of 40 tokens each, a frozen reference
with KL coefficient 0.02, reward = share of distinct words in the text, learning rate 1e-5, gradient clipped at 1,
float32 (with `--precision float32 bfloat16` both take turns: ours by `phase.precision`, TRL by its `bf16`), the same
torch threads. The end-of-sequence token lies outside the model's vocabulary, so that nobody samples
it and every response has exactly 40 tokens; `--ragged` gives it an
ordinary token instead, one of 256 that are about equally probable, so that one response in seven ends early.

TRL is set to its best: no saving, logging, progress bar, evaluation, gradient checkpointing or extra worker, scaled
dot-product attention (its default), one generation and one optimizer step a batch, so that no log-probabilities of an
old policy are computed for GRPO. `--peer-rows` (128) is its batch for one forward pass; with 32 it accumulates over
four.

Operations, as executed here (a multiplication and an addition each; D width, I inner size, V vocabulary, H·h = D):
    a token through the L layers        L · 2 · (4·D² + 3·D·I)
    a token through the head            2 · D · V
    a query against S keys, L layers    L · 4 · D · S
    sampling    G·P prompt tokens once, B·(T-1) fed tokens, token t against P + t keys, head for G + B·(T-1)
    forward     X = G·P + B·(T-1) packed tokens, of which the last layer's feed-forward part takes B·T predicting
                ones; head for B·T; each of the T-1 fed columns against all P + T-1 key columns, masked or not
    backward    twice the forward, for attention two and a half times, since it computes the shares again
    a step      sampling + forward (reference) + forward + backward (policy)
Norms, softmax, rotations, optimizer and so on are not counted. The limit, given for float32, is the time that these
operations take as matrix products alone, each kind at the rate measured in this process for its own shapes: by
`torch.mm`, and by the product that `policies.transformer` uses. A share of 1 would mean that nothing but those
products took any time.
"""

import argparse
import contextlib
import functools
import itertools
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from policies import transformer
from policies.errors import PrecisionError
from policies.phase import run_phase
from policies.phase_records import Algorithm, PhaseSettings
from policies.precision import Precision, require_supported
from policies.reward_model import Scores

RATE_SECONDS = 3.0
"""How long the fastest product is sought."""
KL_COEFFICIENT, LEARNING_RATE = 0.02, 1e-5
UNCOUNTED_STEPS = 2


@dataclass(frozen=True, slots=True)
class Shape:
    """What is trained, and on how much of it."""

    width: int
    layers: int
    vocabulary: int
    prompts: int = 16
    samples: int = 8
    prompt_tokens: int = 16
    response_tokens: int = 40
    ragged: bool = False
    prompts_per_pass: int | None = 4

    @property
    def inner(self) -> int:
        return 3 * self.width

    @property
    def rows(self) -> int:
        return self.prompts * self.samples


def write_model(shape: Shape, folder: Path) -> None:
    """Write a random Llama whose tokenizer knows its tokens as words, and an end token that it cannot say."""
    words = {"<pad>": 0, "<unk>": 1, **{f"w{number}": number for number in range(2, shape.vocabulary)}}
    end = "w2" if shape.ragged else "<end>"
    words.setdefault(end, len(words))
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token=end, padding_side="left"
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            intermediate_size=shape.inner,
            num_hidden_layers=shape.layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=4 * (shape.prompt_tokens + shape.response_tokens),
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=words[end],
            pad_token_id=0,
        )
    )
    model.save_pretrained(folder)
    fast.save_pretrained(folder)


def prompts(shape: Shape, count: int) -> list[str]:
    numbers = torch.Generator().manual_seed(1)
    ids = torch.randint(3, shape.vocabulary, (count, shape.prompt_tokens), generator=numbers)
    return [" ".join(f"w{number}" for number in row) for row in ids.tolist()]


def reward(responses: Sequence[str]) -> list[float]:
    """Share of distinct words: cheap, and told from the text as a reward model would be."""
    return [len(set(words)) / len(words) if (words := text.split()) else 0.0 for text in responses]


@dataclass(frozen=True, slots=True)
class GivenReward:
    """Stands where a fitted reward model would."""

    device: str
    """Where rewards are wanted: with the policy."""
    mean: float = 0.0
    sd: float = 1.0

    def score(self, prompts: Sequence[str], responses: Sequence[str], *, all_members: bool = False) -> Scores:
        reward_B = torch.tensor(reward(responses), device=self.device)
        return Scores(reward_B, reward_B.unsqueeze(0))


def own_seconds(
    shape: Shape, algorithm: Algorithm, precision: Precision, steps: int, device: str, folder: Path
) -> list[float]:
    """Seconds of each counted step of the phase."""
    settings = PhaseSettings(
        algorithm=algorithm,
        steps=UNCOUNTED_STEPS + steps,
        prompts_per_step=shape.prompts,
        samples_per_prompt=shape.samples,
        max_new_tokens=shape.response_tokens,
        learning_rate=LEARNING_RATE,
        kl_coefficient=KL_COEFFICIENT,
        kl_budget_nats=None,
        prompts_per_pass=shape.prompts_per_pass,
        precision=precision,
    )
    ends: list[float] = []

    def note(done: int, total: int, note: str) -> None:
        if device != "cpu":
            torch.cuda.synchronize()
        ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as out:
        run_phase(
            settings,
            start_dir=folder,
            reference_dir=folder,
            reward_model=GivenReward(device),  # type: ignore[arg-type]
            prompts=prompts(shape, shape.prompts * settings.steps),
            seed=0,
            out_dir=Path(out) / "candidate",
            device=device,
            progress=note,
        )
    # The last entry is the measurement of the candidate, which is no gradient step.
    return _gaps(ends[:-1])


def trl_seconds(
    shape: Shape, algorithm: Algorithm, precision: Precision, steps: int, device: str, rows: int, folder: Path
) -> list[float]:
    """Seconds of each counted step of TRL's trainer."""
    from datasets import Dataset  # type: ignore[import-untyped]
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    ends: list[float] = []

    class Note(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if device != "cpu":
                torch.cuda.synchronize()
            ends.append(time.perf_counter())

    kinds = {Algorithm.RLOO: (RLOOConfig, RLOOTrainer), Algorithm.GRPO: (GRPOConfig, GRPOTrainer)}
    make_config, make_trainer = kinds[algorithm]
    total = UNCOUNTED_STEPS + steps
    with tempfile.TemporaryDirectory() as out:
        config = make_config(
            output_dir=out,
            max_steps=total,
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=shape.rows // rows,
            num_generations=shape.samples,
            max_completion_length=shape.response_tokens,
            temperature=1.0,
            beta=KL_COEFFICIENT,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            max_grad_norm=1.0,
            bf16=precision is Precision.BFLOAT16,
            use_cpu=device == "cpu",
            gradient_checkpointing=False,
            logging_strategy="no",
            save_strategy="no",
            eval_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_num_workers=0,
            log_completions=False,
            seed=0,
        )
        trainer = make_trainer(
            model=str(folder),
            reward_funcs=lambda completions, **_: reward(completions),
            args=config,
            train_dataset=Dataset.from_list([{"prompt": text} for text in prompts(shape, shape.prompts * total)]),
            callbacks=[Note()],
        )
        with contextlib.redirect_stdout(sys.stderr):  # its summary would spoil --json
            trainer.train()
    return _gaps(ends)


def _gaps(ends: list[float]) -> list[float]:
    counted = ends[UNCOUNTED_STEPS - 1 :]
    return [after - before for before, after in itertools.pairwise(counted)]


def operations(shape: Shape) -> dict[str, dict[str, float]]:
    """Floating-point operations of one step, by part and kind; see the module's docstring."""
    d, fed = shape.width, shape.response_tokens - 1
    rows, prompt_tokens = shape.rows, shape.prompts * shape.prompt_tokens
    attention_weights, feed_forward, head = 8 * d * d, 6 * d * shape.inner, 2 * d * shape.vocabulary
    pair = 4 * d * shape.layers
    prompt_pairs = shape.prompts * shape.prompt_tokens**2
    packed, predicting = prompt_tokens + rows * fed, rows * shape.response_tokens
    seen = sum(shape.prompt_tokens + t for t in range(1, fed + 1))
    forward: dict[str, float] = {
        "layers": (shape.layers - 1) * packed * (attention_weights + feed_forward)
        + packed * attention_weights
        + predicting * feed_forward,
        "head": predicting * head,
        "attention": pair * (prompt_pairs + rows * fed * (shape.prompt_tokens + fed)),
    }
    sampling: dict[str, float] = {
        "layers": (prompt_tokens + rows * fed) * shape.layers * (attention_weights + feed_forward),
        "head": (shape.prompts + rows * fed) * head,
        "attention": pair * (prompt_pairs + rows * seen),
    }
    backward = {kind: count * (2.5 if kind == "attention" else 2.0) for kind, count in forward.items()}
    return {"sampling": sampling, "reference": forward, "policy_forward": forward, "policy_backward": backward}


def rates(shape: Shape, multiply: Callable[[Tensor, Tensor], Tensor], device: str) -> dict[str, float]:
    """Operations a second of plain products, for rows of one decoding step and of one training pass."""
    d, share = shape.width, shape.prompts_per_pass or shape.prompts
    packed = share * (shape.prompt_tokens + shape.samples * (shape.response_tokens - 1))
    factors = [(d, 3 * d), (d, d), (d, 2 * shape.inner), (shape.inner, d)]
    return {
        "decoding": _rate([(shape.rows, *factor) for factor in factors], multiply, device),
        "training": _rate([(packed, *factor) for factor in factors], multiply, device),
    }


def _rate(sizes: list[tuple[int, int, int]], multiply: Callable[[Tensor, Tensor], Tensor], device: str) -> float:
    pairs = [(torch.randn(m, k, device=device), torch.randn(n, k, device=device)) for m, k, n in sizes]
    each = sum(2 * m * k * n for m, k, n in sizes)
    repeats = max(1, math.ceil(2e8 / each))
    seconds: list[float] = []
    until = time.perf_counter() + RATE_SECONDS
    while time.perf_counter() < until or len(seconds) < 12:
        began = time.perf_counter()
        for _ in range(repeats):
            for a, b in pairs:
                multiply(a, b)
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - began) / repeats)
    # The fastest, as the limit of the machine: on shared cores most tries wait for somebody else.
    return each / min(seconds[2:])


def limit(shape: Shape, rate: dict[str, float]) -> float:
    """Samples a second if the step were its matrix products and nothing else."""
    parts = {part: sum(kinds.values()) for part, kinds in operations(shape).items()}
    training = sum(count for part, count in parts.items() if part != "sampling")
    return shape.rows / (parts["sampling"] / rate["decoding"] + training / rate["training"])


def measure(shape: Shape, arguments: argparse.Namespace) -> dict[str, Any]:
    legs: dict[str, Callable[[Path], list[float]]] = {}
    rivals = [
        (algorithm, precision)
        for algorithm in (Algorithm.RLOO, Algorithm.GRPO)
        for precision in map(Precision, arguments.precision)
    ]
    for algorithm, precision in rivals:
        legs[f"ratchet {algorithm} {precision}"] = functools.partial(
            own_seconds, shape, algorithm, precision, arguments.steps, arguments.device
        )
        if arguments.peer == "trl":
            legs[f"trl {algorithm} {precision}"] = functools.partial(
                trl_seconds, shape, algorithm, precision, arguments.steps, arguments.device, arguments.peer_rows
            )
    seconds: dict[str, list[float]] = {name: [] for name in legs}  # the median step of each round
    with torch.inference_mode():
        products = {"torch.mm": lambda a, b: torch.mm(a, b.T), "policies.transformer": transformer.product}
        found = {name: rates(shape, multiply, arguments.device) for name, multiply in products.items()}
    with tempfile.TemporaryDirectory() as name:
        write_model(shape, Path(name))
        for number in range(arguments.rounds):
            for leg, run in legs.items():
                seconds[leg].append(statistics.median(run(Path(name))))
                print(f"round {number}: {leg} {shape.rows / seconds[leg][-1]:.0f} samples/s", file=sys.stderr)
    speed = {leg: shape.rows / statistics.median(values) for leg, values in seconds.items()}
    result: dict[str, Any] = {"shape": asdict(shape), "samples_per_second": speed, "step_seconds_by_round": seconds}
    if arguments.peer:
        result["ratio_to_peer"] = {
            f"{algorithm} {precision}": statistics.median(
                peer / own
                for own, peer in zip(
                    seconds[f"ratchet {algorithm} {precision}"], seconds[f"trl {algorithm} {precision}"], strict=True
                )
            )
            for algorithm, precision in rivals
        }
    if not shape.ragged:
        limits = {product: limit(shape, rate) for product, rate in found.items()}
        result |= {
            "operations": operations(shape),
            "operations_per_second": found,
            "limit_samples_per_second": limits,
            "share_of_limit": {
                leg: {product: value / limits[product] for product in limits}
                for leg, value in speed.items()
                if leg.startswith("ratchet") and leg.endswith(Precision.FLOAT32)
            },
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--vocabulary", type=int, default=256)
    parser.add_argument("--peer", choices=["trl"])
    parser.add_argument("--peer-rows", type=int, default=128)
    parser.add_argument("--ragged", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="counted steps a leg and round")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=list(map(str, Precision)), nargs="+", default=[str(Precision.FLOAT32)])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device")
    for precision in map(Precision, arguments.precision):
        try:
            require_supported(precision, arguments.device)
        except PrecisionError as error:
            parser.error(str(error))
    torch.set_num_threads(arguments.threads)
    shapes = [
        Shape(width, arguments.layers, arguments.vocabulary, ragged=arguments.ragged) for width in arguments.width
    ]
    found = {
        "torch": torch.__version__,
        "threads": arguments.threads,
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu",
        "runs": [measure(shape, arguments) for shape in shapes],
    }
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for run in found["runs"]:
        print(f"width {run['shape']['width']}")
        for leg, value in run["samples_per_second"].items():
            print(f"  {leg:<22} {value:6.0f} samples/s")
        for algorithm, ratio in run.get("ratio_to_peer", {}).items():
            print(f"  {algorithm}: {ratio:.2f} times the peer")
        for product, value in run.get("limit_samples_per_second", {}).items():
            print(f"  limit by {product}: {value:.0f} samples/s")
        for leg, shares in run.get("share_of_limit", {}).items():
            print(f"  {leg}: " + ", ".join(f"{share:.0%} of the limit by {name}" for name, share in shares.items()))


if __name__ == "__main__":
    main()
