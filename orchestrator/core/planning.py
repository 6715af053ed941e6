"""What a gate costs and how often it errs, before any label is bought: imagined candidates put to the gate's own code.

A world (`orchestrator.core.worlds`) draws a whole queue of labels; `orchestrator.core.questions` settles it as in a
campaign, after every label; budgets are spent as `orchestrator.core.budget` says. Only the labels are imagined: they
are independent, none is skipped, and the rates do not drift while they are given.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import special

from orchestrator.core.budget import attempt_alpha
from orchestrator.core.nulls import IMPROVEMENT, OVER_PROMISES, asked_of
from orchestrator.core.questions import HOLD_MARGIN, Panel, settle, walk
from orchestrator.core.records import Purpose, Verdict
from orchestrator.core.settings import GateSettings
from orchestrator.core.worlds import ImpossibleWorldError, Predictions, World, gate_world, over_confident_world

GATE_TESTS: Final = asked_of(Purpose.GATE)
"""Of the queue of candidate against approved."""
WANTED_POWER: Final = 0.80
MOST_LABELS: Final = 6400
"""Where the search for an affordable gate ends."""
WIN_RATE_STEP: Final = 0.0025
LABELS_STEP: Final = 1.05
_ROUNDING: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Truth:
    """What is true of one candidate. A queue whose rates are None is not asked."""

    gate: World
    direction: World | None = None
    """Best against worst of the candidate's own samples."""
    wrong_reward: float | None = None
    """Share of the reward paid on the way that went to wrong behaviour."""
    creep_win_rate: float | None = None
    """Against the base, the older of the two anchors."""
    audit_excess: float | None = None
    """How much more the raters favour the candidate than a better evaluator does; asked where the audit has a limit."""

    def __post_init__(self) -> None:
        for name, share in (("wrong reward", self.wrong_reward), ("creep win rate", self.creep_win_rate)):
            if share is not None and not 0 <= share <= 1:
                raise ImpossibleWorldError(f"a {name} of {share:g} cannot be; give one from 0 to 1")
        if self.audit_excess is not None and not self.gate.win_rate - 1 <= self.audit_excess <= self.gate.win_rate:
            raise ImpossibleWorldError(
                f"raters who let the candidate win {self.gate.win_rate:g} cannot favour it by {self.audit_excess:+g}; "
                "bring the audit's excess nearer to 0"
            )

    def true_nulls(self, settings: GateSettings, *, hold: bool = False) -> tuple[str, ...]:
        """The tests that ought not to pass, by name."""
        even = 0.5 - HOLD_MARGIN if hold else 0.5
        limit = settings.over_promise_limit
        found = {
            IMPROVEMENT: self.gate.win_rate <= even + _ROUNDING,
            OVER_PROMISES[0]: self.gate.over_promise >= limit - _ROUNDING,
            OVER_PROMISES[1]: self.gate.top_half_over_promise >= limit - _ROUNDING,
        }
        if self.direction is not None and settings.direction is not None:
            most = settings.direction.over_promise_limit
            found["direction"] = self.direction.win_rate <= 0.5 + _ROUNDING
            found["direction_over_promise"] = self.direction.over_promise >= most - _ROUNDING
        if self.wrong_reward is not None and settings.path is not None:
            found["wrong_reward"] = self.wrong_reward >= settings.path.wrong_reward_limit - _ROUNDING
        if self.creep_win_rate is not None and settings.creep is not None:
            found["creep_base"] = self.creep_win_rate <= even + _ROUNDING
        if self.audit_excess is not None and settings.audit.limit is not None:
            found["audit"] = self.audit_excess >= settings.audit.limit - _ROUNDING
        return tuple(name for name, is_true in found.items() if is_true)


Candidates = Callable[[Generator, int, int], Truth]
"""The truth about the candidate of a stage and attempt."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a lineage is gated."""

    settings: GateSettings
    alpha: float
    """For all stages together."""
    stages: int = 1
    attempts: int = 1
    hold: bool = False
    tests: frozenset[str] = frozenset(GATE_TESTS)
    """Those of the first queue that are asked; fewer than all only to study them one by one."""
    press_on: bool = False
    """Begin the next stage even where the last one's attempts are used up. No campaign does; it shows what the whole
    budget could do."""

    def true_nulls(self, truth: Truth) -> tuple[str, ...]:
        """The tests asked that ought not to pass."""
        found = truth.true_nulls(self.settings, hold=self.hold)
        return tuple(name for name in found if name not in GATE_TESTS or name in self.tests)


@dataclass(frozen=True, slots=True)
class Attempted:
    """One candidate before the gate."""

    stage: int
    attempt: int
    alpha: float
    passed: bool
    labels: int
    """Of raters, until it was settled, over all queues; an audit's own come on top."""
    refused_by: Purpose | None
    true_nulls: tuple[str, ...]

    @property
    def wrong(self) -> bool:
        """Whether something passed that ought not to."""
        return self.passed and bool(self.true_nulls)


