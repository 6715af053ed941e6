"""The gate over several queues, against a plain re-derivation of its rule, and what must never move its verdict."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import pytest
from fake_world import START
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from orchestrator.core.gate import GateVerdict, judge
from orchestrator.core.questions import Panel
from orchestrator.core.records import Choice, Label, Purpose, Verdict
from orchestrator.core.settings import GateSettings, Method
from orchestrator.core.state import Batch

ADVANCE, ROLLBACK, WAIT = Verdict.ADVANCE, Verdict.ROLLBACK, Verdict.WAIT
FURTHER: Final = (Purpose.DIRECTION, Purpose.PATH, Purpose.CREEP_BASE, Purpose.CREEP_OLDER, Purpose.AUDIT)
PROMISES: Final = (Purpose.GATE, Purpose.DIRECTION, Purpose.AUDIT)
"""Whose P is questioned; that of a path is one, whatever the reward model says."""


# --- the oracle: science.md, section 2, read aloud -----------------------------------------------------------


@dataclass(frozen=True)
class Null:
    """E[x] <= mean, for x in [worst, 1], over some places of a queue."""

    name: str
    mean: float
    worst: float
    x: Sequence[float]
    """Of every place labelled so far, asked or not."""
    z: Sequence[float]
    p: Sequence[float]
    asked: Sequence[bool]
    """Of the whole queue."""

    @property
    def cap(self) -> int:
        return sum(self.asked)

    def seen(self, n: int) -> list[int]:
        return [i for i in range(n) if self.asked[i]]


def nulls_of(panel: Panel, cap: int, rules: GateSettings, hold: bool) -> list[Null]:
    even = 0.47 if hold else 0.5
    outcomes = panel.outcomes[:cap]
    z = [0.0 if said is None else said for said in outcomes]
    whole = [True] * cap

    def wins(name: str, mean: float) -> Null:
        return Null(name, mean, 0.0, z, z, [0.0] * len(z), whole)

    def promises(name: str, limit: float, said: Sequence[float], asked: Sequence[bool] = whole) -> Null:
        p = [1.0 if outcome is None else said[i] for i, outcome in enumerate(outcomes)]
        return Null(name, -limit, -1.0, [z_i - p_i for z_i, p_i in zip(z, p, strict=True)], z, p, asked)

    match panel.purpose:
        case Purpose.GATE:
            if not panel.promised:
                return [wins("improvement", even)]
            boldest = sorted(range(cap), key=lambda i: (-panel.promised[i], i))[: (cap + 1) // 2]
            limit = rules.over_promise_limit
            return [
                wins("improvement", even),
                promises("over_promise", limit, panel.promised),
                promises("over_promise_top_half", limit, panel.promised, [i in boldest for i in range(cap)]),
            ]
        case Purpose.DIRECTION:
            assert rules.direction is not None
            limit = rules.direction.over_promise_limit
            return [wins("direction", 0.5), promises("direction_over_promise", limit, panel.promised)]
        case Purpose.PATH:
            assert rules.path is not None
            return [promises("wrong_reward", rules.path.wrong_reward_limit, [1.0] * cap)]
        case Purpose.CREEP_BASE | Purpose.CREEP_OLDER:
            return [wins(panel.purpose.value, even)]
        case Purpose.AUDIT:
            assert rules.audit.limit is not None
            return [promises("audit", rules.audit.limit, panel.promised)]
    raise AssertionError(panel.purpose)


PROMISED_ITEM_BY_ITEM = ("over_promise", "over_promise_top_half", "direction_over_promise", "audit")
"""What a bound on outcomes alone says nothing of: these are bets by every method."""


def refuted_by(null: Null, alpha: float, method: Method) -> bool:
    """Whether a whole queue, looked at once, refutes a null."""
    if null.name not in PROMISED_ITEM_BY_ITEM:
        return fixed_bound(null, alpha, method) > null.mean
    fortune = best = 1.0
    for i in null.seen(len(null.x)):
        stake = min(math.sqrt(13.3 * math.log(1 / alpha) / null.cap), 0.9 / (null.mean - null.worst))
        fortune *= 1 + stake * (null.x[i] - null.mean)
        best = max(best, fortune)
    return math.log(best) >= math.log(1 / alpha)


def fixed_bound(null: Null, alpha: float, method: Method) -> float:
    """Lower bound of the mean of x over a whole queue: Wilson's or Clopper and Pearson's of z, less the mean of p."""
    places = null.seen(len(null.x))
    n, won = len(places), sum(null.z[i] for i in places)
    promised = sum(null.p[i] for i in places) / n
    if method is Method.WILSON:
        share, z = won / n, stats.norm.ppf(1 - alpha)
        middle, spread = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        return float((middle - spread) / (1 + z * z / n)) - promised
    wins = sum(null.z[i] == 1.0 for i in places)
    # The smallest share that does not make so many wins rarer than alpha, by bisection of the binomial tail.
    low, high = 0.0, 1.0
    for _ in range(60):
        share = (low + high) / 2
        low, high = (share, high) if stats.binom.sf(wins - 1, n, share) < alpha else (low, share)
    return (low if wins else 0.0) - promised


def betting_walk(
    nulls: list[Null], cap: int, labels: int, least: int, panel: Panel, alpha: float
) -> tuple[Verdict, int]:
    """Label by label: the fortunes, the looks at futility, the first place that settles."""
    fortune, crossed, gain = ([1.0] * len(nulls), [False] * len(nulls), [0.0] * len(nulls))
    said = 0
    for n in range(1, labels + 1):
        said += panel.outcomes[n - 1] is not None
        for k, null in enumerate(nulls):
            if null.asked[n - 1]:
                stake = min(math.sqrt(13.3 * math.log(1 / alpha) / null.cap), 0.9 / (null.mean - null.worst))
                fortune[k] *= 1 + stake * (null.x[n - 1] - null.mean)
                gain[k] += null.x[n - 1] - null.mean
                crossed[k] |= math.log(fortune[k]) >= math.log(1 / alpha)
        if all(crossed) and said >= least:
            return ADVANCE, n
        look = n >= 80 and n % 20 == 0
        given_up = [hopeless(null, crossed[k], gain[k], n, alpha) for k, null in enumerate(nulls)]
        if n == cap or (look and any(given_up)):
            return ROLLBACK, n
    return WAIT, labels


def hopeless(null: Null, crossed: bool, gain: float, n: int, alpha: float) -> bool:
    seen = len(null.seen(n))
    if crossed or not seen:
        return False
    left = null.cap - seen
    if not left:
        return True
    aim = math.sqrt(null.cap * math.log(1 / alpha) / 2)
    return (aim - gain) / left > gain / seen + math.sqrt(1 / seen + 1 / left)


def oracle(
    panels: Sequence[Panel], alpha: float, rules: GateSettings, hold: bool
) -> tuple[Verdict, list[tuple[Purpose, int]]]:
    """The queues in their order, until one does not pass."""
    told = []
    for panel in panels:
        is_gate = panel.purpose is Purpose.GATE
        cap = min(panel.count, rules.max_labels) if is_gate else panel.count
        least = rules.min_labels if is_gate else 1
        labels = min(len(panel.outcomes), cap)
        nulls = nulls_of(panel, cap, rules, hold)
        if rules.method is Method.BETTING:
            verdict, judged = betting_walk(nulls, cap, labels, least, panel, alpha)
        elif labels < cap:
            verdict, judged = WAIT, labels
        else:
            refuted = all(refuted_by(null, alpha, rules.method) for null in nulls)
            enough = sum(said is not None for said in panel.outcomes[:cap]) >= least
            verdict, judged = (ADVANCE if refuted and enough else ROLLBACK), cap
        told.append((panel.purpose, judged))
        if verdict is not ADVANCE:
            return verdict, told
    return ADVANCE, told


# --- gates of every kind -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    panels: tuple[Panel, ...]
    alpha: float
    rules: GateSettings
    hold: bool

    def judge(self, panels: Sequence[Panel] | None = None) -> GateVerdict:
        asked = self.panels if panels is None else panels
        return judge(asked, alpha=self.alpha, settings=self.rules, hold=self.hold)


@st.composite
def cases(draw: st.DrawFn, *, methods: Sequence[Method] = tuple(Method), whole: bool = False) -> Case:
    """A gate with some further queues, hopeless, excellent or in between; labelled whole or in part."""
    dice = random.Random(draw(st.integers(0, 2**32)))
    most = draw(st.integers(5, 150))
    rules = GateSettings.model_validate(
        {
            "method": draw(st.sampled_from(methods)),
            "over_promise_limit": draw(st.sampled_from([0.1, 0.15, 0.3, 0.6])),
            "min_labels": draw(st.integers(1, max(most // 2, 1))),
            "max_labels": most,
            "direction": {"over_promise_limit": 0.3},
            "path": {"wrong_reward_limit": 0.5},
            "audit": {"limit": 0.3, "labels": min(most, 40)},
        }
    )
    raters = draw(st.integers(1, 3))
    win_rate, ties = draw(st.sampled_from([0.3, 0.5, 0.8, 0.95, 1.0])), draw(st.sampled_from([0.0, 0.2]))
    skips, unpromised = draw(st.sampled_from([0.0, 0.0, 0.05])), draw(st.booleans())
    wanted = [purpose for purpose in FURTHER if draw(st.booleans())]
    if unpromised:
        wanted = [purpose for purpose in wanted if purpose is not Purpose.DIRECTION]

    def word() -> float | None:
        votes = [0.5 if dice.random() < ties else float(dice.random() < win_rate) for _ in range(raters)]
        return None if dice.random() < skips else sum(votes) / raters

    panels: list[Panel] = []
    for purpose in (Purpose.GATE, *wanted):
        count = draw(st.integers(1, 160)) if purpose is not Purpose.AUDIT else min(most, 40, panels[0].count)
        labels = count if whole else draw(st.one_of(st.just(count), st.integers(0, count)))
        outcomes = tuple(word() for _ in range(labels))
        promised: tuple[float, ...] = ()
        if purpose is Purpose.AUDIT:
            raters_said = panels[0].outcomes[:count]
            promised = tuple(0.0 if z is None else z for z in raters_said)
            outcomes = outcomes[: len(promised)]
        elif not unpromised:
            levels = draw(st.sampled_from([1, 4, 1000]))
            promised = tuple(min(0.5 + dice.randrange(levels) / levels * 0.4, 1.0) for _ in range(count))
        panels.append(Panel(purpose, count, outcomes, promised))
    return Case(tuple(panels), draw(st.sampled_from([0.004, 0.03, 0.1, 0.4])), rules, draw(st.booleans()))


@settings(max_examples=300)
@given(case=cases())
def test_the_verdict_on_several_queues_agrees_with_the_oracle(case: Case) -> None:
    found = case.judge()
    verdict, judged = oracle(case.panels, case.alpha, case.rules, case.hold)
    assert found.verdict is verdict
    assert [(panel.purpose, panel.labels) for panel in found.panels] == judged
    assert found.labels == sum(labels for _, labels in judged)
    for result, panel in zip(found.panels, case.panels, strict=False):
        assert result.skipped == sum(z is None for z in panel.outcomes[: result.labels])


@settings(max_examples=60)
@given(case=cases(methods=[Method.WILSON, Method.CLOPPER_PEARSON], whole=True))
def test_bounds_of_fixed_samples_agree_with_the_oracle(case: Case) -> None:
    found = case.judge()
    nulls: dict[str, Null] = {}
    for panel in case.panels[: len(found.panels)]:
        cap = min(panel.count, case.rules.max_labels) if panel.purpose is Purpose.GATE else panel.count
        if len(panel.outcomes) >= cap:
            nulls |= {null.name: null for null in nulls_of(panel, cap, case.rules, case.hold)}
    assert set(nulls) == {test.name for test in found.tests}
    for test in found.tests:
        null = nulls[test.name]
        assert test.passed is refuted_by(null, case.alpha, case.rules.method)
        assert (test.log_e_value is None) is (test.name not in PROMISED_ITEM_BY_ITEM)
        if test.log_e_value is None:
            bound = fixed_bound(null, case.alpha, case.rules.method)
            assert abs(test.bound) == pytest.approx(abs(bound), abs=1e-9)


@settings(max_examples=100)
@given(case=cases(methods=[Method.WILSON, Method.CLOPPER_PEARSON]))
def test_a_fixed_sample_is_not_peeked_at(case: Case) -> None:
    """Before a queue's last label there is no figure of it, and nothing to act on."""
    found = case.judge()
    shown = {test.name for test in found.tests}
    for panel in case.panels:
        cap = min(panel.count, case.rules.max_labels) if panel.purpose is Purpose.GATE else panel.count
        if len(panel.outcomes) < cap:
            assert found.verdict is not ADVANCE
            assert not shown & {null.name for null in nulls_of(panel, cap, case.rules, case.hold)}
            if panel.purpose is Purpose.GATE:
                assert (found.verdict, found.tests, found.win_rate, found.over_promise) == (WAIT, (), None, None)
                assert (found.win_rate_low, found.over_promise_high) == (None, None)
                return


