"""Attribution against hand arithmetic, an item bootstrap, and simulated worlds whose truth is known."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from orchestrator.core.attribution import (
    Attribution,
    Cause,
    Estimate,
    Figure,
    attribute,
    off_distribution,
    refined_mean,
    tuned_power,
)
from orchestrator.core.gate import decide
from orchestrator.core.settings import GateSettings

Floats = NDArray[np.float64]

FIGURES = ("over_credit", "reward_model", "raters", "off_distribution")


# --- by hand ----------------------------------------------------------------------------------------------


def test_the_chain_of_two_refinements_by_hand() -> None:
    # Labelled: slope = (-.3(.2 + .4) + .3(.5 + .7)) / (4 * .09) = .18 / .36 = 1/2; the means are f .5, Y .45.
    # All eight: P = (2(.2) + 6(.8)) / 8 = .65, so H = .45 + (.65 - .5)/2 = .525.
    # Audited: Z = Y/2, slope 1/2, so G = mean Y/2 + (H - mean Y)/2 = H/2 = .2625, whoever was audited.
    found = attribute([0.2, 0.2, 0.8, 0.8] + [0.8] * 4, [0.2, 0.4, 0.5, 0.7], {3: 0.35, 0: 0.1, 1: 0.2})
    assert found.reward_model is not None
    assert found.raters is not None
    assert found.over_credit is not None
    assert found.reward_model.mean == pytest.approx(0.125)
    assert found.raters.mean == pytest.approx(0.2625)
    assert found.over_credit.mean == pytest.approx(0.3875)
    assert (found.reward_model.items, found.raters.items, found.over_credit.items) == (4, 3, 3)


def test_with_every_pair_labelled_the_reward_models_part_is_the_mean_over_pairs() -> None:
    # f - Y is -.1, .7, -.4, .8, each 25 times: mean .25, squares about it .1225 + .2025 + .4225 + .3025 = 1.05.
    # Variance of the mean 26.25 / (100 * 99), standard error .051493; Student's quantile at 98 is 1.984467.
    found = attribute([0.9, 0.7, 0.6, 0.8] * 25, [1, 0, 1, 0] * 25, {}).reward_model
    assert found is not None
    assert found.mean == pytest.approx(0.25)
    assert (found.low, found.high) == (pytest.approx(0.25 - 0.102186, abs=1e-6), pytest.approx(0.352186, abs=1e-6))


def test_without_a_reward_model_the_raters_part_is_known_and_nothing_else() -> None:
    # All audited: Y - Z is 1, 0, 0, 0 each 20 times, whatever the slope. Mean 1/4, squares about it 80 * 3/16 = 15.
    outcomes, audited = [1.0, 0.0, 0.5, 1.0] * 20, dict(enumerate([0.0, 0.0, 0.5, 1.0] * 20))
    found = attribute([], outcomes, audited)
    assert found.raters is not None
    assert found.raters.mean == pytest.approx(0.25)
    half = stats.t(78).ppf(0.975) * math.sqrt(15 / (80 * 79))
    assert found.raters.high - found.raters.mean == pytest.approx(half)
    assert found.causes == (Cause.RATERS,)
    assert found.unknown == (
        "Over-credit is unknown: no reward model took part.",
        "The reward model's part is unknown: no reward model took part.",
        "The part off distribution is unknown: no probes, or too few, were compared.",
    )


def test_an_item_without_a_verdict_is_left_out_and_counted() -> None:
    p_hat = [0.9, 0.7, 0.6, 0.8, 0.4]
    found = attribute(p_hat, [1.0, None, 0.5, 0.0], {0: 1.0, 1: 0.0, 2: 0.5, 3: 0.5})
    assert found.without_verdict == 1
    assert found.reward_model is not None
    assert found.raters is not None
    # The slope of 1, 1/2, 0 on .9, .6, .8 is (2/15 - 1/12) / (7/150) = 15/14, cut to 1: H is Y's mean plus P's shift.
    rated = 0.5 + (sum(p_hat) / 5 - (0.9 + 0.6 + 0.8) / 3)
    assert found.reward_model.mean == pytest.approx(sum(p_hat) / 5 - rated)
    assert found.raters.items == 3  # the audit of the item that nobody judged counts for nothing


# --- refinement -------------------------------------------------------------------------------------------


def test_power_zero_is_the_plain_mean() -> None:
    rng = np.random.default_rng(0)
    f_N = rng.random(50)
    y_n, place_n = rng.integers(0, 2, 20).astype(float), np.arange(20)
    figure = refined_mean(y_n, f_N[:20], place_n, Figure.mean_of(f_N, np.arange(50), 50), power=0.0)
    assert figure.mean == pytest.approx(y_n.mean())
    assert math.sqrt(figure.variance) == pytest.approx(stats.sem(y_n))


def test_power_is_the_regression_slope_cut_to_the_unit_interval() -> None:
    rng = np.random.default_rng(1)
    proxy_n = rng.random(40)
    truth_n = 0.3 * proxy_n + rng.random(40)
    assert tuned_power(truth_n, proxy_n) == pytest.approx(stats.linregress(proxy_n, truth_n).slope)
    assert tuned_power(3 * proxy_n, proxy_n) == 1.0
    assert tuned_power(-proxy_n, proxy_n) == 0.0


@pytest.mark.parametrize("proxy", [[0.1] * 3, [0.5] * 3, [0.0, 0.0, 1e-170]])
def test_without_variation_differences_are_taken_pair_by_pair(proxy: list[float]) -> None:
    """Three times .1 has a mean that is not .1, and 1e-170 squared is 0."""
    assert tuned_power(np.array([1.0, 0.5, 1.0]), np.array(proxy)) == 1.0


def test_variance_is_that_of_the_nested_samples() -> None:
    """Var Y/n - (1/n - 1/N)(2λ Cov(Y, f) - λ² Var f), with the moments that made the data."""
    rng = np.random.default_rng(2)
    labelled, items, power = 40_000, 100_000, 0.4
    f_N = rng.random(items)  # variance 1/12
    y_n = (rng.random(labelled) < 0.2 + 0.6 * f_N[:labelled]).astype(float)  # variance 1/4, covariance .6/12
    figure = refined_mean(y_n, f_N[:labelled], np.arange(labelled), Figure.mean_of(f_N, np.arange(items), items), power)
    saved = (1 / labelled - 1 / items) * (2 * power * 0.05 - power**2 / 12)
    assert figure.variance == pytest.approx(0.25 / labelled - saved, rel=0.02)


@pytest.mark.parametrize(
    ("slope", "least_gain"),
    [(0.9, 0.1), (0.0, -0.02), (-0.9, -0.02)],
    ids=["informative", "uninformative", "contrary"],
)
def test_refining_does_not_raise_the_variance(slope: float, least_gain: float) -> None:
    """At slope .9, ρ² = .81/12 / (1/4) = .27, half the pairs unlabelled: the best gain is 13.5%."""
    rng = np.random.default_rng(3)
    plain, refined = [], []
    for _ in range(3000):
        f_N = rng.random(200)
        y_n = (rng.random(100) < 0.5 + slope * (f_N[:100] - 0.5)).astype(float)
        figure = refined_mean(y_n, f_N[:100], np.arange(100), Figure.mean_of(f_N, np.arange(200), 200))
        plain.append(y_n.mean())
        refined.append(figure.mean)
    assert 1 - np.var(refined) / np.var(plain) > least_gain


# --- simulated worlds -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """Pairs of a common difficulty; each evaluator sees it through a haze of its own, with a bias of its own."""

    promise: float = 0.0
    """Added to the reward model's logit."""
    flattery: float = 0.0
    """Added to the logit by which raters and reward model alike prefer the candidate."""
    lost: float = 0.0
    """Taken from the better evaluator's logit on probes."""

    def draw(
        self, rng: np.random.Generator, items: int, labelled: int, audited: int
    ) -> tuple[Floats, Floats, dict[int, float], Floats, Floats]:
        """Predictions, raters' outcomes, audits, and outcomes in distribution and on 120 probes."""
        true_N = 0.5 + rng.normal(size=items)
        f_N = expit(true_N + self.flattery + self.promise)
        y_N = (rng.random(items) < expit(true_N + self.flattery)).astype(float)
        z_N = (rng.random(items) < expit(true_N)).astype(float)
        z_N[rng.random(items) < 0.1] = 0.5
        true_P = 0.5 + rng.normal(size=120)
        ordinary_P = (rng.random(120) < expit(true_P)).astype(float)
        probe_P = (rng.random(120) < expit(true_P - self.lost)).astype(float)
        places = rng.permutation(labelled)[:audited]
        return f_N, y_N[:labelled], {int(i): float(z_N[i]) for i in places}, ordinary_P, probe_P

    def truth(self) -> dict[str, float]:
        """By quadrature over difficulty."""
        node_Q, weight_Q = np.polynomial.hermite_e.hermegauss(60)
        weight_Q = weight_Q / weight_Q.sum()

        def mean(logit_shift: float) -> float:
            return float(weight_Q @ expit(0.5 + node_Q + logit_shift))

        promised, rated = mean(self.flattery + self.promise), mean(self.flattery)
        granted = 0.1 * 0.5 + 0.9 * mean(0.0)
        return {
            "over_credit": promised - granted,
            "reward_model": promised - rated,
            "raters": rated - granted,
            "off_distribution": mean(0.0) - mean(-self.lost),
        }