@dataclass(frozen=True, slots=True)
class Lineage:
    """One simulated campaign, as far as its gates go."""

    attempts: tuple[Attempted, ...]

    @property
    def advances(self) -> int:
        return sum(attempted.passed for attempted in self.attempts)

    @property
    def labels(self) -> int:
        return sum(attempted.labels for attempted in self.attempts)

    @property
    def wrong(self) -> bool:
        return any(attempted.wrong for attempted in self.attempts)


def simulate(candidates: Candidates, plan: Plan, rng: Generator) -> Lineage:
    """One campaign: a stage's attempts until one passes, then the next stage; a stage without a pass ends it."""
    done: list[Attempted] = []
    spent: list[float] = []
    for stage in range(plan.stages):
        alpha = attempt_alpha(plan.alpha, tuple(spent), stage=stage, stages=plan.stages, attempts=plan.attempts)
        for attempt in range(plan.attempts):
            spent.append(alpha)  # when the gate opens, whatever it says
            done.append(_attempted(candidates(rng, stage, attempt), plan, alpha, stage, attempt, rng))
            if done[-1].passed:
                break
        if not done[-1].passed and not plan.press_on:
            break
    return Lineage(tuple(done))


def always(truth: Truth) -> Candidates:
    return lambda rng, stage, attempt: truth


def lineages(candidates: Candidates, plan: Plan, *, trials: int, rng: Generator) -> Iterator[Lineage]:
    for _ in range(trials):
        yield simulate(candidates, plan, rng)


# --- figures ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Share:
    """A share of trials with its 95% interval by Clopper and Pearson (1934)."""

    count: int
    trials: int

    @property
    def value(self) -> float:
        return self.count / self.trials

    @property
    def low(self) -> float:
        return float(special.betaincinv(self.count, self.trials - self.count + 1, 0.025)) if self.count else 0.0

    @property
    def high(self) -> float:
        missed = self.trials - self.count
        return float(special.betaincinv(self.count + 1, missed, 0.975)) if missed else 1.0


@dataclass(frozen=True, slots=True)
class Power:
    """One attempt at one level, many times over."""

    needed_T: NDArray[np.float64]
    """Labels at which each trial passed; infinite where it did not."""
    spent_T: NDArray[np.float64]
    """Labels after which each trial was settled, one way or the other."""

    @property
    def passed(self) -> Share:
        return Share(int(np.isfinite(self.needed_T).sum()), len(self.needed_T))

    def needed(self, share: float) -> int | None:
        """Labels within which so large a share of all trials passed; None: fewer ever did."""
        labels = float(np.quantile(self.needed_T, share, method="inverted_cdf"))
        return int(labels) if math.isfinite(labels) else None


def power(truth: Truth, plan: Plan, *, trials: int, rng: Generator) -> Power:
    """The first attempt of a plan of one stage and one attempt, at the plan's whole alpha."""
    first = [_attempted(truth, plan, plan.alpha, 0, 0, rng) for _ in range(trials)]
    needed_T = np.array([attempted.labels if attempted.passed else np.inf for attempted in first])
    return Power(needed_T, np.array([float(attempted.labels) for attempted in first]))


@dataclass(frozen=True, slots=True)
class Outcome:
    """Many simulated campaigns in figures."""

    lineages: tuple[Lineage, ...]
    stages: int
    attempts: int

    @property
    def passed(self) -> Share:
        """Campaigns in which every stage advanced."""
        return self._share(lambda lineage: lineage.advances == self.stages)

    @property
    def wrong(self) -> Share:
        """Campaigns in which anything passed that ought not to."""
        return self._share(lambda lineage: lineage.wrong)

    def labels(self, share: float) -> int:
        """Labels that sufficed for so large a share of the campaigns, however they ended."""
        return int(np.quantile([lineage.labels for lineage in self.lineages], share, method="inverted_cdf"))

    def advanced_within(self, attempts: int) -> Share:
        """Of the stages begun, those that advanced within so many attempts."""
        begun = sum(attempted.attempt == 0 for attempted in self._all())
        return Share(sum(attempted.passed and attempted.attempt < attempts for attempted in self._all()), begun)

    def advanced_at(self, attempt: int) -> Share:
        """Of the stages begun, those that advanced with this attempt."""
        earlier = self.advanced_within(attempt)
        return Share(self.advanced_within(attempt + 1).count - earlier.count, earlier.trials)

    def labels_by_end(self) -> tuple[list[int], list[int]]:
        """Labels of each campaign that passed every stage, and of each that did not."""
        passed = [lineage.labels for lineage in self.lineages if lineage.advances == self.stages]
        failed = [lineage.labels for lineage in self.lineages if lineage.advances < self.stages]
        return passed, failed

    @property
    def labels_per_advance(self) -> float:
        """Infinite where nothing advanced."""
        advances = sum(lineage.advances for lineage in self.lineages)
        return sum(lineage.labels for lineage in self.lineages) / advances if advances else math.inf

    @property
    def labels_per_attempt(self) -> float:
        return sum(lineage.labels for lineage in self.lineages) / sum(1 for _ in self._all())

    def _all(self) -> Iterator[Attempted]:
        return (attempted for lineage in self.lineages for attempted in lineage.attempts)

    def _share(self, holds: Callable[[Lineage], bool]) -> Share:
        return Share(sum(holds(lineage) for lineage in self.lineages), len(self.lineages))