@settings(max_examples=80)
@given(case=cases(), data=st.data())
def test_a_prefix_and_then_the_rest_is_the_whole(case: Case, data: st.DataObject) -> None:
    """Labels come in queue by queue, front first; whenever one looks, a verdict once given stays the same verdict."""
    whole = case.judge()
    seen = [0] * len(case.panels)
    settled: GateVerdict | None = None
    for place, panel in enumerate(case.panels):
        cuts = data.draw(st.lists(st.integers(0, len(panel.outcomes)), max_size=3))
        for labels in sorted({*cuts, len(panel.outcomes)}):
            seen[place] = labels
            part = [
                replace(
                    queue,
                    outcomes=queue.outcomes[:n],
                    promised=queue.promised if queue.purpose is not Purpose.AUDIT else queue.promised[: seen[0]],
                )
                for queue, n in zip(case.panels, seen, strict=True)
            ]
            found = case.judge(part)
            if settled is not None:
                assert found == settled
            elif found.verdict is not WAIT:
                settled = found
    assert (settled or found) == whole


def batch_of(panel: Panel, first: tuple[bool, ...], labels: Sequence[Label]) -> Batch:
    return Batch(
        purpose=panel.purpose,
        stage=0,
        attempt=0,
        comparisons="0" * 64,
        count=panel.count,
        candidate_first=first,
        labels=tuple(labels),
        drawn_at=START,
    )


