import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from policies import language_model, seedling
from policies.batch import TokenBatch, pad
from policies.errors import ModelFolderError
from policies.language_model import LanguageModel
from policies.seedling import SeedlingSettings
from policies.tasks.memo import Memo


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_a_seedling_opens_with_nothing_but_transformers(seedling_dir: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(seedling_dir)
    tokenizer: Any = AutoTokenizer.from_pretrained(seedling_dir)
    encoded = tokenizer("memo to ana on monday : tea , milk , rice", return_tensors="pt")
    assert tokenizer.decode(encoded["input_ids"][0]).endswith("<reply>")
    out: Any = model.generate(**encoded, max_new_tokens=5, do_sample=False)
    assert out.shape[1] > encoded["input_ids"].shape[1]
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_the_same_seed_grows_the_same_bytes(tmp_path: Path) -> None:
    settings = SeedlingSettings(width=16, layers=1, heads=2, steps=5, batch_size=4)
    for name, seed in (("a", 1), ("elsewhere/b", 1), ("c", 2)):
        seedling.grow(Memo(examples=50), settings, seed=seed, out_dir=tmp_path / name)
    assert digests(tmp_path / "a") == digests(tmp_path / "elsewhere/b")
    assert digests(tmp_path / "a")["model.safetensors"] != digests(tmp_path / "c")["model.safetensors"]
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in (tmp_path / "a").iterdir())


def test_growing_does_not_move_the_global_generator(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    settings = SeedlingSettings(width=16, layers=1, heads=2, steps=2, batch_size=4)
    seedling.grow(Memo(examples=50), settings, seed=1, out_dir=tmp_path)
    assert torch.equal(before, torch.random.get_rng_state())


def test_saving_what_was_loaded_changes_no_byte(tiny: LanguageModel, seedling_dir: Path, tmp_path: Path) -> None:
    language_model.save(tiny, tmp_path / "again", like=seedling_dir)
    assert digests(tmp_path / "again") == digests(seedling_dir)


class TestRefusals:
    @pytest.fixture
    def folder(self, seedling_dir: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(seedling_dir, tmp_path / "model"))

    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ModelFolderError, match="is not a folder"):
            language_model.load(tmp_path / "absent")

    def test_no_configuration(self, folder: Path) -> None:
        (folder / "config.json").unlink()
        with pytest.raises(ModelFolderError, match=r"no config\.json"):
            language_model.load(folder)

    def test_no_weights(self, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        with pytest.raises(ModelFolderError, match="has no weights"):
            language_model.load(folder)

    def test_pickled_weights_alone(self, folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        with pytest.raises(ModelFolderError, match="only pickled weights"):
            language_model.load(folder)

    def test_broken_weights(self, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"not tensors")
        with pytest.raises(ModelFolderError, match="does not open"):
            language_model.load(folder)

    def test_weights_that_do_not_fill_the_model(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
        with pytest.raises(ModelFolderError, match=r"lacks \d+ weights"):
            language_model.load(folder)

    def test_code_of_its_own(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "mine", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "evil.py").write_text("raise SystemExit('this must never run')")
        with pytest.raises(ModelFolderError, match="does not open"):
            language_model.load(folder)


def test_padding_that_equals_the_end_token_is_replaced(seedling_dir: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(seedling_dir, tmp_path / "model"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "pad_token": config["eos_token"]}))
    opened = language_model.load(folder)
    assert opened.tokenizer.pad_token_id == opened.eos_id
    assert opened.pad_id != opened.eos_id


def test_padding_changes_no_logit(tiny: LanguageModel) -> None:
    """Each row of a ragged batch against the plain model on that row alone."""
    prompts = ["memo to ana on monday : tea , milk , rice", "memo to ben : tea"]
    responses = ["tea milk", "tea . thanks ! !"]
    batch = tiny.batch(prompts, responses)
    together = language_model.response_logits(tiny.model, batch).split(batch.response_keep_BT.sum(dim=1).tolist())
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        prompt_ids, response_ids = tiny.encode_prompts([prompt])[0], tiny.encode_responses([response])[0]
        plain = tiny.model(torch.tensor([prompt_ids + response_ids])).logits[0, len(prompt_ids) - 1 : -1]
        assert torch.allclose(together[row], plain, atol=1e-4)


def test_pad_lays_rows_out_on_either_side() -> None:
    left, right = pad([[1, 2], [3], []], 9, "left"), pad([[1, 2], [3], []], 9, "right")
    assert left.ids.tolist() == [[1, 2], [9, 3], [9, 9]]
    assert left.keep.tolist() == [[True, True], [False, True], [False, False]]
    assert right.ids.tolist() == [[1, 2], [3, 9], [9, 9]]
    assert right.keep.tolist() == [[True, True], [True, False], [False, False]]


def test_a_batch_counts_its_response_tokens(tiny: LanguageModel) -> None:
    batch: TokenBatch = tiny.batch(["memo to ana : tea", "memo to ben : tea"], ["tea", ""])
    assert batch.tokens == 2 + 1  # each with its end token


def test_figures_of_kept_tokens_go_back_to_their_places() -> None:
    keep_BT = torch.tensor([[True, True], [True, False]])
    batch = TokenBatch(torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), torch.tensor([[5, 6], [7, 0]]), keep_BT)
    assert batch.samples_per_prompt == 2
    assert batch.response_ids_N.tolist() == [5, 6, 7]
    assert batch.spread(torch.tensor([0.5, 1.5, 2.5])).tolist() == [[0.5, 1.5], [2.5, 0.0]]
    assert batch.ids_BL.tolist() == [[0, 5, 6], [0, 7, 0]]
