"""A sequence classifier as a reward model, against the classifier itself, one text at a time and without padding."""

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import classifier, llama, rows
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from policies import hf_reward_model
from policies.errors import ModelFolderError, NonFiniteError, TooLongError
from policies.preference import promises

KINDS = ["llama", "gpt2", "bert"]
PROMPTS, RESPONSES = map(list, zip(*rows(40), strict=True))


@pytest.fixture(params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return classifier(tmp_path / request.param, request.param)


def one_by_one(folder: Path) -> list[float]:
    """What transformers itself says of each text: prompt, response, then the token that ends a text."""
    model: Any = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    said = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        ids = tokenizer.encode(prompt) + tokenizer.encode(response, add_special_tokens=False) + [end]
        with torch.no_grad():
            said.append(float(model(input_ids=torch.tensor([ids])).logits[0, 0]))
    return said


def test_it_says_what_the_classifier_says_of_one_text_alone(folder: Path) -> None:
    expected = one_by_one(folder)
    assert max(expected) - min(expected) > 0.1, "the test would see nothing"
    scores = hf_reward_model.load(folder).score(PROMPTS, RESPONSES)
    assert scores.aggregate_B.tolist() == pytest.approx(expected, abs=1e-4)
    assert scores.members_MB.shape == (1, 40)


def test_differences_are_logits_of_preference(folder: Path) -> None:
    expected = one_by_one(folder)
    told = promises(hf_reward_model.load(folder), PROMPTS[:5], RESPONSES[:5], RESPONSES[:5][::-1])
    first = hf_reward_model.load(folder).score(PROMPTS[:5], RESPONSES[:5][::-1]).aggregate_B.tolist()
    for promise, ours, theirs in zip(told, expected[:5], first, strict=True):
        assert promise.p_candidate == pytest.approx(1 / (1 + math.exp(theirs - ours)), abs=1e-4)


def test_normalising_changes_the_unit_and_no_probability(folder: Path) -> None:
    plain = hf_reward_model.load(folder)
    unit = plain.normalised(PROMPTS, RESPONSES)
    rewards = unit.score(PROMPTS, RESPONSES).aggregate_B
    assert (float(rewards.mean()), float(rewards.std())) == (pytest.approx(0, abs=1e-5), pytest.approx(1, abs=1e-5))
    before = [promise.p_candidate for promise in promises(plain, PROMPTS[:5], RESPONSES[:5], RESPONSES[5:10])]
    after = [promise.p_candidate for promise in promises(unit, PROMPTS[:5], RESPONSES[:5], RESPONSES[5:10])]
    assert after == pytest.approx(before, abs=1e-5)


def test_saving_and_opening_again_changes_nothing(folder: Path, tmp_path: Path) -> None:
    unit = hf_reward_model.load(folder).normalised(PROMPTS, RESPONSES)
    unit.save(tmp_path / "again")
    again = hf_reward_model.load(tmp_path / "again")
    assert torch.equal(again.score(PROMPTS, RESPONSES).aggregate_B, unit.score(PROMPTS, RESPONSES).aggregate_B)
    again.save(tmp_path / "twice")
    digests = [
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in place.iterdir()}
        for place in (tmp_path / "again", tmp_path / "twice")
    ]
    assert digests[0] == digests[1]


def test_no_texts_have_no_rewards(folder: Path) -> None:
    assert hf_reward_model.load(folder).score([], []).aggregate_B.shape == (0,)


class TestRefusals:
    def test_two_outputs(self, tmp_path: Path) -> None:
        with pytest.raises(ModelFolderError, match="has 2 outputs, a reward model has one"):
            hf_reward_model.load(classifier(tmp_path / "two", outputs=2))

    def test_a_language_model(self, tmp_path: Path) -> None:
        """It has no head; transformers would invent one."""
        folder = llama(tmp_path / "policy")
        with pytest.raises(ModelFolderError, match="outputs"):
            hf_reward_model.load(folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "id2label": {"0": "LABEL_0"}}))
        with pytest.raises(ModelFolderError, match=r"lacks 1 weights of a reward model, first score\.weight"):
            hf_reward_model.load(folder)

    def test_no_folder_of_a_model(self, tmp_path: Path) -> None:
        with pytest.raises(ModelFolderError, match=r"no config\.json"):
            hf_reward_model.load(tmp_path)

    def test_pickled_weights(self, tmp_path: Path) -> None:
        folder = classifier(tmp_path / "model")
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        with pytest.raises(ModelFolderError, match="only pickled weights"):
            hf_reward_model.load(folder)

    def test_code_of_its_own(self, tmp_path: Path) -> None:
        folder = classifier(tmp_path / "model")
        config = json.loads((folder / "config.json").read_text())
        own = {
            "model_type": "own",
            "auto_map": {"AutoConfig": "own.Own", "AutoModelForSequenceClassification": "own.M"},
        }
        (folder / "config.json").write_text(json.dumps({**config, **own}))
        (folder / "own.py").write_text("raise AssertionError('it ran')")
        with pytest.raises(ModelFolderError, match=r"does not open: config\.json"):
            hf_reward_model.load(folder)

    def test_texts_without_room(self, tmp_path: Path) -> None:
        with pytest.raises(TooLongError, match="128 positions"):
            hf_reward_model.load(classifier(tmp_path / "model")).score(["tea"], ["salt soap " * 100])

    def test_rewards_that_are_no_numbers(self, tmp_path: Path) -> None:
        broken = hf_reward_model.load(classifier(tmp_path / "model", scale=math.nan))
        with pytest.raises(NonFiniteError):
            broken.score(["tea"], ["milk"])

    def test_a_damaged_tokenizer(self, tmp_path: Path) -> None:
        folder = classifier(tmp_path / "model")
        shutil.copyfile(folder / "model.safetensors", folder / "tokenizer.json")
        with pytest.raises(ModelFolderError, match="does not open"):
            hf_reward_model.load(folder)