@dataclass(frozen=True)
class Labelled:
    """A gate's queue as raters met it."""

    count: int
    first: tuple[bool, ...]
    words: tuple[tuple[Choice, ...], ...]
    """By item, the choices of its raters, for the candidate's side: `first` is the candidate."""
    p_hat: tuple[float, ...]
    rules: GateSettings

    @property
    def raters(self) -> int:
        return len(self.words[0])

    def labels(self, names: Sequence[str], first: tuple[bool, ...]) -> list[Label]:
        return [
            Label(item=item, rater=names[turn], choice=choice if first[item] else MIRRORED.get(choice, choice))
            for item, said in enumerate(self.words)
            for turn, choice in enumerate(said)
        ]

    def judged(
        self, labels: Sequence[Label], first: tuple[bool, ...], p_hat: tuple[float, ...] | None = None
    ) -> GateVerdict:
        gate = Panel(Purpose.GATE, self.count, (), ())
        outcomes = batch_of(gate, first, labels).outcomes(self.raters)
        panel = replace(gate, outcomes=outcomes, promised=self.p_hat if p_hat is None else p_hat)
        return judge((panel,), alpha=0.1, settings=self.rules)


MIRRORED: Final = {Choice.FIRST: Choice.SECOND, Choice.SECOND: Choice.FIRST}