def expit(logit: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-logit)))


def verdicts(
    world: World, draws: int, seed: int, *, items: int = 400, labelled: int = 200, audited: int = 60
) -> Iterator[Attribution]:
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        f_N, y_n, audits, ordinary_P, probe_P = world.draw(rng, items, labelled, audited)
        yield attribute(
            f_N.tolist(), y_n.tolist(), audits, probes=off_distribution(ordinary_P.tolist(), probe_P.tolist())
        )


def estimate(found: Attribution, figure: str) -> Estimate:
    value = getattr(found, figure)
    assert isinstance(value, Estimate)
    return value


@pytest.mark.parametrize(("items", "labelled", "audited"), [(400, 200, 60), (400, 400, 40), (200, 100, 20)])
def test_intervals_cover_and_means_are_unbiased(items: int, labelled: int, audited: int) -> None:
    world = World(promise=0.3, flattery=0.2, lost=0.5)
    found = list(verdicts(world, 1500, 12, items=items, labelled=labelled, audited=audited))
    for figure, truth in world.truth().items():
        estimates = [estimate(one, figure) for one in found]
        covered = np.mean([one.low <= truth <= one.high for one in estimates])
        assert 0.93 < covered < 0.97, figure
        error = np.array([one.mean for one in estimates]) - truth
        assert abs(error.mean()) < 4 * stats.sem(error), figure


