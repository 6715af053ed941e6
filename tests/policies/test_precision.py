"""A precision is chosen, never guessed: hardware without it is refused by name."""

from pathlib import Path

import pytest
import torch

from policies import language_model
from policies.errors import PrecisionError
from policies.precision import Precision, require_supported


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False}, raising=False)


@pytest.mark.usefixtures("without")
def test_a_processor_without_bfloat16_is_refused_before_a_model_is_opened(tmp_path: Path) -> None:
    with pytest.raises(PrecisionError, match=r"^phase\.precision: bfloat16 needs hardware .* use float32$"):
        language_model.load(tmp_path / "absent", "cpu", Precision.BFLOAT16)


@pytest.mark.usefixtures("without")
def test_float32_runs_anywhere() -> None:
    require_supported(Precision.FLOAT32, "cpu")


@pytest.mark.parametrize("instructions", ["avx512_bf16", "amx_bf16"])
def test_a_processor_with_bfloat16_is_taken(instructions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instructions: True}, raising=False)
    require_supported(Precision.BFLOAT16, "cpu")
