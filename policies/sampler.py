"""Sampling responses: temperature 1 over the whole vocabulary, with the log-probabilities of what was drawn.

Nothing trims or sharpens the distribution: what is trained, and what the gate judges, is the policy itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from policies.batch import TokenBatch, pad
from policies.decoder import decoder
from policies.language_model import LanguageModel

_CROWDED = 0.75
"""Rows that have ended are dropped once no more than this share of the decoded rows still runs: dropping copies the
cache, and is not worth it for a row or two."""


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

    Raises:
        TooLongError: if the longest prompt leaves too few of the model's positions for `max_new_tokens`.
    """
    encoded = pad(policy.encode_prompts(prompts), policy.pad_id, "left")
    # One more than is drawn: reward models read a response that was cut off with its end.
    policy.require_room(encoded.ids.shape[1] + max_new_tokens + 1)
    ids_GP, keep_GP = encoded.ids.to(policy.device), encoded.keep.to(policy.device)
    rows = len(prompts) * samples_per_prompt
    uniform_BT = torch.rand(rows, max_new_tokens, generator=generator, device=generator.device, dtype=torch.float64)
    uniform_BT = uniform_BT.to(policy.device)

    ids_BT = torch.full((rows, max_new_tokens), policy.pad_id, device=policy.device)
    logp_BT = torch.zeros(rows, max_new_tokens, device=policy.device)
    length_B = torch.full((rows,), max_new_tokens, device=policy.device)
    decoding = decoder(policy.model, ids_GP, keep_GP, samples_per_prompt, max_new_tokens, policy.precision)
    logits_RV = decoding.first()
    row_R = torch.arange(rows, device=policy.device)  # the row of the batch that each decoded row is
    ended_R = torch.zeros(rows, dtype=torch.bool, device=policy.device)
    columns = 0
    while True:
        logp_RV = torch.log_softmax(logits_RV, dim=-1)
        token_R = draw(logp_RV, uniform_BT[row_R, columns])
        ids_BT[row_R, columns] = token_R.masked_fill(ended_R, policy.pad_id)
        logp_BT[row_R, columns] = logp_RV.gather(-1, token_R.unsqueeze(-1)).squeeze(-1).masked_fill(ended_R, 0.0)
        columns += 1
        ends_R = (token_R == policy.eos_id) & ~ended_R
        length_B[row_R[ends_R]] = columns
        ended_R |= ends_R
        running = len(row_R) - int(ended_R.sum())
        if columns == max_new_tokens or not running:
            break
        if running <= _CROWDED * len(row_R):
            index_R = (~ended_R).nonzero().squeeze(1)
            decoding.keep(index_R)
            row_R, token_R, ended_R = row_R[index_R], token_R[index_R], ended_R[index_R]
        logits_RV = decoding.after(token_R)

    ids_BT, logp_BT = ids_BT[:, :columns], logp_BT[:, :columns]
    keep_BT = torch.arange(columns, device=policy.device) < length_B.unsqueeze(1)
    ended_B = ids_BT.gather(1, length_B.unsqueeze(1) - 1).squeeze(1) == policy.eos_id
    texts = policy.decode([ids[:length] for ids, length in zip(ids_BT.tolist(), length_B.tolist(), strict=True)])
    repeated = tuple(prompt for prompt in prompts for _ in range(samples_per_prompt))
    return Samples(repeated, tuple(texts), TokenBatch(ids_GP, keep_GP, ids_BT, keep_BT), logp_BT, ended_B)


def draw(logp_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """Pick one token a row by inverting the cumulative distribution at `uniform_B` in [0, 1); int64 [B].

    Summed in float64, since a vocabulary of 100,000 small float32 terms would lose the tail.
    """
    cumulative_BV = logp_BV.exp().cumsum(dim=-1, dtype=torch.float64)
    # The total is 1 up to rounding; scaling by it makes the last token's share exact instead of overshooting.
    threshold_B1 = (uniform_B * cumulative_BV[:, -1]).unsqueeze(-1)
    token_B = torch.searchsorted(cumulative_BV, threshold_B1, right=True).squeeze(-1)
    return token_B.clamp(max=logp_BV.shape[-1] - 1)
