"""A reward model as others publish them: a Hugging Face sequence classifier with one output.

Texts are joined as the policies join them: the prompt's tokens with whatever its tokenizer puts around a text, then the
response's, then the token that ends a text. Nothing is put into a chat template: a reward model that was trained on one
reads prompts of a task that has it in their text.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification

from policies.batch import pad
from policies.errors import ModelFolderError, NonFiniteError, TooLongError
from policies.model_folder import copy_companions, open_model, require_files
from policies.reward_model import Scores

RECORD_FILE: Final = "normalisation.json"
_ROWS: Final = 32
"""Rows a forward pass."""


@dataclass(frozen=True)
class HfRewardModel:
    """r(x, y) = the classifier's one output, taken for a Bradley-Terry reward: P(first is preferred) = σ(r₁ - r₂)."""

    model: Any
    """A transformers `PreTrainedModel` with one output, float32, in evaluation mode."""
    tokenizer: Any
    folder: Path
    """Where it was opened: `save` takes the tokenizer's files from there."""
    mean: float = 0.0
    """Output that counts as 0."""
    sd: float = 1.0
    """Output that counts as 1 unit."""

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """Reward B responses; one member, whose raw unit is a logit of preference.

        Raises:
            TooLongError: if a prompt and its response take more tokens than the model has positions.
            NonFiniteError: if a reward is NaN or infinite.
        """
        raw_B = self._outputs(self._encode(prompts, responses))
        if not bool(raw_B.isfinite().all()):
            raise NonFiniteError("the reward model gives a reward that is not finite; name another one")
        return Scores((raw_B - self.mean) / self.sd, raw_B.unsqueeze(0))

    def logit(self, difference_B: Tensor) -> Tensor:
        """Turn differences of normalised rewards into logits of preference."""
        return difference_B * self.sd

    def normalised(self, prompts: Sequence[str], responses: Sequence[str]) -> "HfRewardModel":
        """Give the same model with these responses at mean 0 and standard deviation 1.

        Where all responses are alike the unit stays as it was.
        """
        raw_B = replace(self, mean=0.0, sd=1.0).score(prompts, responses).aggregate_B
        sd = float(raw_B.std()) if len(raw_B) > 1 else 0.0
        return replace(self, mean=float(raw_B.mean()), sd=sd if sd > 1e-6 else 1.0)

    def save(self, out_dir: Path) -> None:
        """Write an ordinary Hugging Face folder, and beside it the normalisation; same model, same bytes."""
        out_dir.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(out_dir)
        record = {"mean": self.mean, "sd": self.sd}
        (out_dir / RECORD_FILE).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
        copy_companions(self.folder, out_dir)

    def _encode(self, prompts: Sequence[str], responses: Sequence[str]) -> list[list[int]]:
        if not prompts:
            return []
        end = self.tokenizer.eos_token_id if self.tokenizer.eos_token_id is not None else self.tokenizer.sep_token_id
        asked = self.tokenizer(list(prompts), add_special_tokens=True)["input_ids"]
        said = self.tokenizer(list(responses), add_special_tokens=False)["input_ids"]
        rows = [[*a, *b, *([] if end is None else [end])] for a, b in zip(asked, said, strict=True)]
        longest, limit = max(map(len, rows)), getattr(self.model.config, "max_position_embeddings", None)
        if limit is not None and longest > limit:
            raise TooLongError(
                f"prompt and response take {longest} tokens, the reward model has {limit} positions; "
                "lower phase.max_response_tokens, or leave long prompts out"
            )
        return rows

    @torch.no_grad()
    def _outputs(self, rows: Sequence[list[int]]) -> Tensor:
        """Raw rewards of B rows; float32 [B]. Without a token to pad with, the model takes one at a time."""
        pad_id = self.model.config.get_text_config().pad_token_id
        size, device = _ROWS if pad_id is not None else 1, self.model.device
        chunks = []
        for at in range(0, len(rows), size):
            padded = pad(rows[at : at + size], pad_id or 0, "right")
            said = self.model(input_ids=padded.ids.to(device), attention_mask=padded.keep.long().to(device))
            chunks.append(said.logits.squeeze(-1).float())
        return torch.cat(chunks) if chunks else torch.zeros(0, device=device)


def load(path: Path | str, device: torch.device | str = "cpu") -> HfRewardModel:
    """Open the reward model in folder `path`, its weights in float32.

    Raises:
        ModelFolderError: if the folder does not hold a sequence classifier with one output, or if it needs code of its
            own.
    """
    folder = Path(path)
    require_one_output(folder)
    # A language model is refused here: it has no head to score with, which counts as weights that are missing.
    model, tokenizer = open_model(folder, AutoModelForSequenceClassification, "reward model")
    record = folder / RECORD_FILE
    try:
        normalisation = json.loads(record.read_text()) if record.is_file() else {}
    except (OSError, ValueError) as error:
        raise ModelFolderError(f"{folder} does not open as a reward model: {error}") from error
    config = model.config.get_text_config()
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id
    return HfRewardModel(model.to(device).eval(), tokenizer, folder, **normalisation)


def require_one_output(folder: Path) -> None:
    """Look at the configuration alone.

    Raises:
        ModelFolderError: the folder holds no model, or one that does not give one number a text.
    """
    require_files(folder)
    try:
        outputs = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False).num_labels
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelFolderError(f"{folder} does not open as a reward model: {error}") from error
    if outputs != 1:
        raise ModelFolderError(
            f"{folder} has {outputs} outputs, a reward model has one; give a sequence classifier with num_labels 1"
        )
