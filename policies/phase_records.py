"""What goes into a phase and what comes out of it: settings, records, and the named ways in which one ends.

Shared by all phase loops (`phase`, `preference_phase`) and by those who start them; nothing here acts.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from policies.errors import PolicyError
from policies.precision import Precision
from policies.reward_fit import Judgement


class Algorithm(StrEnum):
    """How a phase learns; formulas and sources stand in `algorithms` and `preference_phase`."""

    RLOO = "rloo"
    GRPO = "grpo"
    DR_GRPO = "dr_grpo"
    REINFORCE = "reinforce"
    PPO = "ppo"
    BEST_OF_N = "best_of_n"
    """Imitate the best of n responses of the policy that the phase started from."""
    EXPERT_ITERATION = "expert_iteration"
    """Imitate the best of n responses of the present policy."""
    DPO = "dpo"
    IPO = "ipo"
    LABELS = "labels"
    """People's labels are the reward; there is no reward model."""


class OptimizerStart(StrEnum):
    """What becomes of the optimizer's moments (and of PPO's value head) at the start of a phase."""

    RESET = "reset"
    """They start from zero."""
    RESTORE = "restore"
    """They are those that the starting checkpoint was written with, where it has any."""


class StoppedBy(StrEnum):
    """Why a phase ended with a candidate."""

    STEPS = "steps"
    """All steps were taken."""
    KL_BUDGET = "kl_budget"
    """The policy was as far from the reference as it may go."""
    PREDICTED_WIN_RATE = "predicted_win_rate"
    """The reward model expects people to prefer the policy to its start often enough to ask them."""
    REWARD_SPREAD = "reward_spread"
    """The reward model's members disagree more than they did at the start: the edge of what it knows."""


class PhaseFailure(StrEnum):
    """Why a phase ended without a candidate."""

    NON_FINITE = "non_finite"
    """A reward, loss, gradient or weight became NaN or infinite."""
    KL_EXPLOSION = "kl_explosion"
    """The mean sequence KL to the reference left the range in which the policy can still be the same one."""
    EMPTY_RESPONSES = "empty_responses"
    """More than half of the responses of a step had no text."""
    NO_SIGNAL = "no_signal"
    """In every group of a step all responses brought the same return, so there was nothing to learn from."""
    NOTHING_LEARNED = "nothing_learned"
    """The phase was over before its first gradient step; its candidate would have been its start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseSettings:
    """How one phase learns."""

    algorithm: Algorithm = Algorithm.RLOO
    steps: int = 40
    """Batches to learn from, at most."""
    prompts_per_step: int = 16
    samples_per_prompt: int = 8
    """K; for best_of_n and expert_iteration the n of which one is kept."""
    max_new_tokens: int = 24
    learning_rate: float = 3e-4
    max_grad_norm: float = 1.0
    optimizer: OptimizerStart = OptimizerStart.RESET
    kl_coefficient: float = 0.02
    """Reward units a nat of the sequence's log-ratio to the reference; for grpo and dr_grpo the weight of k3 in the
    loss. best_of_n and expert_iteration have none: n is their leash."""
    kl_target_nats: float | None = None
    """Sequence KL that the coefficient is steered for; None = a fixed coefficient."""
    kl_budget_nats: float | None = 4.0
    """Mean sequence KL to the reference at which the phase stops; None = no budget."""
    kl_explosion_nats: float = 100.0
    """Mean sequence KL to the reference at which the phase has failed."""
    missing_end_penalty: float = 1.0
    """Reward units that a response costs which was cut off at the limit."""
    updates_per_batch: int = 1
    """Passes over each batch; more than one makes the later ones off-policy, held by the clipped ratio."""
    minibatches: int = 1
    """Gradient steps a pass, each on its share of the prompts."""
    clip_low: float = 0.2
    """The ratio to the behaviour policy counts down to 1 - clip_low ..."""
    clip_high: float = 0.28
    """... and up to 1 + clip_high (DAPO, arXiv:2503.14476)."""
    prompts_per_pass: int | None = None
    """Prompts, with their samples, in one forward and backward; None = all. Changes memory and time,
    not the gradient: on a CPU a pass whose activations stay in the cache is the faster one."""
    precision: Precision = Precision.FLOAT32
    """What the products in the passes of policy, reference and base are computed in, sampling included. Weights,
    optimizer, attention, log-probabilities and losses are float32 either way, and so is the reward model."""
    gae_lambda: float = 0.95
    """PPO."""
    discount: float = 1.0
    """PPO, a token."""
    value_coefficient: float = 0.1
    """PPO: weight of the value loss."""
    stop_predicted_win_rate: float | None = None
    """Stop once the reward model expects this win rate against the policy at the start; None = never."""
    stop_spread_growth: float | None = None
    """Stop once the members' spread exceeds this many times that of step 0; None = never."""
    beta: float = 0.1
    """DPO and IPO: the price of a nat, in each one's own unit; the unit of every implicit reward."""
    label_epochs: int = 4
    """DPO, IPO and labels: passes over all labels."""
    label_batch_size: int = 32
    """DPO, IPO and labels: comparisons a gradient step."""

    def __post_init__(self) -> None:
        """Refuse what no batch could satisfy.

        Raises:
            ValueError: naming the setting.
        """
        needs_others = {
            Algorithm.RLOO,
            Algorithm.GRPO,
            Algorithm.DR_GRPO,
            Algorithm.BEST_OF_N,
            Algorithm.EXPERT_ITERATION,
        }
        if self.algorithm in needs_others and self.samples_per_prompt < 2:
            raise ValueError(f"{self.algorithm} compares the samples of a prompt: samples_per_prompt must be 2 or more")
        if not 1 <= self.minibatches <= self.prompts_per_step:
            raise ValueError(f"minibatches must lie between 1 and prompts_per_step, got {self.minibatches}")
        if self.updates_per_batch < 1:
            raise ValueError(f"updates_per_batch must be 1 or more, got {self.updates_per_batch}")


