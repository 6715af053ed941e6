"""Losses and advantages equal to those of TRL's own code on the same tensors.

The trainers are not started: their loss methods run on bare objects that have the attributes which the methods read,
and whose forward pass gives our log-probabilities.
"""

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer
from trl.trainer.utils import nanstd

from policies import advantages, algorithms
from policies.algorithms import Lesson
from policies.phase_records import Algorithm, PhaseSettings

B, T, MAX_NEW_TOKENS, BETA = 12, 7, 9, 0.04


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(3)
    lengths_B1 = torch.randint(1, T + 1, (B, 1), generator=source)
    keep_BT = torch.arange(T) < lengths_B1
    logp_BT = -torch.rand(B, T, generator=source) * 3 * keep_BT
    near_BT = 0.3 * torch.randn(B, T, generator=source) * keep_BT
    ref_BT = 0.5 * torch.randn(B, T, generator=source) * keep_BT
    return {
        "keep": keep_BT,
        "logp": logp_BT,
        "drawn": logp_BT + near_BT,
        "ref": logp_BT + ref_BT,
        "advantage": torch.randn(B, generator=source),
    }


def theirs(trainer_class: Any, tensors: dict[str, Tensor], logp_BT: Tensor, **attributes: Any) -> Tensor:
    class Bare(trainer_class):  # type: ignore[misc]
        def __init__(self) -> None:
            self.model = SimpleNamespace(training=True)
            self.args = SimpleNamespace(use_bias_correction_kl=False, delta=None)
            self.accelerator = SimpleNamespace(
                gather=lambda x: x, gather_for_metrics=lambda x: x, reduce=lambda x, reduction: x
            )
            self._metrics = {"train": defaultdict(list)}
            self.aux_loss_enabled = False
            for name, value in attributes.items():
                setattr(self, name, value)

        def _get_per_token_logps_and_entropies(self, *_: Any, **__: Any) -> tuple[Tensor, Tensor, None]:
            return logp_BT, torch.zeros_like(logp_BT), None

    ids_BT = torch.zeros(B, T, dtype=torch.long)
    inputs = {
        "prompt_ids": ids_BT[:, :1],
        "prompt_mask": torch.ones_like(ids_BT[:, :1]),
        "completion_ids": ids_BT,
        "completion_mask": tensors["keep"].long(),
        "advantages": tensors["advantage"],
        "old_per_token_logps": tensors["drawn"],
        "ref_per_token_logps": tensors["ref"],
        "old_logps": (tensors["drawn"] * tensors["keep"]).sum(1),
    }
    return Bare()._compute_loss(None, inputs)


def ours(algorithm: Algorithm, tensors: dict[str, Tensor], logp_BT: Tensor) -> Tensor:
    settings = PhaseSettings(algorithm=algorithm, clip_low=0.2, clip_high=0.28)
    keep_BT = tensors["keep"]
    lesson = Lesson(keep_BT, tensors["drawn"], tensors["ref"], tensors["advantage"].unsqueeze(1) * keep_BT)
    share_BT = algorithms.shares(algorithm, keep_BT, MAX_NEW_TOKENS)
    return algorithms.loss(settings, lesson, share_BT, logp_BT, kl_coefficient=BETA).total


def compare(tensors: dict[str, Tensor], algorithm: Algorithm, trainer_class: Any, **attributes: Any) -> None:
    found_BT, expected_BT = (tensors["logp"].clone().requires_grad_() for _ in range(2))
    found = ours(algorithm, tensors, found_BT)
    expected = theirs(trainer_class, tensors, expected_BT, epsilon_low=0.2, epsilon_high=0.28, **attributes)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    found.backward()
    expected.backward()
    assert found_BT.grad is not None
    assert expected_BT.grad is not None
    assert float(found_BT.grad.abs().max()) > 1e-3
    assert torch.allclose(found_BT.grad, expected_BT.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("algorithm", "loss_type"), [(Algorithm.GRPO, "grpo"), (Algorithm.DR_GRPO, "dr_grpo")], ids=["grpo", "dr_grpo"]
)
def test_grpo(tensors: dict[str, Tensor], algorithm: Algorithm, loss_type: str) -> None:
    compare(
        tensors,
        algorithm,
        GRPOTrainer,
        loss_type=loss_type,
        beta=BETA,
        max_completion_length=MAX_NEW_TOKENS,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        use_vllm=False,
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
    )


def test_rloo(tensors: dict[str, Tensor]) -> None:
    compare(tensors, Algorithm.RLOO, RLOOTrainer)


def test_the_standard_deviation_of_a_group_is_theirs() -> None:
    reward_GK = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    expected_GK = (reward_GK - reward_GK.mean(dim=1, keepdim=True)) / (nanstd(reward_GK, dim=1).unsqueeze(1) + 1e-4)
    assert torch.allclose(advantages.group_standardised(reward_GK), expected_GK, rtol=1e-5)
