"""What models say of responses, without gradient: log-probabilities, entropies and the distance between two models."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from policies import kl, objectives
from policies.batch import TokenBatch
from policies.errors import NonFiniteError
from policies.language_model import LanguageModel
from policies.phase_records import KLReport


def parts(batch: TokenBatch, prompts_per_pass: int | None) -> Iterator[tuple[slice, slice, TokenBatch]]:
    """Cut a batch between prompts: the rows of each part, its kept tokens among the batch's N, and the part."""
    prompts, each = len(batch.prompt_ids_GP), batch.samples_per_prompt
    token = 0
    for begin in range(0, prompts, prompts_per_pass or prompts):
        end = min(begin + (prompts_per_pass or prompts), prompts)
        part = batch.prompts_between(begin, end)
        tokens = part.tokens
        yield slice(begin * each, end * each), slice(token, token + tokens), part
        token += tokens


@dataclass(frozen=True, slots=True)
class Reference:
    """What a frozen model says of a batch."""

    logp_BT: Tensor
    """Of the tokens themselves, 0 where padded."""
    logp_NV: Tensor | None
    """Of the whole vocabulary at each token; None where that is too large to keep."""


@torch.no_grad()
def refer(model: LanguageModel, batch: TokenBatch, prompts_per_pass: int | None) -> Reference:
    """Ask a frozen model once for all that training on the batch will need of it."""
    tokens, kept = [], []
    affordable = True
    for _, _, part in parts(batch, prompts_per_pass):
        logp_NV = torch.log_softmax(model.outputs(part).logits_NV, dim=-1)
        tokens.append(picked(logp_NV, part.response_ids_N))
        affordable = affordable and batch.tokens * logp_NV.shape[-1] <= kl.EXACT_LIMIT
        if affordable:
            kept.append(logp_NV)
    return Reference(batch.spread(torch.cat(tokens)), torch.cat(kept) if affordable else None)


def picked(logp_NV: Tensor, ids_N: Tensor) -> Tensor:
    """Take each token's own log-probability; [N]."""
    return logp_NV.gather(-1, ids_N.unsqueeze(-1)).squeeze(-1)


@dataclass(frozen=True, slots=True)
class Distance:
    """From the model that drew a batch to another."""

    kl_nats: float
    """Mean sequence KL."""
    log_ratio_N: Tensor
    """Of each token."""
    entropy_nats: float
    """A token's, of the model that drew."""
    exact: bool


@torch.no_grad()
def distance(model: LanguageModel, other: LanguageModel, batch: TokenBatch, prompts_per_pass: int | None) -> Distance:
    """Measure KL(model || other) on responses that `model` drew.

    Raises:
        NonFiniteError: if it is NaN or infinite.
    """
    log_ratios, entropies, totals = [], [], []
    exact = True
    for _, _, part in parts(batch, prompts_per_pass):
        logp_NV = torch.log_softmax(model.outputs(part).logits_NV, dim=-1)
        other_NV = torch.log_softmax(other.outputs(part).logits_NV, dim=-1)
        logp_N, other_N = picked(logp_NV, part.response_ids_N), picked(other_NV, part.response_ids_N)
        exact = exact and logp_NV.numel() <= kl.EXACT_LIMIT
        totals.append((kl.exact(logp_NV, other_NV) if exact else kl.k3_tokens(logp_N, other_N)).sum())
        log_ratios.append(kl.k1_tokens(logp_N, other_N))
        entropies.append(objectives.entropy(logp_NV))
    total = torch.stack(totals).sum()
    require_finite(total, "a distance between two policies")
    return Distance(
        kl_nats=float(total) / len(batch.response_ids_BT),
        log_ratio_N=torch.cat(log_ratios),
        entropy_nats=float(torch.cat(entropies).mean()),
        exact=exact,
    )


def kl_report(
    policy: LanguageModel,
    reference: LanguageModel,
    base: LanguageModel | None,
    *,
    drawn: TokenBatch,
    drawn_by_reference: TokenBatch,
    drawn_by_base: TokenBatch | None,
    prompts_per_pass: int | None = None,
) -> KLReport:
    """Measure a candidate both ways, on fresh responses of all models involved to the same prompts.

    `base` and `drawn_by_base` are given together or not at all.
    """
    reverse = distance(policy, reference, drawn, prompts_per_pass)
    ways = [reverse, distance(reference, policy, drawn_by_reference, prompts_per_pass)]
    base_ways: list[Distance] = []
    if base is not None and drawn_by_base is not None:
        base_ways = [
            distance(policy, base, drawn, prompts_per_pass),
            distance(base, policy, drawn_by_base, prompts_per_pass),
        ]
    reverse_base, forward_base = (way.kl_nats for way in base_ways) if base_ways else (None, None)
    return KLReport(
        reverse_reference_nats=reverse.kl_nats,
        forward_reference_nats=ways[1].kl_nats,
        reverse_base_nats=reverse_base,
        forward_base_nats=forward_base,
        largest_token_log_ratio_nats=float(reverse.log_ratio_N.max()),
        high_token_log_ratio_nats=float(reverse.log_ratio_N.double().quantile(0.999)),
        entropy_nats=reverse.entropy_nats,
        exact=all(way.exact for way in ways + base_ways),
    )


def require_finite(tensor: Tensor, what: str) -> None:
    """Raise NonFiniteError, which names `what`, if a number is NaN or infinite."""
    if not bool(tensor.isfinite().all()):
        raise NonFiniteError(f"{what} is not finite; the phase failed. Lower phase.learning_rate and try again")