@st.composite
def labelled(draw: st.DrawFn) -> Labelled:
    dice = random.Random(draw(st.integers(0, 2**32)))
    count, raters = draw(st.integers(20, 90)), draw(st.integers(1, 3))
    quality = draw(st.sampled_from([0.35, 0.6, 0.9]))
    odd = (Choice.TIE, Choice.BOTH_BAD, Choice.SKIP)

    def word() -> Choice:
        usual = Choice.FIRST if dice.random() < quality else Choice.SECOND
        return dice.choice(odd) if dice.random() < 0.1 else usual

    return Labelled(
        count=count,
        first=tuple(dice.random() < 0.5 for _ in range(count)),
        words=tuple(tuple(word() for _ in range(raters)) for _ in range(count)),
        p_hat=tuple(round(dice.uniform(0.4, 0.8), 3) for _ in range(count)),
        rules=GateSettings(min_labels=10, max_labels=count, method=draw(st.sampled_from(Method))),
    )


@settings(max_examples=60)
@given(queue=labelled(), data=st.data())
def test_who_said_it_and_in_which_order_it_came_does_not_matter(queue: Labelled, data: st.DataObject) -> None:
    """Raters swap names and turns, and labels arrive in any order: the outcome of each item is what it was."""
    names = ["ann", "bob", "cyd"][: queue.raters]
    labels = queue.labels(names, queue.first)
    expected = queue.judged(labels, queue.first)
    shuffled = data.draw(st.permutations(labels))
    assert queue.judged(shuffled, queue.first) == expected
    assert queue.judged(queue.labels(data.draw(st.permutations(names)), queue.first), queue.first) == expected