def summarise(lineages: Sequence[Lineage], plan: Plan) -> Outcome:
    return Outcome(tuple(lineages), plan.stages, plan.attempts)


# --- what to aim for --------------------------------------------------------------------------------------


def win_rate_needed(
    truth_at: Callable[[float], Truth], plan: Plan, *, highest: float, trials: int, seed: int
) -> float | None:
    """The smallest win rate that passes a first attempt with 80% probability, to within 0.0025.

    Args:
        truth_at: the candidate by its win rate, all else equal.
        highest: the largest win rate that `truth_at` takes.
        seed: of the same labels at every win rate.

    Returns:
        None: not even the highest does.
    """

    def suffices(win_rate: float) -> bool:
        found = power(truth_at(win_rate), plan, trials=trials, rng=np.random.default_rng(seed))
        return found.passed.value >= WANTED_POWER

    low = 0.5 - HOLD_MARGIN if plan.hold else 0.5
    high = math.floor(highest / WIN_RATE_STEP) * WIN_RATE_STEP
    if high <= low or not suffices(high):
        return None
    while high - low > 1.5 * WIN_RATE_STEP:
        middle = low + round((high - low) / 2 / WIN_RATE_STEP) * WIN_RATE_STEP
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return round(high, 4)


def max_labels_needed(truth: Truth, plan: Plan, *, trials: int, seed: int) -> int | None:
    """The smallest `max_labels`, to within 5%, at which a first attempt passes with 80% probability.

    Returns:
        None: more than 6,400, or than any number.
    """

    def suffices(max_labels: int) -> bool:
        capped = replace(plan, settings=with_max_labels(plan.settings, max_labels))
        found = power(truth, capped, trials=trials, rng=np.random.default_rng(seed))
        return found.passed.value >= WANTED_POWER

    if plan.true_nulls(truth):
        return None
    low, high = plan.settings.min_labels, max(plan.settings.max_labels, plan.settings.min_labels)
    while not suffices(high):
        low, high = high, 2 * high
        if high > MOST_LABELS:
            return None
    while high > LABELS_STEP * low:
        middle = round(math.sqrt(low * high))
        if middle in (low, high):
            break
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


def with_max_labels(settings: GateSettings, max_labels: int) -> GateSettings:
    """The same gate with another cap on its first queue."""
    audit = settings.audit.model_copy(update={"labels": min(settings.audit.labels, max_labels)})
    changed = {"max_labels": max_labels, "min_labels": min(settings.min_labels, max_labels), "audit": audit}
    return settings.model_copy(update=changed)


def steps_needed(steps: int, reached: float, wanted: float) -> int:
    """RL steps until the predicted win rate is `wanted`, where `steps` of them reached `reached`.

    Assumes that its log-odds grow in proportion to the steps.

    Raises:
        ImpossibleWorldError: the phase did not get above one half, so that nothing follows from it.
    """
    if not 0.5 < reached < 1:
        raise ImpossibleWorldError(
            f"a phase that reached a predicted win rate of {reached:g} tells nothing of longer ones; "
            "give one between 0.5 and 1"
        )
    return math.ceil(steps * float(special.logit(wanted)) / float(special.logit(reached)))


# --- candidates -------------------------------------------------------------------------------------------


def reference_candidates(rng: Generator, stage: int, attempt: int) -> Truth:
    """Plausible candidates: first attempts little better than even and over-promising, later ones trained on labels.

    Win rate ~ N(.52, .05) and over-promise ~ N(.12, .05) at a first attempt, N(.60, .06) and N(.04, .04) later; the
    reward model is informative and right on 65% of even comparisons.
    """
    win_rate = rng.normal(0.52, 0.05) if attempt == 0 else rng.normal(0.60, 0.06)
    over_promise = rng.normal(0.12, 0.05) if attempt == 0 else rng.normal(0.04, 0.04)
    return Truth(gate_world(float(win_rate), float(over_promise)))