def test_ten_audits_are_enough_for_an_honest_interval() -> None:
    """And for a mean whose bias, that of a slope fitted to the same ten, is small beside its spread."""
    world = World(flattery=0.5)
    found = [estimate(one, "raters") for one in verdicts(world, 1500, 13, items=150, labelled=100, audited=10)]
    truth = world.truth()["raters"]
    assert 0.92 < np.mean([one.low <= truth <= one.high for one in found]) < 0.97
    error = np.array([one.mean for one in found]) - truth
    assert abs(error.mean()) < 0.15 * error.std()


@pytest.mark.parametrize("world", [World(), World(promise=1.0)], ids=["mostly advances", "mostly rolled back"])
def test_the_gates_stopping_time_leans_the_figures_a_little(world: World) -> None:
    rng = np.random.default_rng(14)
    covered, errors, truth = [], [], world.truth()["reward_model"]
    for _ in range(400):
        f_N, y_N, audits, _, _ = world.draw(rng, 400, 400, 400)
        stop = decide(f_N.tolist(), y_N.tolist(), alpha=0.02, settings=GateSettings()).labels
        audits = {place: audits[place] for place in range(min(stop, 100))}
        one = estimate(attribute(f_N.tolist(), y_N[:stop].tolist(), audits), "reward_model")
        covered.append(one.low <= truth <= one.high)
        errors.append(one.mean - truth)
    assert np.mean(covered) > 0.88
    assert abs(np.mean(errors)) < 0.02


@pytest.mark.parametrize(
    ("world", "cause"),
    [
        (World(flattery=2.5), Cause.RATERS),
        (World(promise=1.0), Cause.REWARD_MODEL),
        (World(lost=1.5), Cause.OFF_DISTRIBUTION),
    ],
    ids=[cause.value for cause in Cause],
)
def test_the_one_cause_is_named(world: World, cause: Cause) -> None:
    found = [one.causes for one in verdicts(world, 400, 6)]
    assert np.mean([causes == (cause,) for causes in found]) > 0.9


def test_nothing_is_named_where_nothing_is_wrong() -> None:
    rng = np.random.default_rng(7)
    named = dict.fromkeys(Cause, 0)
    for _ in range(1000):
        true_N = rng.normal(size=400)  # about zero: a tie is then as good as chance, and all evaluators agree
        f_N, y_N, z_N = expit(true_N), rng.random(400) < expit(true_N), rng.random(400) < expit(true_N)
        probes = off_distribution((rng.random(120) < 0.6).tolist(), (rng.random(120) < 0.6).tolist())
        audits = {int(place): float(z_N[place]) for place in rng.permutation(200)[:60]}
        for cause in attribute(f_N.tolist(), y_N[:200].tolist(), audits, probes=probes).causes:
            named[cause] += 1
    assert all(count < 50 for count in named.values()), named


