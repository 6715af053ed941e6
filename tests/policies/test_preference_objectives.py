"""DPO and IPO against hand arithmetic, against TRL's code, and where each must end on a bandit."""

import math
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from policies import preference_objectives
from policies.preference_objectives import dpo, ipo


def test_the_margin_by_hand() -> None:
    # (-1 - -3) - (-4 - -5) = 2 - 1
    found = preference_objectives.margin(*(torch.tensor([x]) for x in (-1.0, -4.0, -3.0, -5.0)))
    assert found.tolist() == [1.0]


def test_dpo_by_hand_with_a_tie() -> None:
    # β·margin = ln 3 for all: P(first) = 3/4.
    margin_B = torch.full((3,), 2 * math.log(3.0))
    expected = -(math.log(0.75) + math.log(0.25) + (math.log(0.75) + math.log(0.25)) / 2) / 3
    assert dpo(margin_B, torch.tensor([1.0, 0.0, 0.5]), 0.5).item() == pytest.approx(expected, rel=1e-6)


def test_dpo_gradient_by_hand() -> None:
    margin_B = torch.tensor([2 * math.log(3.0), 0.0], requires_grad=True)
    dpo(margin_B, torch.tensor([0.0, 1.0]), 0.5).backward()
    # β·(p - target) / 2: ½·(¾ - 0) / 2 and ½·(½ - 1) / 2.
    assert margin_B.grad is not None
    assert margin_B.grad.tolist() == pytest.approx([0.1875, -0.125])


def test_ipo_by_hand_with_a_tie_and_a_split_vote() -> None:
    margin_B = torch.tensor([3.0, 3.0, 3.0, 3.0], requires_grad=True)
    # Margins asked for at β = ¼: 2, -2, 0, and 1 where three of four raters chose the first.
    loss = ipo(margin_B, torch.tensor([1.0, 0.0, 0.5, 0.75]), 0.25)
    assert loss.item() == pytest.approx((1 + 25 + 9 + 4) / 4)
    loss.backward()
    assert margin_B.grad is not None
    assert margin_B.grad.tolist() == pytest.approx([2 / 4, 10 / 4, 6 / 4, 4 / 4])


@pytest.mark.parametrize("loss", [dpo, ipo])
def test_two_sides_that_change_places_change_nothing(loss: Any) -> None:
    margin_B, target_B = torch.tensor([0.3, -1.2, 2.0]), torch.tensor([1.0, 0.5, 0.2])
    assert loss(margin_B, target_B, 0.3).item() == pytest.approx(loss(-margin_B, 1 - target_B, 0.3).item())


@pytest.mark.parametrize("loss", [dpo, ipo])
def test_a_tie_pulls_the_margin_to_zero(loss: Any) -> None:
    margin_B = torch.tensor([1.0, -1.0], requires_grad=True)
    loss(margin_B, torch.tensor([0.5, 0.5]), 0.3).backward()
    assert margin_B.grad is not None
    assert margin_B.grad[0] > 0 > margin_B.grad[1]


# TRL's code on the same tensors.


class _Accelerator:
    device = torch.device("cpu")

    def gather(self, tensor: Tensor) -> Tensor:
        return tensor

    gather_for_metrics = gather


def trl_loss(kind: str, logp_2BT: Tensor, ref_logp_2BT: Tensor, keep_2BT: Tensor, beta: float) -> Tensor:
    """What TRL's DPOTrainer computes where a model gives these token log-probabilities; chosen first, then rejected.

    TRL's masks have one more column, for the token that nothing predicts.
    """
    from trl import DPOTrainer

    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=_Accelerator(),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=[kind],
        loss_weights=[1.0],
        beta=beta,
        use_weighting=False,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    none = torch.zeros_like(logp_2BT)
    outputs = SimpleNamespace(log_probs=logp_2BT * keep_2BT, entropy=none, mean_logits=none, is_top1=none.bool())
    first = torch.zeros(len(keep_2BT), 1, dtype=torch.bool)
    ref_1_B, ref_2_B = (ref_logp_2BT * keep_2BT).sum(dim=1).chunk(2)
    inputs = {
        "input_ids": torch.zeros(keep_2BT.shape[0], keep_2BT.shape[1] + 1, dtype=torch.int64),
        "attention_mask": torch.cat([~first, keep_2BT], dim=1),
        "completion_mask": torch.cat([first, keep_2BT], dim=1).long(),
        "ref_chosen_logps": ref_1_B,
        "ref_rejected_logps": ref_2_B,
    }
    return DPOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, False)