def adversary(plan: Plan, rng: Generator) -> Candidates:
    """A campaign in which no candidate ought to pass: at every attempt another null is true, and hardly so.

    The others are false by far, so that nothing but the true one stands in the way. The order is drawn. Takes
    limits up to 0.4.
    """
    settings = plan.settings
    limit = settings.over_promise_limit
    high = min(0.8, 0.97 - limit)
    good = gate_world(0.85, -0.25)

    claimed = 0.7 + gate_world(0.7, 0.0, Predictions.UNINFORMATIVE).top_half_over_promise
    """Mean prediction in the top half, where it is .7 in all."""

    def only(
        gate: World = good, direction: World = good, wrong_reward: float = 0.1, creep_win_rate: float = 0.9
    ) -> Truth:
        return Truth(gate, direction, wrong_reward, creep_win_rate)

    kinds = [
        only(gate_world(0.5, -0.25)),
        only(gate_world(high, limit)),
        only(gate_world(claimed - limit, 0.7 - claimed + limit, Predictions.UNINFORMATIVE)),
        only(gate_world(0.5, None, Predictions.HALF)),
        only(over_confident_world(0.75, limit - 0.2, limit, 2.5)),
    ]
    if settings.direction is not None:
        kinds.append(only(direction=gate_world(0.5, -0.25)))
        kinds.append(only(direction=gate_world(high, settings.direction.over_promise_limit)))
    if settings.path is not None:
        kinds.append(only(wrong_reward=settings.path.wrong_reward_limit))
    if settings.creep is not None:
        kinds.append(only(creep_win_rate=0.5))
    order = rng.permutation(len(kinds))

    def candidate(rng: Generator, stage: int, attempt: int) -> Truth:
        return kinds[int(order[(stage * plan.attempts + attempt) % len(kinds)])]

    return candidate


# --- one attempt ------------------------------------------------------------------------------------------


def _attempted(truth: Truth, plan: Plan, alpha: float, stage: int, attempt: int, rng: Generator) -> Attempted:
    labels, first, refused_by = 0, 0, None
    for panel in _queues(truth, plan.settings, rng):
        settled = settle(panel, alpha=alpha, settings=plan.settings, hold=plan.hold)
        count, verdict = settled.labels, settled.verdict
        if panel.purpose is Purpose.GATE and len(plan.tests) < len(GATE_TESTS):
            asked = [question for question in settled.questions if question.name in plan.tests]
            count, verdict = walk(asked, settled.cap, settled.cap, min(plan.settings.min_labels, settled.cap))
        # An auditor looks at what the raters have judged: where it needs more, they judge on.
        labels += max(count - first, 0) if panel.purpose is Purpose.AUDIT else count
        first = count if panel.purpose is Purpose.GATE else first
        if verdict is not Verdict.ADVANCE:
            refused_by = panel.purpose
            break
    return Attempted(stage, attempt, alpha, refused_by is None, labels, refused_by, plan.true_nulls(truth))


def _queues(truth: Truth, settings: GateSettings, rng: Generator) -> Iterator[Panel]:
    """The sealed queues in the order in which they are asked, each labelled to its end."""
    drawn = truth.gate.draw(rng, settings.max_labels)
    yield _panel(Purpose.GATE, drawn.z_N, drawn.p_hat_N)
    if truth.direction is not None and settings.direction is not None:
        own = truth.direction.draw(rng, settings.direction.max_labels)
        yield _panel(Purpose.DIRECTION, own.z_N, own.p_hat_N)
    if truth.wrong_reward is not None and settings.path is not None:
        yield _panel(Purpose.PATH, rng.random(settings.path.max_labels) >= truth.wrong_reward)
    if truth.creep_win_rate is not None and settings.creep is not None:
        yield _panel(Purpose.CREEP_BASE, rng.random(settings.creep.max_labels) < truth.creep_win_rate)
    if truth.audit_excess is not None and settings.audit.limit is not None:
        said_N = drawn.z_N[: settings.audit.labels]
        yield _panel(Purpose.AUDIT, _overturned(said_N, truth, truth.audit_excess, rng), said_N)


def _overturned(said_N: NDArray[np.float64], truth: Truth, excess: float, rng: Generator) -> NDArray[np.float64]:
    """What a better evaluator says: E[said - that] = excess."""
    won = truth.gate.win_rate
    chance_N = rng.random(len(said_N))
    if excess >= 0:
        return np.where(chance_N < excess / won if excess else False, 0.0, said_N)
    return np.where(chance_N < -excess / (1 - won), 1.0, said_N)


def _panel(purpose: Purpose, z_N: NDArray[np.generic], promised_N: NDArray[np.float64] | None = None) -> Panel:
    promised = () if promised_N is None else promised_N.tolist()
    return Panel(purpose, len(z_N), z_N.astype(np.float64).tolist(), promised)
