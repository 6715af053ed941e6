"""The bench a work item is done at: artifacts by digest, a device, and where to say how far one is.

Called by every work function in this folder; knows files and models, but nothing of campaigns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from orchestrator.artifacts import MANIFEST, ArtifactStore
from orchestrator.core.settings import TaskSettings
from policies import hf_reward_model, implicit_reward, language_model, reward_model
from policies.language_model import LanguageModel
from policies.preference import Scorer
from policies.reward_model import RewardModel
from policies.rng import generator
from policies.sampler import sample
from policies.tasks.base import Task
from policies.tasks.registry import load_task

SAMPLE_CHUNK: Final = 128
"""Prompts sampled at once outside a phase; part of what decides the digests, so it is no setting."""
TOKENIZER: Final = ("tokenizer", "vocab", "merges", "spiece", "sentencepiece", "added_tokens", "special_tokens")
"""How the names of a tokenizer's files begin."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """Responses to prompts; a prompt's own stand next to one another."""

    prompts: tuple[str, ...]
    responses: tuple[str, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class Bench:
    artifacts: ArtifactStore
    device: torch.device
    progress: Callable[[int, int, str], None]

    def folder(self, digest: str) -> Path:
        """The artifact's folder, every byte of it checked against its digest."""
        return self.artifacts.open(digest)

    def policy(self, digest: str) -> LanguageModel:
        return language_model.load(self.folder(digest), self.device)

    def reward_model(self, digest: str) -> RewardModel:
        """A reward model with the base that it was fitted from, which its manifest names."""
        base = self.artifacts.manifest(digest).meta["base"]
        return reward_model.load(self.folder(digest), self.policy(str(base)))

    def scorer(self, digest: str) -> Scorer:
        """Whatever the gate holds a candidate to: a reward model, of our own or given, or its own implicit reward."""
        meta = self.artifacts.manifest(digest).meta
        if "base" in meta:
            return self.reward_model(digest)
        if "policy" not in meta:
            return hf_reward_model.load(self.folder(digest), self.device)
        policy, reference = self.policy(str(meta["policy"])), self.policy(str(meta["reference"]))
        return implicit_reward.load(self.folder(digest), policy, reference)

    def publish_checkpoint(self, staged: Path, meta: dict[str, Any]) -> str:
        """Publish a model folder; a manifest that came along with a copied folder is not its own."""
        (staged / MANIFEST).unlink(missing_ok=True)
        return self.artifacts.publish(staged, kind="checkpoint", meta=meta)

    def sample(
        self, policy: LanguageModel, prompts: list[str], *, each: int, max_new_tokens: int, seed: int, what: str
    ) -> Sampled:
        """Draw `each` responses to every prompt, a chunk of prompts at a time."""
        source = generator(seed, self.device)
        texts: list[str] = []
        responses: list[str] = []
        tokens = 0
        for begin in range(0, len(prompts), SAMPLE_CHUNK):
            drawn = sample(
                policy,
                prompts[begin : begin + SAMPLE_CHUNK],
                max_new_tokens=max_new_tokens,
                generator=source,
                samples_per_prompt=each,
            )
            texts.extend(drawn.prompts)
            responses.extend(drawn.responses)
            tokens += drawn.batch.tokens
            self.progress(min(begin + SAMPLE_CHUNK, len(prompts)), len(prompts), what)
        return Sampled(tuple(texts), tuple(responses), tokens)

    def mean_tokens(self, policy: str, opponent: str, ours: Sampled, theirs: Sampled) -> tuple[float, float]:
        """Mean response length of both, in tokens as drawn; where the two have different tokenizers, both in the
        opponent's tokens, since those of two tokenizers cannot be compared."""
        counts = (ours.tokens, theirs.tokens)
        if not self._tokenize_alike(policy, opponent):
            reader = self.policy(opponent)
            counts = _length(reader, ours), _length(reader, theirs)
        return counts[0] / len(ours.responses), counts[1] / len(theirs.responses)

    def _tokenize_alike(self, one: str, other: str) -> bool:
        """Whether both checkpoints came with the same files of a tokenizer."""
        files, others = (
            {name: entry for name, entry in self.artifacts.manifest(digest).files.items() if name.startswith(TOKENIZER)}
            for digest in (one, other)
        )
        return files == others and bool(files)


def _length(reader: LanguageModel, drawn: Sampled) -> int:
    return sum(map(len, reader.encode_responses(drawn.responses)))


def task_of(settings: TaskSettings) -> Task:
    files = {"files": settings.files} if settings.files else {}
    return load_task(settings.kind, {**settings.options, **files})