def test_a_margin_excuses_small_over_credit() -> None:
    found = list(verdicts(World(promise=1.0), 20, 8))
    assert all(Cause.REWARD_MODEL in one.causes for one in found)
    rng = np.random.default_rng(8)
    for one in found:
        f_N, y_n, audits, _, _ = World(promise=1.0).draw(rng, 400, 200, 60)
        low = estimate(one, "reward_model").low
        assert Cause.REWARD_MODEL in attribute(f_N.tolist(), y_n.tolist(), audits, margin=low - 1e-9).causes
        assert Cause.REWARD_MODEL not in attribute(f_N.tolist(), y_n.tolist(), audits, margin=low).causes


def test_causes_come_largest_first() -> None:
    found = list(verdicts(World(promise=1.0, flattery=2.5, lost=4.0), 50, 9))
    means = {Cause.RATERS: "raters", Cause.REWARD_MODEL: "reward_model", Cause.OFF_DISTRIBUTION: "off_distribution"}
    assert any(len(one.causes) == 3 for one in found)
    for one in found:
        sizes = [estimate(one, means[cause]).mean for cause in one.causes]
        assert sizes == sorted(sizes, reverse=True)


def slow_figures(f_N: Floats, y_N: Floats, z_N: Floats, rated_N: Floats, audited_N: Floats) -> Floats:
    """b, a and their sum from the definitions, over the last axis; the last two are 1 where labelled, where audited."""

    def mean(x: Floats, there: Floats) -> Floats:
        return np.asarray((x * there).sum(-1) / there.sum(-1))

    def slope(truth: Floats, proxy: Floats, there: Floats) -> Floats:
        about = proxy - mean(proxy, there)[..., None]
        return np.asarray(np.clip(mean(truth * about, there) / mean(about**2, there), 0, 1))

    promised = f_N.mean(-1)
    rated = mean(y_N, rated_N) + slope(y_N, f_N, rated_N) * (promised - mean(f_N, rated_N))
    granted = mean(z_N, audited_N) + slope(z_N, y_N, audited_N) * (rated - mean(y_N, audited_N))
    return np.array([promised - rated, rated - granted, promised - granted])


def test_widths_are_those_of_a_bootstrap_over_items() -> None:
    rng = np.random.default_rng(10)
    for world in (World(promise=0.4), World(flattery=1.0)):
        f_N, y_n, audits, _, _ = world.draw(rng, 400, 200, 60)
        found = attribute(f_N.tolist(), y_n.tolist(), audits)
        y_N, z_N, rated_N, audited_N = np.zeros((4, 400))
        y_N[:200], rated_N[:200] = y_n, 1
        for place, outcome in audits.items():
            z_N[place], audited_N[place] = outcome, 1
        means = slow_figures(f_N, y_N, z_N, rated_N, audited_N)
        again = stats.bootstrap(
            (f_N, y_N, z_N, rated_N, audited_N),
            lambda f, y, z, r, a, axis=-1: slow_figures(f, y, z, r, a),
            paired=True,
            vectorized=True,
            n_resamples=4000,
            method="percentile",
            rng=rng,
        )
        for k, figure in enumerate(("reward_model", "raters", "over_credit")):
            one = estimate(found, figure)
            assert one.mean == pytest.approx(means[k])
            resampled = again.confidence_interval.high[k] - again.confidence_interval.low[k]
            assert one.high - one.low == pytest.approx(resampled, rel=0.08), figure


# --- properties -------------------------------------------------------------------------------------------

sixteenths = st.integers(0, 16).map(lambda k: k / 16)
Item = tuple[float, float | None, float | None]
items = st.tuples(sixteenths, st.none() | sixteenths, st.none() | sixteenths)


def of_items(labelled: list[Item], others: list[float]) -> Attribution:
    return attribute(
        [f for f, _, _ in labelled] + others,
        [y for _, y, _ in labelled],
        {place: z for place, (_, _, z) in enumerate(labelled) if z is not None},
    )


