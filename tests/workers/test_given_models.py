"""Models that were not made here: taken in, sampled whatever their architecture and tokenizer, measured alike."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import TASK, classifier, gpt2, grown, llama
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from orchestrator.artifacts import ArtifactStore
from orchestrator.core.events import BaseReady, CandidateTaken, ComparisonsDrawn, Evaluated, EventBody
from orchestrator.core.records import Purpose
from orchestrator.core.settings import BaseSettings, CandidateSettings, TaskSettings
from orchestrator.core.work import DrawComparisons, Evaluate, PrepareBase, TakeCandidate, Work
from orchestrator.errors import ArtifactMissingError, WorkFailedError
from orchestrator.ports import Claim
from workers.local import InProcessWorkers

MEMO = TaskSettings(**TASK)
COUNT = 6


class Place:
    """A home's artifacts, and works done on them."""

    def __init__(self, root: Path) -> None:
        self.root, self.store = root / "artifacts", ArtifactStore(root / "artifacts")

    def do(self, work: Work) -> Any:
        body: EventBody = InProcessWorkers(self.root).run(work, Claim("w", "w", 1), lambda *_: None).body
        return body

    def base(self, model: Path | str) -> str:
        body = self.do(PrepareBase(seed=0, task=MEMO, base=BaseSettings(model=str(model))))
        assert isinstance(body, BaseReady)
        return body.checkpoint

    def take(self, start: str, model: Path | str, reward_model: Path | str | None = None) -> CandidateTaken:
        given = CandidateSettings(model=str(model), reward_model=None if reward_model is None else str(reward_model))
        body = self.do(TakeCandidate(seed=0, task=MEMO, stage=0, attempt=0, start=start, candidate=given))
        assert isinstance(body, CandidateTaken)
        return body

    def draw(self, candidate: str, approved: str, reward_model: str | None = None) -> ComparisonsDrawn:
        work = DrawComparisons(
            seed=0,
            task=MEMO,
            purpose=Purpose.GATE,
            stage=0,
            attempt=0,
            policy=candidate,
            opponent=approved,
            reward_model=reward_model,
            first_prompt=0,
            count=COUNT,
            max_response_tokens=12,
            alpha=0.1,
        )
        body = self.do(work)
        assert isinstance(body, ComparisonsDrawn)
        return body

    def responses(self, drawn: ComparisonsDrawn) -> tuple[list[str], list[str], list[str]]:
        """Prompts, the candidate's responses and the other's."""
        rows = list(self.store.read_lines(drawn.comparisons))
        pairs = [(row["response_1"], row["response_2"]) for row in rows]
        ours = [pair[0 if first else 1] for pair, first in zip(pairs, drawn.candidate_first, strict=True)]
        theirs = [pair[1 if first else 0] for pair, first in zip(pairs, drawn.candidate_first, strict=True)]
        return [row["prompt"] for row in rows], ours, theirs


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The approved model."""
    return grown(tmp_path_factory.mktemp("old"), steps=5)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("make", [gpt2, llama])
def test_a_given_model_is_the_same_checkpoint_each_time(
    place: Place, old: Path, tmp_path: Path, make: Callable[..., Path]
) -> None:
    folder, start = make(tmp_path / "theirs"), place.base(old)
    taken = place.take(start, folder)
    assert taken == place.take(start, folder).model_copy(update={"costs": taken.costs})
    assert (taken.start, taken.reward_model) == (start, None)
    assert place.store.kind(taken.candidate) == "checkpoint"
    assert place.take(start, taken.candidate).candidate == taken.candidate


@pytest.mark.parametrize("candidate_is", ["gpt2", "llama"])
def test_other_architectures_and_tokenizers_are_compared_and_measured_alike(
    place: Place, tmp_path: Path, candidate_is: str
) -> None:
    """Lengths are those of the texts, with their ends, in the approved model's own tokens."""
    theirs, ours = gpt2(tmp_path / "gpt2"), llama(tmp_path / "llama")
    if candidate_is == "gpt2":
        ours, theirs = theirs, ours
    approved = place.base(theirs)
    drawn = place.draw(place.take(approved, ours).candidate, approved)
    tokenizer: Any = AutoTokenizer.from_pretrained(theirs)
    _, said, answered = place.responses(drawn)
    assert (
        drawn.candidate_tokens_mean == sum(len(tokenizer.encode(x, add_special_tokens=False)) + 1 for x in said) / COUNT
    )
    others = [len(tokenizer.encode(x, add_special_tokens=False)) + 1 for x in answered]
    assert drawn.opponent_tokens_mean == sum(others) / COUNT