@dataclass(frozen=True, slots=True)
class Rollout:
    """One response that the phase drew to learn from or to be measured by, kept for those who may see gold."""

    step: int
    prompt: str
    response: str
    ended: bool
    reward: float
    """The reward model's, normalised; without fine and KL price."""
    kl_nats: float
    """Log-ratio of the policy that drew it to the reference, summed over the response; may be negative."""
    advantage: float
    """As it weighed the gradient: a mean over tokens where they differ (PPO); 1 or 0 where the best is imitated; 0 on a
    phase's last step, which is measured and not learned from."""
    own: bool = True
    """True = drawn by the policy that learns, at the weights of the step. Only best_of_n has others as well: the
    start's, from which it learns; its own responses then teach nothing, and their advantage is 0."""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step in numbers, all means over the policy's own responses, before the step's update."""

    step: int
    reward: float
    """The reward model's, normalised: 0 = the approved policy's mean, 1 = its standard deviation."""
    reward_spread: float | None
    """Mean over responses of the standard deviation over members, each in its raw unit; None where only one opinion
    was asked: of a single member, or of averaged weights."""
    return_: float
    """What is maximised: reward less fine and, where it is in the reward, KL price."""
    kl_nats: float
    """Sequence KL to the reference: exact over the vocabulary where that is affordable, else k3."""
    entropy_nats: float
    """A token's."""
    response_tokens: float
    ended_rate: float
    """Share of the responses that ended by themselves."""
    grad_norm: float | None
    """Before clipping, the largest of the step; None where no update followed."""
    kl_coefficient: float
    logp_gap: float
    """Largest difference between a token's log-probability when drawn and when trained on; nats."""
    kl_k1_nats: float | None = None
    """Mean sequence log-ratio to the reference; may be negative."""
    kl_k3_nats: float | None = None
    """Mean sequence k3."""
    empty_rate: float | None = None
    """Share of the responses without text."""
    clip_fraction: float | None = None
    """Share of the ratios that the clip took out of the gradient, over the step's updates; None without updates."""
    value_loss: float | None = None
    """PPO: half the mean squared error of the value head, over the step's updates."""
    predicted_win_rate: float | None = None
    """Against fresh responses of the start; None unless the phase may stop by it."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a phase used up, whatever came of it."""

    prompts: int = 0
    """Prompts used, repetitions counted."""
    samples: int = 0
    """Responses drawn, those for measuring included."""
    tokens: int = 0
    """Response tokens drawn."""
    gradient_steps: int = 0

    def drew(self, *, prompts: int, samples: int, tokens: int) -> "Spent":
        """Add a draw."""
        return Spent(self.prompts + prompts, self.samples + samples, self.tokens + tokens, self.gradient_steps)


class PhaseFailedError(PolicyError):
    """A phase failed in a named way: there is no candidate, but there are costs."""

    def __init__(self, message: str, failure: PhaseFailure, spent: Spent) -> None:
        super().__init__(message)
        self.failure = failure
        self.spent = spent

    def __reduce__(self) -> tuple[Any, ...]:
        """Survive the way between processes with everything on board."""
        return type(self), (str(self), self.failure, self.spent)


@dataclass(frozen=True, slots=True, kw_only=True)
class KLReport:
    """How far a candidate is from where it came from; sequence KL in nats, on fresh samples."""

    reverse_reference_nats: float
    """KL(candidate || reference), on the candidate's samples: the price of new mass."""
    forward_reference_nats: float
    """KL(reference || candidate), on the reference's samples: what was dropped."""
    reverse_base_nats: float | None
    """Likewise against the base; None where no base was given."""
    forward_base_nats: float | None
    largest_token_log_ratio_nats: float
    """Largest log candidate/reference over the tokens that the candidate drew."""
    high_token_log_ratio_nats: float
    """Its 99.9th percentile: means hide rare events."""
    entropy_nats: float
    """A token's."""
    exact: bool
    """True = summed over the vocabulary at each token; False = k3, since that was not affordable."""


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """A candidate and how it came about."""

    out_dir: Path
    steps: int
    """Gradient steps taken."""
    stopped_by: StoppedBy
    kl_nats: float
    """Sequence KL of the candidate to the reference, on fresh samples."""
    start_digest: str
    """sha256 of all that the phase started from; equal for all attempts from one checkpoint."""
    records: tuple[StepRecord, ...] = field(repr=False)
    """One for each step, and a last one for the candidate itself."""
    rollouts: tuple[Rollout, ...] = field(repr=False)
    spent: Spent
    kl: KLReport
    judgement: Judgement | None = None
    """Of the candidate's implicit reward, by labels that did not train it; its temperature is in units of β·log-ratio.
    None where a reward model took part."""