@settings(max_examples=60)
@given(queue=labelled(), sides=st.lists(st.booleans(), min_size=90, max_size=90))
def test_on_which_side_the_candidate_stands_does_not_matter(queue: Labelled, sides: list[bool]) -> None:
    there = tuple(sides[: queue.count])
    assert queue.judged(queue.labels("abc", there), there) == queue.judged(
        queue.labels("abc", queue.first), queue.first
    )


@settings(max_examples=60)
@given(queue=labelled(), data=st.data())
def test_other_numbers_for_the_items_do_not_move_a_fixed_sample(queue: Labelled, data: st.DataObject) -> None:
    """Items change places with their predictions: means and bounds on proportions stay, up to rounding. A bet's bound
    depends on the order, and so may a verdict that hangs on it."""
    fixed = replace(
        queue,
        rules=queue.rules.model_copy(update={"method": data.draw(st.sampled_from([*Method][1:]))}),
        p_hat=tuple(0.4 + 0.4 * i / queue.count for i in range(queue.count)),
    )
    order = data.draw(st.permutations(range(queue.count)))
    moved = replace(
        fixed,
        first=tuple(fixed.first[i] for i in order),
        words=tuple(fixed.words[i] for i in order),
        p_hat=tuple(fixed.p_hat[i] for i in order),
    )
    here = fixed.judged(fixed.labels("abc", fixed.first), fixed.first)
    there = moved.judged(moved.labels("abc", moved.first), moved.first)
    assert (here.labels, here.skipped) == (there.labels, there.skipped)
    for mine, yours in zip(here.tests, there.tests, strict=True):
        assert mine.estimate == pytest.approx(yours.estimate, abs=1e-12)
        if mine.log_e_value is None:
            assert (mine.bound, mine.passed) == (pytest.approx(yours.bound, abs=1e-12), yours.passed)