def same(one: Attribution, other: Attribution, sign: int = 1) -> None:
    assert one.unknown == other.unknown
    for figure in FIGURES:
        a, b = getattr(one, figure), getattr(other, figure)
        assert (a is None) == (b is None)
        if a is not None:
            ends = (b.low, b.high) if sign > 0 else (-b.high, -b.low)
            assert (a.mean, a.low, a.high) == pytest.approx((sign * b.mean, *ends), abs=1e-9)
            assert a.items == b.items


@given(st.lists(items, max_size=20), st.lists(sixteenths, max_size=20), st.randoms(use_true_random=False))
def test_relabelling_items_changes_nothing(labelled: list[Item], others: list[float], rng: object) -> None:
    shuffle: Callable[[list[object]], None] = rng.shuffle  # type: ignore[attr-defined]
    moved, rest = list(labelled), list(others)
    shuffle(moved)  # type: ignore[arg-type]
    shuffle(rest)  # type: ignore[arg-type]
    same(of_items(moved, rest), of_items(labelled, others))


@given(st.lists(items, max_size=20), st.lists(sixteenths, max_size=20))
def test_swapping_candidate_and_approved_negates_every_mean(labelled: list[Item], others: list[float]) -> None:
    mirrored = [(1 - f, None if y is None else 1 - y, None if z is None else 1 - z) for f, y, z in labelled]
    same(of_items(mirrored, [1 - f for f in others]), of_items(labelled, others), sign=-1)


probabilities = st.floats(0, 1)


@given(
    st.lists(st.tuples(probabilities, st.none() | probabilities, st.none() | probabilities), max_size=12),
    st.lists(probabilities, max_size=12),
    st.booleans(),
)
def test_any_input_gives_figures_or_reasons(labelled: list[Item], others: list[float], model: bool) -> None:
    found = of_items(labelled, others)
    if not model:
        audits = {place: z for place, (_, _, z) in enumerate(labelled) if z is not None}
        found = attribute([], [y for _, y, _ in labelled], audits)
    known = [value for value in (getattr(found, figure) for figure in FIGURES) if value is not None]
    assert len(found.unknown) == 4 - len(known)
    for one in known:
        assert -1 <= one.low <= one.mean <= one.high <= 1
        assert one.low < one.high
    if found.over_credit and found.reward_model and found.raters and max(abs(one.mean) for one in known) < 1:
        assert found.over_credit.mean == pytest.approx(found.reward_model.mean + found.raters.mean, abs=1e-9)
    assert Attribution.model_validate_json(found.model_dump_json()) == found


# --- little evidence, and wrong ---------------------------------------------------------------------------


def test_nothing_at_all_is_unknown_for_four_reasons() -> None:
    found = attribute([], [], {})
    assert found == Attribution(
        over_credit=None,
        reward_model=None,
        raters=None,
        off_distribution=None,
        without_verdict=0,
        unknown=(
            "Over-credit is unknown: no reward model took part.",
            "The reward model's part is unknown: no reward model took part.",
            "The raters' part is unknown: raters judged no items, fewer than 3.",
            "The part off distribution is unknown: no probes, or too few, were compared.",
        ),
        causes=(),
    )


def test_reasons_tell_what_is_lacking() -> None:
    p_hat = [0.5, 0.6, 0.7, 0.8]
    assert attribute(p_hat, [1.0, None], {}).unknown[:3] == (
        "Over-credit is unknown: raters judged one item, fewer than 3.",
        "The reward model's part is unknown: raters judged one item, fewer than 3.",
        "The raters' part is unknown: raters judged one item, fewer than 3.",
    )
    assert attribute(p_hat, [1.0, 0.0, 1.0], {}).unknown[:2] == (
        "Over-credit is unknown: nobody better than the raters looked.",
        "The raters' part is unknown: nobody better than the raters looked.",
    )
    assert attribute(p_hat, [1.0, 0.0, 1.0], {0: 1.0, 1: 0.0}).unknown[:2] == (
        "Over-credit is unknown: of what raters judged, the better evaluator saw 2 items, fewer than 3.",
        "The raters' part is unknown: of what raters judged, the better evaluator saw 2 items, fewer than 3.",
    )


@pytest.mark.parametrize("audits", [3, 10, 60])
def test_full_agreement_is_no_proof(audits: int) -> None:
    """Where nothing varied, the interval is as wide as Wilson's for something that never happened."""
    outcomes = [1.0, 0.0] * 50
    found = attribute([0.5] * 100, outcomes, {place: outcomes[place] for place in range(audits)})
    unseen = stats.binomtest(0, audits).proportion_ci(method="wilson").high
    raters = estimate(found, "raters")
    assert (raters.mean, raters.low, raters.high) == pytest.approx((0.0, -unseen, unseen))