def _tokens(seed: int, lengths: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(seed)
    keep_BT = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    shape = (len(lengths), max(lengths))
    logp_BT, ref_BT = (-3 * torch.rand(shape, generator=source, dtype=torch.float64) for _ in range(2))
    return logp_BT.requires_grad_(), ref_BT, keep_BT


def _margin(logp_2BT: Tensor, ref_2BT: Tensor, keep_2BT: Tensor) -> Tensor:
    return preference_objectives.margin(
        *(logp_2BT * keep_2BT).sum(dim=1).chunk(2), *(ref_2BT * keep_2BT).sum(dim=1).chunk(2)
    )


def _same(ours: Tensor, theirs: Tensor, logp_2BT: Tensor) -> None:
    """Equal value, and equal gradient for every token."""
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    assert torch.allclose(*(torch.autograd.grad(loss, logp_2BT)[0] for loss in (ours, theirs)), rtol=1e-12)


def test_dpo_is_trls() -> None:
    logp_2BT, ref_2BT, keep_2BT = _tokens(0, [3, 7, 1, 5, 2, 6])
    theirs = trl_loss("sigmoid", logp_2BT, ref_2BT, keep_2BT, beta=0.3)
    ours = dpo(_margin(logp_2BT, ref_2BT, keep_2BT), torch.ones(3, dtype=torch.float64), 0.3)
    _same(ours, theirs, logp_2BT)


def test_ipo_is_trls_where_length_does_not_matter() -> None:
    """TRL divides log-ratios by the response's length, the paper does not: single tokens are what both agree on."""
    logp_2BT, ref_2BT, keep_2BT = _tokens(1, [1] * 8)
    theirs = trl_loss("ipo", logp_2BT, ref_2BT, keep_2BT, beta=0.3)
    ours = ipo(_margin(logp_2BT, ref_2BT, keep_2BT), torch.ones(4, dtype=torch.float64), 0.3)
    _same(ours, theirs, logp_2BT)


def test_ipo_is_trls_up_to_scale_where_all_lengths_are_equal() -> None:
    """(h/n - 1/2β)² · n² = (h - 1/(2β/n))²."""
    logp_2BT, ref_2BT, keep_2BT = _tokens(2, [5] * 8)
    theirs = trl_loss("ipo", logp_2BT, ref_2BT, keep_2BT, beta=0.3) * 5**2
    ours = ipo(_margin(logp_2BT, ref_2BT, keep_2BT), torch.ones(4, dtype=torch.float64), 0.3 / 5)
    _same(ours, theirs, logp_2BT)


# A bandit of four responses, every ordered pair labelled as often as it would be drawn.

REFERENCE = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
REWARD = torch.tensor([0.0, 1.0, -1.0, 2.0], dtype=torch.float64)


def _all_pairs() -> tuple[Tensor, Tensor]:
    """First and second responses of all 12 ordered pairs."""
    return torch.tensor([(y, z) for y in range(4) for z in range(4) if y != z]).unbind(dim=1)


def _minimise(loss: Any) -> Tensor:
    """Descend to the bottom of `loss`, a function of the policy's log-probabilities; gives probabilities."""
    logits = REFERENCE.log().clone().requires_grad_()
    optimizer = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(logits.log_softmax(dim=0))
        value.backward()
        return value

    optimizer.step(closure)
    return logits.detach().softmax(dim=0)


def _bandit_margin(logp_4: Tensor) -> Tensor:
    first, second = _all_pairs()
    reference_4 = REFERENCE.log()
    return preference_objectives.margin(logp_4[first], logp_4[second], reference_4[first], reference_4[second])


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_dpo_ends_at_the_optimum_of_reward_less_kl(beta: float) -> None:
    """Labels of strength σ(r - r') are fitted exactly where β·h = r - r', that is at π ∝ π_ref·exp(r/β)."""
    first, second = _all_pairs()
    target_B = torch.sigmoid(REWARD[first] - REWARD[second])
    found = _minimise(lambda logp_4: dpo(_bandit_margin(logp_4), target_B, beta))
    expected = (REFERENCE.log() + REWARD / beta).softmax(dim=0)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize("beta", [0.2, 1.0])
def test_ipo_ends_at_its_own_optimum(beta: float) -> None:
    """π ∝ π_ref·exp(p(y ≻ μ)/β), with a preference that no reward explains (a circle).

    Write s(y) = log π(y)/π_ref(y), so h = s(y) - s(z), and draw y, z from μ. The loss Σ μ(y)μ(z)·(s(y) - s(z) -
    (2p(y ≻ z) - 1)/2β)² has its bottom where, for each y, Σ_z μ(z)·(s(y) - s(z) - (2p(y ≻ z) - 1)/2β) = 0: s(y) is a
    constant plus p(y ≻ μ)/β. Uniform μ here, so that the mean over all 16 pairs is the loss; y against itself is a
    tie and adds nothing to loss or gradient, which leaves 12.
    """
    wins = torch.full((4, 4), 0.5, dtype=torch.float64)
    for better, worse, share in [(0, 1, 0.9), (1, 2, 0.8), (2, 0, 0.7), (3, 0, 0.6), (3, 1, 0.55), (2, 3, 0.65)]:
        wins[better, worse], wins[worse, better] = share, 1 - share
    found = _minimise(lambda logp_4: ipo(_bandit_margin(logp_4), wins[_all_pairs()], beta))
    expected = (REFERENCE.log() + wins.mean(dim=1) / beta).softmax(dim=0)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_labels_of_one_mind_have_a_bottom_under_ipo_and_none_under_dpo() -> None:
    first, second = _all_pairs()
    target_B = (REWARD[first] > REWARD[second]).double()
    bounded = _minimise(lambda logp_4: ipo(_bandit_margin(logp_4), target_B, 1.0))
    # Wins against a uniform draw: response 3 all but itself, 1 the lower two, 0 the lowest.
    expected = (REFERENCE.log() + torch.tensor([1.5, 2.5, 0.5, 3.5], dtype=torch.float64) / 4).softmax(dim=0)
    assert bounded.tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    unbounded = _minimise(lambda logp_4: dpo(_bandit_margin(logp_4), target_B, 1.0))
    assert unbounded[3] > 0.99


# People's labels as the reward.


def test_label_advantages_by_hand() -> None:
    # Preferred, tied, beaten, and three raters of four; one side of the third and neither of the last was its own.
    target_N = torch.tensor([1.0, 0.5, 0.0, 0.75])
    own_N2 = torch.tensor([[True, True], [True, True], [False, True], [False, False]])
    # Shares less ½: ±½, 0 and 0, ½ for the second of the third. Mean square over the five own ones: ¾ / 5.
    unit = 0.5 / math.sqrt(0.75 / 5)
    expected = [[unit, -unit], [0.0, 0.0], [0.0, unit], [0.0, 0.0]]
    found = preference_objectives.label_advantage(target_N, own_N2)
    assert torch.allclose(found, torch.tensor(expected))


def test_labels_gain_by_hand() -> None:
    """Two comparisons of two tokens at most, every way that a clip can fall."""
    log_ratio_BT = torch.tensor([[0.0, 0.5], [0.5, 9.0], [-0.5, 0.0], [-0.5, 9.0]], requires_grad=True)
    keep_BT = torch.tensor([[True, True], [True, False], [True, True], [True, False]])
    loss = preference_objectives.labels(log_ratio_BT, torch.tensor([1.0, -1.0, 2.0, -2.0]), keep_BT, 0.2, 0.3)
    # 1 + clipped 1.3; -e^½ is the smaller; 2·e^-½ + 2; -2·0.8, clipped. Over two comparisons.
    gain = (1 + 1.3) - math.exp(0.5) + 2 * (math.exp(-0.5) + 1) - 2 * 0.8
    assert loss.total.item() == pytest.approx(-gain / 2, rel=1e-6)
    assert loss.clipped == pytest.approx(2 / 6)
    loss.total.backward()
    assert log_ratio_BT.grad is not None
    expected = [[-0.5, 0.0], [math.exp(0.5) / 2, 0.0], [-math.exp(-0.5), -1.0], [0.0, 0.0]]
    assert torch.allclose(log_ratio_BT.grad, torch.tensor(expected))


def _labels_loss(logp_4: Tensor, wins: Tensor) -> Tensor:
    """The labels' loss over all pairs that two draws from the reference make, each as often as it is drawn.

    The function means over its rows, so a row's advantage carries its share of the draws.
    """
    first, second = (at.flatten() for at in torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij"))
    advantage_N2 = preference_objectives.label_advantage(wins[first, second], torch.ones(16, 2, dtype=torch.bool))
    drawn_N1 = (REFERENCE[first] * REFERENCE[second]).unsqueeze(1)
    rows = torch.stack([first, second], dim=1).flatten()
    log_ratio_B1 = (logp_4 - REFERENCE.log())[rows].unsqueeze(1)
    keep_B1 = torch.ones_like(log_ratio_B1, dtype=torch.bool)
    return preference_objectives.labels(log_ratio_B1, (16 * drawn_N1 * advantage_N2).flatten(), keep_B1, 0.2, 0.3).total


def _wins() -> Tensor:
    return torch.sigmoid(REWARD.unsqueeze(1) - REWARD.unsqueeze(0))


def test_labels_first_step_climbs_the_win_rate() -> None:
    """At the start the gradient is, up to one factor, that of the win rate Σ π(y)·p(y ≻ π_start) over the logits.

    Which is π(y)·(p(y ≻ π_start) - ½) for logit y: the mean of p(y ≻ π_start) under π_start is ½.
    """
    logits_4 = REFERENCE.log().clone().requires_grad_()
    _labels_loss(logits_4.log_softmax(dim=0), _wins()).backward()
    assert logits_4.grad is not None
    climb_4 = REFERENCE * (_wins() @ REFERENCE - 0.5)
    found_4 = -logits_4.grad / logits_4.grad.norm()
    assert torch.allclose(found_4, climb_4 / climb_4.norm(), atol=1e-12)


def test_labels_end_at_their_own_optimum() -> None:
    """The clip makes it a linear program: maximise Σ π_start(y)·g(y) with 0 <= ρ, Σ π_start·ρ = 1, and g <= what both
    of min's arguments give, for the average of a response's advantages when it wins and when it loses.

    Deterministic labels without ties make it one advantage a pair: response y wins with weight p(y ≻ π_start), at
    +1, and loses with the rest, at -1, so g(y) = p⁺·min(ρ, 1.3) - p⁻·max(ρ, 0.8).
    """
    better = (REWARD.unsqueeze(1) > REWARD.unsqueeze(0)).double()
    wins = better + 0.5 * torch.eye(4, dtype=torch.float64)
    won_4, lost_4 = better @ REFERENCE, better.T @ REFERENCE
    # Variables ρ (4), u = min(ρ, 1.3) (4), v = max(ρ, 0.8) (4).
    weight = REFERENCE.numpy()
    cost = np.concatenate([np.zeros(4), -weight * won_4.numpy(), weight * lost_4.numpy()])
    eye, none = np.eye(4), np.zeros((4, 4))
    program = linprog(
        cost,
        A_ub=np.block([[-eye, eye, none], [eye, none, -eye]]),
        b_ub=np.zeros(8),
        A_eq=np.concatenate([weight, np.zeros(8)])[np.newaxis],
        b_eq=[1.0],
        bounds=[(0, None)] * 4 + [(None, 1.3)] * 4 + [(0.8, None)] * 4,
    )
    logits_4 = REFERENCE.log().clone().requires_grad_()
    optimizer = torch.optim.Adam([logits_4], lr=2e-2)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.996)
    for _ in range(1_500):
        optimizer.zero_grad()
        _labels_loss(logits_4.log_softmax(dim=0), wins).backward()
        optimizer.step()
        schedule.step()
    ratio_4 = (logits_4.detach().softmax(dim=0) / REFERENCE).numpy()
    reached = cost @ np.concatenate([ratio_4, np.minimum(ratio_4, 1.3), np.maximum(ratio_4, 0.8)])
    at_start = cost @ np.concatenate([np.ones(4), np.ones(4), np.ones(4)])
    # Within 1% of the way from the start to the optimum, whose value, unlike its place, is unique.
    assert reached == pytest.approx(program.fun, abs=0.01 * (at_start - program.fun))
    assert ratio_4.argmax() == 3
    assert ratio_4.argmin() == 2