def test_with_one_tokenizer_lengths_are_as_drawn(place: Place, tmp_path: Path) -> None:
    """Twelve tokens where a response never ended, however its text would be cut into tokens anew."""
    one, two = llama(tmp_path / "one"), llama(tmp_path / "two", seed=1)
    approved = place.base(one)
    drawn = place.draw(place.take(approved, two).candidate, approved)
    assert drawn.candidate_tokens_mean is not None
    assert drawn.opponent_tokens_mean is not None
    assert drawn.costs.tokens == pytest.approx(COUNT * (drawn.candidate_tokens_mean + drawn.opponent_tokens_mean))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert"])
def test_a_given_reward_model_predicts_every_pair(place: Place, old: Path, tmp_path: Path, kind: str) -> None:
    """As transformers itself has it, one text at a time."""
    folder, start = classifier(tmp_path / "reward", kind), place.base(old)
    taken = place.take(start, llama(tmp_path / "policy"), folder)
    assert taken.reward_model is not None
    drawn = place.draw(taken.candidate, start, taken.reward_model)
    model: Any = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id

    def reward(prompt: str, response: str) -> float:
        ids = tokenizer.encode(prompt) + tokenizer.encode(response, add_special_tokens=False) + [end]
        with torch.no_grad():
            return float(model(input_ids=torch.tensor([ids])).logits[0, 0])

    expected = [
        1 / (1 + math.exp(reward(prompt, other) - reward(prompt, ours)))
        for prompt, ours, other in zip(*place.responses(drawn), strict=True)
    ]
    assert drawn.p_hat == pytest.approx(expected, abs=1e-4)


def test_gold_tells_how_good_a_given_reward_model_is(place: Place, old: Path, tmp_path: Path) -> None:
    start = place.base(old)
    taken = place.take(start, llama(tmp_path / "policy"), classifier(tmp_path / "reward"))
    body = place.do(
        Evaluate(
            seed=0,
            task=MEMO,
            stage=0,
            attempt=0,
            checkpoint=taken.candidate,
            start=start,
            approved=start,
            reward_model=taken.reward_model,
            prompts=8,
            max_response_tokens=12,
        )
    )
    assert isinstance(body, Evaluated)
    assert body.reward_model_accuracy is not None
    assert body.gold_course == ()


def test_a_model_is_not_compared_with_itself(place: Place, old: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(old, tmp_path / "copied", ignore=shutil.ignore_patterns("manifest.json"))
    start = place.base(old)
    for model in (old, copied, start):
        with pytest.raises(WorkFailedError, match="there is nothing to compare"):
            place.take(start, model)


def test_an_artifact_of_another_kind_is_none(place: Place, old: Path, tmp_path: Path) -> None:
    start = place.base(old)
    taken = place.take(start, llama(tmp_path / "policy"), classifier(tmp_path / "reward"))
    with pytest.raises(WorkFailedError, match=r"candidate\.model: .* is no checkpoint but reward_model"):
        place.take(start, str(taken.reward_model))
    with pytest.raises(WorkFailedError, match=r"candidate\.reward_model: .* is no reward_model but checkpoint"):
        place.take(start, taken.candidate, start)
    with pytest.raises(ArtifactMissingError):
        place.take(start, "e" * 64)


def test_a_reward_model_with_two_outputs_is_refused(place: Place, old: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkFailedError, match="has 2 outputs"):
        place.take(place.base(old), llama(tmp_path / "policy"), classifier(tmp_path / "reward", outputs=2))