def test_all_equal_labels_give_a_wide_interval_about_their_difference() -> None:
    found = attribute([0.5] * 20, [1.0] * 10, dict.fromkeys(range(5), 1.0))
    unseen = stats.binomtest(0, 10).proportion_ci(method="wilson").high
    model = estimate(found, "reward_model")
    assert (model.mean, model.low, model.high) == pytest.approx((-0.5, -0.5 - unseen, -0.5 + unseen))
    assert estimate(found, "raters").mean == pytest.approx(0.0)
    assert found.causes == ()


def test_audits_of_raters_who_said_one_thing_are_compared_pair_by_pair() -> None:
    """The slope is not known, and the audited items alone had no loss: H's lower mean is no over-credit."""
    found = attribute([], [1.0] * 5 + [0.0] * 5, dict.fromkeys(range(5), 1.0))
    assert estimate(found, "raters").mean == pytest.approx(0.0)


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan, math.inf])
@pytest.mark.parametrize("where", ["p_hat", "outcomes", "audited", "prompts", "probes", "margin"])
def test_numbers_out_of_range_are_refused(where: str, bad: float) -> None:
    fine = [0.5, 0.5, 0.5]
    odd = [0.5, bad, 0.5]
    calls: dict[str, Callable[[], object]] = {
        "p_hat": lambda: attribute(odd, fine, {}),
        "outcomes": lambda: attribute(fine, odd, {}),
        "audited": lambda: attribute(fine, fine, {1: bad}),
        "prompts": lambda: off_distribution(odd, fine),
        "probes": lambda: off_distribution(fine, odd),
        "margin": lambda: attribute(fine, fine, {}, margin=bad),
    }
    with pytest.raises(ValueError, match="must be in"):
        calls[where]()


def test_an_audit_out_of_range_is_refused_even_where_it_counts_for_nothing() -> None:
    with pytest.raises(ValueError, match="audited must be in"):
        attribute([0.5], [None], {0: 2.0})


def test_lists_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValueError, match="2 outcomes, but the reward model predicted 1 pairs"):
        attribute([0.5], [1.0, 0.0], {})
    with pytest.raises(ValueError, match=r"audited items \[2\] are not among the 2 that came up"):
        attribute([0.5] * 3, [1.0, 0.0], {2: 1.0})
    with pytest.raises(ValueError, match=r"audited items \[-1\]"):
        attribute([], [1.0, 0.0], {-1: 1.0})
    with pytest.raises(ValueError, match="2 prompts, but 1 probes"):
        off_distribution([1.0, 0.0], [1.0])


# --- off distribution -------------------------------------------------------------------------------------


def test_off_distribution_by_hand() -> None:
    # Losses 1, 1/2, 0, 0 each 20 times: mean .375, squares about it 20(.390625 + .015625 + 2(.140625)) = 13.75.
    found = off_distribution([1, 1, 0.5, 0] * 20, [0, 0.5, 0.5, 0] * 20)
    assert found is not None
    half = stats.t(78).ppf(0.975) * math.sqrt(13.75 / (80 * 79))
    assert (found.mean, found.low, found.high) == pytest.approx((0.375, 0.375 - half, 0.375 + half))
    assert found.items == 80


def test_off_distribution_pairs_probe_with_prompt() -> None:
    """Prompts that differ much, probes that lose a little of each: the pairs' interval, not that of two samples."""
    rng = np.random.default_rng(11)
    ordinary = rng.integers(0, 3, 200) / 2
    probe = np.where(rng.random(200) < 0.3, np.maximum(ordinary - 0.5, 0), ordinary)
    found = off_distribution(ordinary.tolist(), probe.tolist())
    assert found is not None
    expected = stats.ttest_rel(ordinary, probe).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-3)


def test_probes_that_change_nothing_prove_little() -> None:
    found = off_distribution([1.0, 0.0, 1.0, 0.5], [1.0, 0.0, 1.0, 0.5])
    unseen = stats.binomtest(0, 4).proportion_ci(method="wilson").high
    assert found is not None
    assert (found.mean, found.low, found.high) == pytest.approx((0.0, -unseen, unseen))
    assert off_distribution([1.0, 0.0], [0.0, 0.0]) is None
    assert off_distribution([], []) is None
