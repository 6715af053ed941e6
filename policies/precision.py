"""What numbers the products of a language model's passes are computed in.

Weights, optimizer, softmax, norms, log-probabilities and losses are float32 whatever is chosen here.
"""

from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Final

import torch

from policies.errors import PrecisionError

_CPU_CAPABILITIES: Final = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""Instructions that multiply bfloat16, as `torch.cpu.get_capabilities` calls them."""


class Precision(StrEnum):
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    """Factors and results rounded to 8 significant bits, sums in float32."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the factors."""
        return torch.bfloat16 if self is Precision.BFLOAT16 else torch.float32


def module_precision(precision: Precision, device: torch.device) -> AbstractContextManager[None]:
    """Let a model's own forward pass compute in `precision`: torch's autocast, whose rules say what stays float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision is Precision.BFLOAT16)


def require_supported(precision: Precision, device: torch.device | str) -> None:
    """Refuse a precision that `device` has no instructions for: emulated, it would be slower than float32.

    Raises:
        PrecisionError: naming the setting.
    """
    if precision is Precision.FLOAT32:
        return
    if torch.device(device).type == "cuda":
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # A torch too old to be asked counts as a processor without.
        found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        supported = any(found.get(name) for name in _CPU_CAPABILITIES)
    if not supported:
        raise PrecisionError(
            f"phase.precision: {precision} needs hardware that multiplies bfloat16, and device {device} has none "
            "that torch knows of; use float32"
        )