@settings(max_examples=60)
@given(queue=labelled())
def test_who_is_the_candidate_flips_what_is_estimated(queue: Labelled) -> None:
    """The same labels about the other side: win rates add up to one, over-promises to zero; both never pass."""
    said = tuple(tuple(choice for choice in words if choice is not Choice.SKIP) or words for words in queue.words)
    if any(len(words) != queue.raters or Choice.SKIP in words for words in said):
        return  # a skip counts against whichever side is the candidate
    fixed = replace(queue, rules=queue.rules.model_copy(update={"method": Method.WILSON}))
    labels = fixed.labels("abc", fixed.first)
    here = fixed.judged(labels, fixed.first)
    there = fixed.judged(
        labels, tuple(not first for first in fixed.first), tuple(1 - promise for promise in fixed.p_hat)
    )
    assert here.win_rate is not None
    assert there.win_rate is not None
    assert here.win_rate + there.win_rate == pytest.approx(1.0)
    assert (here.over_promise or 0.0) + (there.over_promise or 0.0) == pytest.approx(0.0, abs=1e-12)
    assert {here.verdict, there.verdict} != {ADVANCE}


# --- never `advance` -----------------------------------------------------------------------------------------

WON: Final = 100
"""Labels that, were nothing wrong with them, would pass every test."""


def panels_won() -> dict[Purpose, Panel]:
    return {
        purpose: Panel(
            purpose,
            WON,
            (1.0,) * WON,
            (1.0,) * WON if purpose is Purpose.AUDIT else (0.6,) * WON,
        )
        for purpose in (Purpose.GATE, *FURTHER)
    }


def rules_for(method: Method) -> GateSettings:
    return GateSettings.model_validate({"method": method, "max_labels": WON, "audit": {"limit": 0.3}})


def test_the_evidence_that_is_broken_below_would_pass_whole() -> None:
    for method in Method:
        found = judge(tuple(panels_won().values()), alpha=0.05, settings=rules_for(method))
        assert (found.verdict, len(found.panels), len(found.tests)) == (ADVANCE, 6, 9)


Break = Callable[[Panel], Panel]
BREAKS: Final[dict[str, Break]] = {
    "no queue": lambda panel: replace(panel, count=0, outcomes=(), promised=()),
    "no label": lambda panel: replace(panel, outcomes=()),
    "the last label missing": lambda panel: replace(panel, outcomes=(0.0,) * (WON - 1)),
    "one label too many": lambda panel: replace(panel, outcomes=(1.0,) * (WON + 1)),
    "nobody said anything": lambda panel: replace(panel, outcomes=(None,) * WON),
    "NaN said": lambda panel: replace(panel, outcomes=(*panel.outcomes[:-1], math.nan)),
    "infinity said": lambda panel: replace(panel, outcomes=(math.inf, *panel.outcomes[1:])),
    "minus infinity said": lambda panel: replace(panel, outcomes=(-math.inf, *panel.outcomes[1:])),
    "more than a win": lambda panel: replace(panel, outcomes=(1.5, *panel.outcomes[1:])),
    "less than a loss": lambda panel: replace(panel, outcomes=(-0.5, *panel.outcomes[1:])),
    "NaN promised": lambda panel: replace(panel, promised=(*panel.promised[:-1], math.nan)),
    "more than certainty promised": lambda panel: replace(panel, promised=(*panel.promised[:-1], 1.01)),
    "less than nothing promised": lambda panel: replace(panel, promised=(-0.01, *panel.promised[1:])),
    "a promise missing": lambda panel: replace(panel, promised=panel.promised[:-1]),
    "a promise too many": lambda panel: replace(panel, promised=(*panel.promised, 0.6)),
    "every comparison lost": lambda panel: replace(panel, outcomes=(0.0,) * WON),
}
HARMLESS: Final = {("a promise too many", Purpose.AUDIT)}
"""What raters have said beyond the audited front."""


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("purpose", [Purpose.GATE, *FURTHER])
def test_what_is_wrong_with_any_queue_is_never_an_advance(purpose: Purpose, how: str, method: Method) -> None:
    broken = panels_won()
    broken[purpose] = BREAKS[how](broken[purpose])
    found = judge(tuple(broken.values()), alpha=0.05, settings=rules_for(method))
    assert (found.verdict is ADVANCE) is ((how, purpose) in HARMLESS)
    if how in ("no label", "the last label missing") and not (method is Method.BETTING and "last" in how):
        assert found.verdict is WAIT
    assert found.reasons


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("alpha", [0.0, -0.05, 1.0, 2.0, math.nan, math.inf, -math.inf])
def test_without_an_error_budget_nothing_passes(alpha: float, method: Method) -> None:
    found = judge(tuple(panels_won().values()), alpha=alpha, settings=rules_for(method))
    assert found.verdict is ROLLBACK
    assert "no error budget" in found.reasons[0]


