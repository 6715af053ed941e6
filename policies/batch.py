"""Padding and gathering: from lists of token ids to rectangles, and back.

Axes, everywhere in `policies`: B sequences, G groups (prompts), K samples of one prompt, M members, P prompt
tokens, T response tokens, L = P + T, N kept response tokens of a batch, row by row, D hidden size, V vocabulary.
In every mask True means: counted.

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
    """Prompts with K responses each, as tokens: what a policy is trained on and asked about."""

    prompt_ids_GP: Tensor
    """int64, padded on the left."""
    prompt_keep_GP: Tensor
    """bool."""
    response_ids_BT: Tensor
    """int64, B = G · K, padded on the right; a prompt's responses stand next to one another. The end-of-sequence
    token, where there is one, belongs to the response."""
    response_keep_BT: Tensor
    """bool."""

    @property
    def samples_per_prompt(self) -> int:
        """K."""
        return len(self.response_ids_BT) // max(len(self.prompt_ids_GP), 1)

    @property
    def ids_BL(self) -> Tensor:
        """Prompts and responses side by side; int64."""
        return torch.cat([self._each(self.prompt_ids_GP), self.response_ids_BT], dim=1)

    @property
    def keep_BL(self) -> Tensor:
        """Where `ids_BL` holds tokens; bool."""
        return torch.cat([self._each(self.prompt_keep_GP), self.response_keep_BT], dim=1)

    @property
    def response_ids_N(self) -> Tensor:
        """The kept response tokens, row by row; int64."""
        return self.response_ids_BT[self.response_keep_BT]

    @property
    def tokens(self) -> int:
        """Count the kept response tokens, N."""
        return int(self.response_keep_BT.sum())

    def spread(self, values_N: Tensor) -> Tensor:
        """Put a value for each kept response token back in its place; [B, T], 0 where padded. Differentiable."""
        return values_N.new_zeros(self.response_keep_BT.shape).masked_scatter(self.response_keep_BT, values_N)

    def prompts_between(self, begin: int, end: int) -> "TokenBatch":
        """Give the part of the batch that belongs to prompts `begin` to `end` - 1."""
        each = self.samples_per_prompt
        groups, rows = slice(begin, end), slice(begin * each, end * each)
        return TokenBatch(
            self.prompt_ids_GP[groups],
            self.prompt_keep_GP[groups],
            self.response_ids_BT[rows],
            self.response_keep_BT[rows],
        )

    def _each(self, prompt_GP: Tensor) -> Tensor:
        return prompt_GP.repeat_interleave(self.samples_per_prompt, dim=0)


def positions_BL(keep_BL: Tensor) -> Tensor:
    """Number the kept tokens of each row from 0; int64. Padding gets some valid number."""
    return (keep_BL.cumsum(dim=1) - 1).clamp(min=0)
