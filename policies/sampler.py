"""Sampling responses: temperature 1 over the whole vocabulary, with the log-probabilities of what was drawn.

Nothing trims or sharpens the distribution: what is trained, and what the gate judges, is the policy itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from policies.batch import TokenBatch, pad, positions_BL
from policies.language_model import LanguageModel


@dataclass(frozen=True, slots=True)
class Samples:
    """Responses to prompts: each prompt's K samples stand next to one another, B = prompts · K."""

    prompts: tuple[str, ...]
    """B texts."""
    responses: tuple[str, ...]
    """B texts, special tokens left out."""
    batch: TokenBatch
    logp_BT: Tensor
    """Log-probability of each token under the policy that drew it; nats, float32, 0 where padded."""
    ended_B: Tensor
    """bool; True = ended by itself, False = cut off at the limit."""


@torch.no_grad()
def sample(
    policy: LanguageModel,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    generator: torch.Generator,
    samples_per_prompt: int = 1,
) -> Samples:
    """Draw `samples_per_prompt` responses to each prompt, in one batch.

    Every sequence draws its numbers in advance, so neither the length of its neighbours nor the moment at which
    the batch is done changes what the generator gives next.
    """
    encoded = pad(policy.encode_prompts(prompts), policy.pad_id, "left")
    keep_GP = encoded.keep.to(policy.device)
    padded = not bool(keep_GP.all())
    rows = len(prompts) * samples_per_prompt
    uniform_BT = torch.rand(rows, max_new_tokens, generator=generator, device=generator.device, dtype=torch.float64)
    uniform_BT = uniform_BT.to(policy.device)

    cache = DynamicCache(config=policy.model.config)
    keep_BL = keep_GP.repeat_interleave(samples_per_prompt, dim=0)
    position_B1 = keep_BL.sum(dim=1, keepdim=True)  # where the first response token stands
    prefill = {"attention_mask": keep_GP.long(), "position_ids": positions_BL(keep_GP)} if padded else {}
    logits_BV = policy.model(
        input_ids=encoded.ids.to(policy.device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
        **prefill,
    ).logits[:, -1]
    logits_BV = logits_BV.repeat_interleave(samples_per_prompt, dim=0)
    cache.batch_repeat_interleave(samples_per_prompt)

    tokens, logps, keeps = [], [], []
    running_B = torch.ones(rows, dtype=torch.bool, device=policy.device)
    for t in range(max_new_tokens):
        logp_BV = torch.log_softmax(logits_BV.float(), dim=-1)
        token_B = draw(logp_BV, uniform_BT[:, t])
        keeps.append(running_B)
        logps.append(logp_BV.gather(-1, token_B.unsqueeze(-1)).squeeze(-1).masked_fill(~running_B, 0.0))
        tokens.append(token_B.masked_fill(~running_B, policy.pad_id))
        running_B = running_B & (token_B != policy.eos_id)
        if t + 1 == max_new_tokens or not bool(running_B.any()):
            break
        arguments = {}
        if padded:
            keep_BL = torch.cat([keep_BL, keeps[-1].unsqueeze(1)], dim=1)
            arguments = {"attention_mask": keep_BL.long(), "position_ids": position_B1 + t}
        logits_BV = policy.model(
            input_ids=tokens[-1].unsqueeze(1), past_key_values=cache, use_cache=True, **arguments
        ).logits[:, -1]

    ids_BT, keep_BT = torch.stack(tokens, dim=1), torch.stack(keeps, dim=1)
    batch = TokenBatch(
        encoded.ids.to(policy.device),
        keep_GP,
        ids_BT,
        keep_BT,
    )
    texts = policy.decode([ids[: int(length)] for ids, length in zip(ids_BT.tolist(), keep_BT.sum(dim=1), strict=True)])
    repeated = tuple(prompt for prompt in prompts for _ in range(samples_per_prompt))
    return Samples(repeated, tuple(texts), batch, torch.stack(logps, dim=1), ~running_B)


def draw(logp_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """Pick one token a row by inverting the cumulative distribution at `uniform_B` in [0, 1); int64 [B].

    Summed in float64, since a vocabulary of 100,000 small float32 terms would lose the tail.
    """
    cumulative_BV = logp_BV.double().exp().cumsum(dim=-1)
    # The total is 1 up to rounding; scaling by it makes the last token's share exact instead of overshooting.
    threshold_B1 = (uniform_B * cumulative_BV[:, -1]).unsqueeze(-1)
    token_B = torch.searchsorted(cumulative_BV, threshold_B1, right=True).squeeze(-1)
    return token_B.clamp(max=logp_BV.shape[-1] - 1)