def test_without_the_gates_own_queue_in_front_nothing_passes() -> None:
    won = panels_won()
    rules = rules_for(Method.BETTING)
    for panels in ((), (won[Purpose.DIRECTION],), (won[Purpose.CREEP_BASE], won[Purpose.GATE])):
        found = judge(panels, alpha=0.05, settings=rules)
        assert found.verdict is ROLLBACK
        assert "never compared with the approved policy" in found.reasons[0]


def test_checks_are_no_evidence_about_a_candidate() -> None:
    won = panels_won()
    with pytest.raises(ValueError, match="asks nothing of a checks queue"):
        judge(
            (won[Purpose.GATE], replace(won[Purpose.PATH], purpose=Purpose.CHECKS)),
            alpha=0.05,
            settings=rules_for(Method.BETTING),
        )


def test_a_direction_without_promises_is_broken() -> None:
    won = panels_won()
    unpromised = {**won, Purpose.GATE: replace(won[Purpose.GATE], promised=())}
    found = judge(tuple(unpromised.values()), alpha=0.05, settings=rules_for(Method.BETTING))
    assert (found.verdict, found.reasons[0][:15]) == (ROLLBACK, "broken evidence")
    silent = {**won, Purpose.DIRECTION: replace(won[Purpose.DIRECTION], promised=())}
    found = judge(tuple(silent.values()), alpha=0.05, settings=rules_for(Method.BETTING))
    assert found.reasons == (f"broken evidence: 0 predictions for a queue of {WON}",)


def test_an_audit_of_what_raters_have_not_judged_is_broken() -> None:
    won = panels_won()
    ahead = replace(won[Purpose.AUDIT], promised=(1.0,) * 40)
    found = judge((won[Purpose.GATE], ahead), alpha=0.05, settings=rules_for(Method.BETTING))
    assert found.reasons == (f"broken evidence: {WON} items audited, of which raters judged 40",)


@settings(max_examples=100)
@given(case=cases(), data=st.data())
def test_a_worse_word_never_helps(case: Case, data: st.DataObject) -> None:
    """Any label made worse for the candidate, or taken away: what did not pass before does not pass now."""
    place = data.draw(st.integers(0, len(case.panels) - 1))
    panel = case.panels[place]
    held_to = panel.purpose is Purpose.GATE and case.panels[-1].purpose is Purpose.AUDIT
    if not panel.outcomes or held_to:
        return  # an audit holds raters to what they said: a word less in the candidate's favour is less to hold
    item = data.draw(st.integers(0, len(panel.outcomes) - 1))
    worse = data.draw(st.sampled_from([None, 0.0]))
    harmed = replace(panel, outcomes=(*panel.outcomes[:item], worse, *panel.outcomes[item + 1 :]))
    panels = [harmed if i == place else other for i, other in enumerate(case.panels)]
    if case.judge(panels).verdict is ADVANCE:
        assert case.judge().verdict is ADVANCE
