"""A causal language model with its tokenizer: opened from a folder, asked for logits, written to a folder.

Works on any Hugging Face folder of a causal language model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from policies import transformer
from policies.batch import TokenBatch, pad, positions_BL
from policies.errors import ModelFolderError, TooLongError
from policies.model_folder import copy_companions, open_model
from policies.precision import Precision, module_precision, require_supported


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """A policy: weights, tokenizer, and the two tokens that mean something to the loop."""

    model: Any
    """A transformers `PreTrainedModel` with a language-modelling head, float32, in evaluation mode."""
    tokenizer: Any
    eos_id: int
    """Ends a response."""
    pad_id: int
    """Fills space and nothing else; never equal to eos_id. Masks are explicit, so no code reads it back."""
    precision: Precision = Precision.FLOAT32
    """What the products of its passes are computed in; the weights stay float32."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    def outputs(self, batch: TokenBatch, *, with_states: bool = False) -> "Outputs":
        """Give `response_outputs`, in this model's precision."""
        return response_outputs(self.model, batch, with_states=with_states, precision=self.precision)

    def encode_prompts(self, prompts: Sequence[str]) -> list[list[int]]:
        """Turn prompts into tokens, with whatever the tokenizer puts around a text (a start token, say)."""
        return self.tokenizer(list(prompts), add_special_tokens=True)["input_ids"]

    def encode_responses(self, responses: Sequence[str]) -> list[list[int]]:
        """Turn response texts into tokens, with the end-of-sequence token appended."""
        if not responses:
            return []
        encoded = self.tokenizer(list(responses), add_special_tokens=False)["input_ids"]
        return [[*ids, self.eos_id] for ids in encoded]

    def decode(self, response_ids: Sequence[Sequence[int]]) -> list[str]:
        """Turn response tokens into the text that people and reward models see, without special tokens."""
        return self.tokenizer.batch_decode([list(ids) for ids in response_ids], skip_special_tokens=True)

    def require_room(self, tokens: int) -> None:
        """Refuse a prompt and response of so many tokens together, if the model has too few positions for them.

        Raises:
            TooLongError: naming both numbers.
        """
        limit = getattr(self.model.config, "max_position_embeddings", None)
        if limit is not None and tokens > limit:
            raise TooLongError(
                f"prompt and response take {tokens} tokens, the model has {limit} positions; "
                "lower phase.max_response_tokens, or leave long prompts out"
            )

    def batch(self, prompts: Sequence[str], responses: Sequence[str]) -> TokenBatch:
        """Turn texts into a batch on the model's device; each response ends with the end-of-sequence token.

        Raises:
            TooLongError: if a prompt and its response take more tokens than the model has positions.
        """
        prompt_ids, response_ids = self.encode_prompts(prompts), self.encode_responses(responses)
        each = len(response_ids) // max(len(prompt_ids), 1)
        for row, ids in enumerate(response_ids):
            self.require_room(len(prompt_ids[row // each]) + len(ids))
        prompt = pad(prompt_ids, self.pad_id, "left")
        response = pad(response_ids, self.pad_id, "right")
        return TokenBatch(
            prompt.ids.to(self.device),
            prompt.keep.to(self.device),
            response.ids.to(self.device),
            response.keep.to(self.device),
        )


def load(
    path: Path | str, device: torch.device | str = "cpu", precision: Precision = Precision.FLOAT32
) -> LanguageModel:
    """Open the model in folder `path`, its weights in float32.

    Raises:
        PrecisionError: if `device` has no instructions for `precision`.
        ModelFolderError: if the folder lacks a configuration, a tokenizer or safetensors weights, if its weights do
            not fill the model, or if it needs code of its own.
    """
    require_supported(precision, device)
    folder = Path(path)
    model, tokenizer = open_model(folder, AutoModelForCausalLM, "causal language model")
    eos_id = tokenizer.eos_token_id
    if eos_id is None:
        raise ModelFolderError(f"{folder}: the tokenizer has no end-of-sequence token; set eos_token")
    return LanguageModel(model.to(device).eval(), tokenizer, eos_id, _pad_id(tokenizer, eos_id), precision)


def save(language_model: LanguageModel, out_dir: Path, *, like: Path | str) -> None:
    """Write the model as an ordinary Hugging Face folder; same weights, same bytes.

    Everything but configuration and weights is copied from folder `like`: a tokenizer that goes through
    `save_pretrained` changes its files a little each time, and digests would change with them.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    language_model.model.save_pretrained(out_dir)
    copy_companions(Path(like), out_dir)


def response_logits(model: Any, batch: TokenBatch) -> Tensor:
    """Logits that predicted each kept response token; float32 [N, V], row by row. Differentiable.

    Those of a row's token t are the model's after the prompt and the first t response tokens.
    `TokenBatch.spread` brings figures a token back to [B, T].
    """
    return response_outputs(model, batch).logits_NV


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a model says before each kept response token."""

    logits_NV: Tensor
    """float32."""
    states_ND: Tensor | None
    """float32; the final hidden states that the logits were made from. None unless asked for."""


def response_outputs(
    model: Any, batch: TokenBatch, *, with_states: bool = False, precision: Precision = Precision.FLOAT32
) -> Outputs:
    """As `response_logits`, on request with the states, for a value head to read. Differentiable."""
    if transformer.recognises(model):
        own_ND = transformer.states(model, transformer.Layout.of(batch), dtype=precision.dtype)
        logits_NV = transformer.linear(own_ND, model.lm_head.weight, precision.dtype)
        return Outputs(logits_NV, own_ND if with_states else None)
    width = batch.response_ids_BT.shape[1]
    with module_precision(precision, model.device):
        said = model(
            input_ids=batch.ids_BL[:, :-1],
            **position_arguments(batch.prompt_keep_GP, batch.keep_BL[:, :-1]),
            use_cache=False,
            logits_to_keep=width,
            output_hidden_states=with_states,
        )
    keep_BT = batch.response_keep_BT
    states_ND = said.hidden_states[-1][:, -width:][keep_BT].float() if with_states else None
    return Outputs(said.logits[keep_BT].float(), states_ND)


def token_logp(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probability of each token; nats, float32. logits [..., V], ids and result [...]."""
    return torch.log_softmax(logits, dim=-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)


def position_arguments(left_keep: Tensor, keep_BL: Tensor) -> dict[str, Tensor]:
    """Mask and positions for a forward pass, left out where the model's own defaults mean the same.

    Padding on the right needs neither: no earlier token sees it. Only padding on the left does, and a pass
    without a mask takes a faster attention kernel.
    """
    if bool(left_keep.all()):
        return {}
    return {"attention_mask": keep_BL.long(), "position_ids": positions_BL(keep_BL)}


def _pad_id(tokenizer: Any, eos_id: int) -> int:
    """The tokenizer's own pad token, or, where it has none or uses the end token, any other token."""
    pad_id = tokenizer.pad_token_id
    if pad_id is not None and pad_id != eos_id:
        return pad_id
    return 0 if eos_id != 0 else 1
