"""Models as they come from elsewhere: random and tiny, of several architectures and tokenizers; and seedlings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from policies import seedling
from policies.tasks.registry import load_task

TASK: dict[str, Any] = {"kind": "memo", "options": {"keys": 5, "asked": 2, "examples": 2000}}
TEXTS = ("memo to ana on monday : tea , milk , rice", "tea milk rice . thanks !", "milk salt soap . eggs")
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}


def grown(folder: Path, steps: int, seed: int = 1) -> Path:
    """A seedling on a small memo task: after 5 steps it says nothing, after 300 much of what was asked."""
    torch.set_num_threads(1)
    task = load_task(TASK["kind"], TASK["options"])
    seedling.grow(task, seedling.SeedlingSettings(width=32, layers=1, heads=2, steps=steps), seed=seed, out_dir=folder)
    return folder


def bpe(vocabulary: int, **special: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer without a word of ours around a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(special.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def gpt2(folder: Path, seed: int = 0) -> Path:
    """A policy of another architecture, that has no token to pad with."""
    tokenizer = bpe(280, eos_token="<|endoftext|>")
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=128, eos_token_id=0)
    return _written(GPT2LMHeadModel, config, tokenizer, folder, seed)


def llama(folder: Path, seed: int = 0) -> Path:
    tokenizer = bpe(300, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=128, bos_token_id=0, eos_token_id=1, pad_token_id=2, **SMALL
    )
    return _written(LlamaForCausalLM, config, tokenizer, folder, seed)


def classifier(folder: Path, kind: str = "llama", *, outputs: int = 1, seed: int = 0, scale: float = 20.0) -> Path:
    """A sequence classifier; `scale` makes its random outputs differ visibly."""
    if kind == "llama":
        tokenizer = bpe(300, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
        config: Any = LlamaConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=128,
            pad_token_id=2,
            num_labels=outputs,
            initializer_range=0.3,
            **SMALL,
        )
        made: Any = LlamaForSequenceClassification
    elif kind == "gpt2":
        tokenizer = bpe(280, eos_token="<|endoftext|>")
        config = GPT2Config(
            vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=128, num_labels=outputs
        )
        made = GPT2ForSequenceClassification
    else:
        tokenizer = bpe(300, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]")
        config = BertConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=128,
            pad_token_id=2,
            num_labels=outputs,
            initializer_range=0.3,
            **SMALL,
        )
        made = BertForSequenceClassification
    return _written(made, config, tokenizer, folder, seed, scale)


def _written(
    kind: Any, config: Any, tokenizer: PreTrainedTokenizerFast, folder: Path, seed: int, scale: float = 1.0
) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(config)
    head = getattr(model, "score", None) or getattr(model, "classifier", None)
    if head is not None:
        with torch.no_grad():
            head.weight.mul_(scale)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def rows(count: int) -> Sequence[tuple[str, str]]:
    """Prompts with responses of many lengths."""
    return [(f"memo to ana on day {n} : tea", " ".join(["milk"] * (n % 7)) + " .") for n in range(count)]
