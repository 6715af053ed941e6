"""Padding and gathering: from lists of token ids to rectangles, and back.

Axes, everywhere in `policies`: B sequences, G groups (prompts), K samples of one prompt, M members, P prompt
tokens, T response tokens, L = P + T, V vocabulary. In every mask True means: counted.

Prompts are padded on the left and responses on the right, so that each response begins in one column.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Padded:
    """Token sequences of unequal length in one rectangle."""

    ids: Tensor
    """int64 [rows, columns]."""
    keep: Tensor
    """bool [rows, columns]; True = a token, False = padding."""


def pad(sequences: Sequence[Sequence[int]], pad_id: int, side: Literal["left", "right"]) -> Padded:
    """Fill sequences up to the longest of them, which may be empty."""
    width = max((len(sequence) for sequence in sequences), default=0)
    fill = [[pad_id] * (width - len(sequence)) for sequence in sequences]
    if side == "left":
        rows = [[*gap, *sequence] for gap, sequence in zip(fill, sequences, strict=True)]
    else:
        rows = [[*sequence, *gap] for gap, sequence in zip(fill, sequences, strict=True)]
    lengths = torch.tensor([len(sequence) for sequence in sequences]).unsqueeze(1)
    column = torch.arange(width)
    keep = column >= width - lengths if side == "left" else column < lengths
    return Padded(torch.tensor(rows, dtype=torch.int64).reshape(len(sequences), width), keep)


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Prompts with responses, as tokens: what a policy is trained on and asked about."""

    prompt_ids_BP: Tensor
    """int64, padded on the left."""
    prompt_keep_BP: Tensor
    """bool."""
    response_ids_BT: Tensor
    """int64, padded on the right; the end-of-sequence token, where there is one, belongs to the response."""
    response_keep_BT: Tensor
    """bool."""

    @property
    def ids_BL(self) -> Tensor:
        """Prompts and responses side by side; int64."""
        return torch.cat([self.prompt_ids_BP, self.response_ids_BT], dim=1)

    @property
    def keep_BL(self) -> Tensor:
        """Where `ids_BL` holds tokens; bool."""
        return torch.cat([self.prompt_keep_BP, self.response_keep_BT], dim=1)

    @property
    def tokens(self) -> int:
        """Count the response tokens."""
        return int(self.response_keep_BT.sum())


def positions_BL(keep_BL: Tensor) -> Tensor:
    """Number the kept tokens of each row from 0; int64. Padding gets some valid number."""
    return (keep_BL.cumsum(dim=1) - 1).clamp(min=0)


def masked_mean(values: Tensor, keep: Tensor) -> Tensor:
    """Mean of the kept values; scalar.

    Raises:
        ValueError: if none is kept.
    """
    if not bool(keep.any()):
        raise ValueError("nothing is kept, so there is no mean")
    return values[keep].mean()
