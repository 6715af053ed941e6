"""Growing a seedling: a small language model of our own, so that a campaign needs no download.

The result is an ordinary Hugging Face folder; nothing later on knows that it was grown here.
"""

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from policies import objectives
from policies.batch import TokenBatch, pad
from policies.errors import NonFiniteError, TaskError
from policies.language_model import response_logits
from policies.progress import Progress, silent
from policies.rng import derive_seed, generator
from policies.tasks.base import Example, Task, bpe_vocabulary

_GLOBAL_GENERATOR = threading.Lock()
SPECIAL = PAD, END, UNKNOWN, REPLY = "<pad>", "<end>", "<unk>", "<reply>"
"""Special tokens, ids 0 to 3. REPLY closes every prompt, as a chat template would."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedlingSettings:
    """Shape and training of a seedling."""

    width: int = 64
    layers: int = 2
    heads: int = 4
    steps: int = 1500
    batch_size: int = 64
    learning_rate: float = 3e-3
    """Peak; rises over the first twentieth of the steps, then falls along a cosine to a tenth."""
    weight_decay: float = 0.01
    max_tokens: int = 128
    """Longest prompt with response that positions are numbered for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedlingReport:
    """What became of it."""

    parameters: int
    vocabulary: int
    loss: float
    """Mean cross-entropy of response tokens over the last 50 steps; nats a token."""
    steps: int
    seconds: float


def grow(
    task: Task, settings: SeedlingSettings, *, seed: int, out_dir: Path, progress: Progress = silent
) -> SeedlingReport:
    """Train a fresh model on the task's corpus, on responses only, and write it to `out_dir`.

    Raises:
        TaskError: if the corpus is empty.
        NonFiniteError: if the loss is NaN or infinite.
    """
    began = time.monotonic()
    examples = task.corpus(derive_seed(seed, "corpus"))
    if not examples:
        raise TaskError(f"task {task.kind} has an empty corpus; name an existing model as base.model")
    vocabulary = bpe_vocabulary(task)
    tokenizer = word_tokenizer(examples) if vocabulary is None else bpe_tokenizer(examples, vocabulary)
    model = _fresh_model(settings, tokenizer, derive_seed(seed, "weights"))
    losses = _train(model, tokenizer, examples, settings, derive_seed(seed, "order"), progress)
    out_dir.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)
    recent = losses[-50:]
    return SeedlingReport(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        vocabulary=len(tokenizer),
        loss=sum(recent) / len(recent),
        steps=settings.steps,
        seconds=time.monotonic() - began,
    )


def word_tokenizer(examples: Sequence[Example]) -> PreTrainedTokenizerFast:
    """Make a tokenizer whose tokens are the corpus's words, in alphabetical order."""
    words = sorted({word for item in examples for word in f"{item.prompt} {item.response}".split()})
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _finished(tokenizer)


def bpe_tokenizer(examples: Sequence[Example], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on the corpus: any text can be encoded, and comes back as it was.

    Same corpus, same bytes. The corpus decides how many of the `vocabulary` tokens there are merges for.

    Raises:
        TaskError: if the special tokens and the 256 bytes do not fit into `vocabulary`.
    """
    least = len(SPECIAL) + len(pre_tokenizers.ByteLevel.alphabet())
    if vocabulary < least:
        raise TaskError(f"a byte-level vocabulary has {least} tokens or more, {vocabulary} were asked for")
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    # A blank is put before the first word, and taken away again, so that a word is one token wherever it stands.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for item in examples for text in (item.prompt, item.response)), trainer)
    return _finished(tokenizer)


def _finished(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Close prompts with REPLY and name the special tokens."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {REPLY}", special_tokens=[(REPLY, tokenizer.token_to_id(REPLY))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=[REPLY],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _fresh_model(settings: SeedlingSettings, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.width,
        intermediate_size=3 * settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=settings.max_tokens,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        dtype="float32",
    )
    # transformers initialises from the global generator and takes no other; fork it, so that nobody notices, and let
    # no other thread draw from it meanwhile.
    with _GLOBAL_GENERATOR, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def _train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    examples: Sequence[Example],
    settings: SeedlingSettings,
    seed: int,
    progress: Progress,
) -> list[float]:
    prompts = tokenizer([item.prompt for item in examples])["input_ids"]
    plain = tokenizer([item.response for item in examples], add_special_tokens=False)["input_ids"]
    responses = [[*ids, tokenizer.eos_token_id] for ids in plain]
    longest = max(len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True))
    if longest > settings.max_tokens:
        raise TaskError(
            f"the corpus has an example of {longest} tokens, a seedling reads {settings.max_tokens}; "
            "bring shorter texts, or leave long ones out (text: task.options.max_words)"
        )
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.98)
    )
    warmup = max(settings.steps // 20, 1)

    def rate(step: int) -> float:
        fallen = max(step - warmup, 0) / max(settings.steps - warmup, 1)
        return min((step + 1) / warmup, 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * fallen)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    order, losses = generator(seed), []
    model.eval()  # nothing random but the order of the examples
    for step in range(settings.steps):
        rows = torch.randint(len(examples), (settings.batch_size,), generator=order).tolist()
        prompt = pad([prompts[row] for row in rows], tokenizer.pad_token_id, "left")
        response = pad([responses[row] for row in rows], tokenizer.pad_token_id, "right")
        batch = TokenBatch(prompt.ids, prompt.keep, response.ids, response.keep)
        loss = objectives.next_token(response_logits(model, batch), batch.response_ids_N)
        if not bool(loss.isfinite()):
            raise NonFiniteError(f"step {step}: the seedling's loss is not finite; lower its learning rate")
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % 50 == 0 or step + 1 == settings.steps:
            progress(step + 1, settings.steps, f"growing a seedling, loss {losses[-1]:.3f}")
    return losses
