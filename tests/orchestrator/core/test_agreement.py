"""Agreement figures against published tables, hand arithmetic, brute force and independent libraries."""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core import agreement as ag
from orchestrator.core.agreement import CodedLabels

Triple = tuple[int, int, int]
"""Item, rater, class."""


def coded(triples: Sequence[Triple], *, items: int = 8, raters: int = 6, classes: int = 4) -> CodedLabels:
    item, rater, said = np.array(triples, dtype=np.int64).reshape(-1, 3).T
    return CodedLabels(item, rater, said, items, raters, classes)


def matrix(rows: Sequence[Sequence[int | None]]) -> CodedLabels:
    """One row a rater, one column an item."""
    triples = [(i, r, said) for r, row in enumerate(rows) for i, said in enumerate(row) if said is not None]
    classes = 1 + max(said for _, _, said in triples)
    return coded(triples, items=len(rows[0]), raters=len(rows), classes=classes)


label_sets = st.dictionaries(
    st.tuples(st.integers(0, 7), st.integers(0, 5)), st.integers(0, 3), max_size=48
).map(lambda said: [(item, rater, label) for (item, rater), label in said.items()])  # fmt: skip


def by_item(triples: Sequence[Triple]) -> dict[int, dict[int, int]]:
    found: dict[int, dict[int, int]] = defaultdict(dict)
    for item, rater, label in triples:
        found[item][rater] = label
    return found


def same(found: float, wanted: Fraction | None) -> bool:
    return math.isnan(found) if wanted is None else found == pytest.approx(float(wanted), abs=1e-12)


# --- brute force, in exact arithmetic ---------------------------------------------------------------------


def slow_raw(triples: Sequence[Triple]) -> Fraction | None:
    shares = []
    for said in by_item(triples).values():
        pairs = list(itertools.combinations(said.values(), 2))
        if pairs:
            shares.append(Fraction(sum(a == b for a, b in pairs), len(pairs)))
    return sum(shares, Fraction(0)) / len(shares) if shares else None


def slow_kappa(both: Sequence[tuple[int, int]]) -> Fraction | None:
    n = len(both)
    observed = Fraction(sum(a == b for a, b in both), n)
    first, second = Counter(a for a, _ in both), Counter(b for _, b in both)
    chance = sum((Fraction(first[k], n) * Fraction(second[k], n) for k in range(4)), Fraction(0))
    return None if chance == 1 else (observed - chance) / (1 - chance)


def slow_fleiss(triples: Sequence[Triple]) -> Fraction | None:
    observed = slow_raw(triples)
    shared = [label for said in by_item(triples).values() if len(said) > 1 for label in said.values()]
    if observed is None or len(set(shared)) == 1:
        return None
    chance = sum((Fraction(count, len(shared)) ** 2 for count in Counter(shared).values()), Fraction(0))
    return (observed - chance) / (1 - chance)


def slow_alpha(triples: Sequence[Triple], *, ordinal: bool) -> Fraction | None:
    """From the definition: mean difference of values paired within units over that of all values paired."""
    units = [list(said.values()) for said in by_item(triples).values() if len(said) > 1]
    values = [label for unit in units for label in unit]
    count = Counter(values)
    if len(count) < 2:
        return None

    def difference(c: int, k: int) -> Fraction:
        if not ordinal or c == k:
            return Fraction(int(c != k))
        low, high = min(c, k), max(c, k)
        between = sum(count[g] for g in range(low, high + 1))
        return (between - Fraction(count[c] + count[k], 2)) ** 2

    within = Fraction(0)
    for unit in units:
        within += Fraction(sum((difference(a, b) for a, b in itertools.permutations(unit, 2)), Fraction(0))) / (
            len(unit) - 1
        )
    total = sum((difference(a, b) * count[a] * count[b] for a in count for b in count), Fraction(0))
    n = len(values)
    return 1 - (within / n) / (total / (n * (n - 1)))


class TestAgainstBruteForce:
    @given(label_sets)
    def test_raw_agreement_and_fleiss(self, triples: list[Triple]) -> None:
        labels = coded(triples)
        assert same(ag.raw_agreement(labels).value, slow_raw(triples))
        assert same(ag.fleiss_kappa(labels), slow_fleiss(triples))

    @given(label_sets, st.booleans())
    def test_krippendorff(self, triples: list[Triple], ordinal: bool) -> None:
        assert same(ag.krippendorff_alpha(coded(triples), ordinal=ordinal), slow_alpha(triples, ordinal=ordinal))

    @given(label_sets)
    def test_every_pair_of_raters(self, triples: list[Triple]) -> None:
        both: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        for said in by_item(triples).values():
            for a, b in itertools.combinations(sorted(said), 2):
                both[a, b].append((said[a], said[b]))
        found = ag.rater_pairs(coded(triples))
        assert list(zip(found.first_P.tolist(), found.second_P.tolist(), strict=True)) == sorted(both)
        for at, pair in enumerate(sorted(both)):
            said = both[pair]
            assert found.items_P[at] == len(said)
            assert found.agreement_P[at] == pytest.approx(sum(a == b for a, b in said) / len(said))
            assert same(float(found.kappa_P[at]), slow_kappa(said))
        assert ag.label_pair_count(coded(triples)) == sum(map(len, both.values()))

    @given(label_sets)
    def test_agreement_with_others(self, triples: list[Triple]) -> None:
        found = ag.agreement_with_others(coded(triples))
        for (item, rater, label), share in zip(triples, found.tolist(), strict=True):
            others = [said for who, said in by_item(triples)[item].items() if who != rater]
            assert same(share, Fraction(others.count(label), len(others)) if others else None)


class TestPublishedTables:
    def test_cohen_1960(self) -> None:
        """20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: p_o 0.7, p_e 0.5, kappa 0.4, by hand."""
        rows = [[1] * 25 + [0] * 25, [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15]
        found = ag.rater_pairs(matrix(rows))
        assert found.agreement_P.tolist() == [0.7]
        assert found.kappa_P.tolist() == pytest.approx([0.4])

    def test_fleiss(self) -> None:
        """Ten subjects, fourteen raters, five categories: kappa 0.210, an example in wide use."""
        table = [(0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1),
                 (7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7)]  # fmt: skip
        columns = [[k for k, count in enumerate(row) for _ in range(count)] for row in table]
        assert ag.fleiss_kappa(matrix(list(zip(*columns, strict=True)))) == pytest.approx(0.210, abs=5e-4)

    def test_krippendorff(self) -> None:
        """Four observers, twelve units, five values, seven missing: Krippendorff 2011, nominal .743, ordinal .815."""
        _ = None
        rows = [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
            [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
        ]
        labels = matrix(rows)
        assert ag.krippendorff_alpha(labels) == pytest.approx(0.743, abs=5e-4)
        assert ag.krippendorff_alpha(labels, ordinal=True) == pytest.approx(0.815, abs=5e-4)

    def test_wilson(self) -> None:
        """8 of 10, from the formula by hand: 0.4902 to 0.9433. None of 5: 0 to 0.4345."""
        low, high = ag.wilson_interval(np.array([8, 0, 0]), np.array([10, 5, 0]))
        assert low.tolist() == pytest.approx([0.4902, 0.0, math.nan], abs=5e-5, nan_ok=True)
        assert high.tolist() == pytest.approx([0.9433, 0.4345, math.nan], abs=5e-5, nan_ok=True)


class TestUndefined:
    @pytest.mark.parametrize(
        "labels",
        [
            coded([]),
            coded([], items=0, raters=0, classes=0),
            coded([(0, 0, 1)]),
            coded([(0, 0, 1), (1, 0, 2), (2, 1, 0)]),
        ],
        ids=["no labels", "nothing at all", "one label", "nothing shared"],
    )
    def test_without_shared_items_nothing_is_known(self, labels: CodedLabels) -> None:
        fitted = ag.dawid_skene(labels)
        assert math.isnan(ag.raw_agreement(labels).value)
        assert math.isnan(ag.fleiss_kappa(labels))
        assert math.isnan(ag.krippendorff_alpha(labels))
        assert math.isnan(ag.krippendorff_alpha(labels, ordinal=True))
        assert len(ag.rater_pairs(labels).items_P) == 0
        assert np.isnan(ag.others_opinion(labels, fitted)).all()
        assert np.isnan(ag.lapse_rates(labels, fitted)).all()

    def test_labels_that_never_vary_have_no_kappa(self) -> None:
        labels = matrix([[1, 1, 1], [1, 1, 1]])
        assert ag.raw_agreement(labels).value == 1
        assert math.isnan(ag.fleiss_kappa(labels))
        assert math.isnan(ag.krippendorff_alpha(labels))
        assert np.isnan(ag.rater_pairs(labels).kappa_P).all()
        assert np.isnan(ag.lapse_rates(labels, ag.dawid_skene(labels))).all()

    @pytest.mark.parametrize(
        ("triples", "why"),
        [([(0, 0, 1), (0, 0, 2)], "twice"), ([(8, 0, 0)], "item"), ([(0, 6, 0)], "rater"), ([(0, 0, -1)], "class")],
    )
    def test_what_cannot_be_is_refused(self, triples: list[Triple], why: str) -> None:
        with pytest.raises(ValueError, match=why):
            coded(triples)

    def test_arguments_out_of_range_are_refused(self) -> None:
        for wrong in ({"smoothing": -1.0}, {"tolerance": -1.0}, {"max_iterations": 0}):
            with pytest.raises(ValueError, match="negative"):
                ag.dawid_skene(coded([(0, 0, 1)]), **wrong)  # type: ignore[arg-type]


def permuted(labels: CodedLabels, seed: int) -> tuple[CodedLabels, np.ndarray, np.ndarray, np.ndarray]:
    """The same labels in another order under other codes, and the new code of each item, rater and class."""
    rng = np.random.default_rng(seed)
    order, item, rater, label = (rng.permutation(n) for n in (len(labels), 8, 6, 4))
    moved = replace(
        labels,
        item_N=item[labels.item_N][order],
        rater_N=rater[labels.rater_N][order],
        class_N=label[labels.class_N][order],
    )
    return moved, item, rater, label


class TestInvariance:
    @given(label_sets, st.integers(0, 2**32))
    @settings(deadline=None)
    def test_order_and_codes_leave_figures_alone(self, triples: list[Triple], seed: int) -> None:
        labels = coded(triples)
        moved, item, rater, label = permuted(labels, seed)
        for figure in (lambda x: ag.raw_agreement(x).value, ag.fleiss_kappa, ag.krippendorff_alpha):
            assert figure(moved) == pytest.approx(figure(labels), nan_ok=True)
        ours, theirs = (ag.dawid_skene(x, smoothing=1.0, max_iterations=5, tolerance=0.0) for x in (labels, moved))
        np.testing.assert_allclose(theirs.posterior_IK[item][:, label], ours.posterior_IK, atol=1e-9)
        np.testing.assert_allclose(
            theirs.confusion_RKK[rater][:, label][:, :, label], ours.confusion_RKK, atol=1e-9
        )  # fmt: skip
        np.testing.assert_allclose(ag.lapse_rates(moved, theirs)[rater], ag.lapse_rates(labels, ours), atol=1e-9)

    @given(label_sets)
    def test_a_reversed_scale_leaves_ordinal_alpha_alone(self, triples: list[Triple]) -> None:
        labels = coded(triples)
        turned = replace(labels, class_N=3 - labels.class_N)
        assert ag.krippendorff_alpha(turned, ordinal=True) == pytest.approx(
            ag.krippendorff_alpha(labels, ordinal=True), nan_ok=True
        )

    @given(label_sets)
    def test_two_classes_rank_as_they_differ(self, triples: list[Triple]) -> None:
        labels = coded([(item, rater, label % 2) for item, rater, label in triples])
        assert ag.krippendorff_alpha(labels, ordinal=True) == pytest.approx(
            ag.krippendorff_alpha(labels), nan_ok=True
        )  # fmt: skip

    @given(st.lists(st.tuples(st.integers(0, 5), st.booleans())))
    def test_swapped_sides_turn_a_share_around(self, cases: list[tuple[int, bool]]) -> None:
        rater, so = (np.array(column) for column in zip(*cases, strict=True)) if cases else (np.zeros(0, int),) * 2
        ours, theirs = ag.shares(rater, so.astype(bool), 6), ag.shares(rater, ~so.astype(bool), 6)
        np.testing.assert_allclose(theirs.share_R, 1 - ours.share_R)
        np.testing.assert_allclose(theirs.low_R, 1 - ours.high_R, atol=1e-12)


def slow_dawid_skene(triples: Sequence[Triple], rounds: int) -> dict[int, list[float]]:
    """The two steps as the paper writes them, with dictionaries and products of probabilities."""
    items, raters = by_item(triples), sorted({rater for _, rater, _ in triples})
    belief = {i: [list(said.values()).count(k) / len(said) for k in range(3)] for i, said in items.items()}
    for _ in range(rounds):
        prior = [sum(b[k] for b in belief.values()) / len(belief) for k in range(3)]
        confusion = {}
        for rater in raters:
            for k in range(3):
                said = [(belief[i][k], label) for i, who, label in triples if who == rater]
                total = sum(weight for weight, _ in said)
                for label in range(3):
                    confusion[rater, k, label] = sum(w for w, found in said if found == label) / total if total else 0.0
        for i, said_of in items.items():
            joint = [prior[k] * math.prod(confusion[r, k, label] for r, label in said_of.items()) for k in range(3)]
            belief[i] = [value / sum(joint) for value in joint]
    return belief


class TestDawidSkene:
    @pytest.mark.parametrize("seed", range(5))
    def test_the_steps_are_the_paper_s(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        triples = [(i, r, int(rng.integers(3)) if rng.random() < 0.4 else i % 3) for i in range(12) for r in range(5)]
        fitted = ag.dawid_skene(coded(triples, items=12, raters=5, classes=3), tolerance=0.0, max_iterations=7)
        wanted = slow_dawid_skene(triples, 7)
        np.testing.assert_allclose(fitted.posterior_IK, [wanted[i] for i in range(12)], atol=1e-6)

    def test_the_likelihood_never_falls(self) -> None:
        labels, _ = lapsing(np.full(8, 0.4), items=200, seed=3)
        runs = [ag.dawid_skene(labels, tolerance=0.0, max_iterations=n).log_likelihood for n in range(1, 12)]
        assert all(later >= earlier - 1e-6 for earlier, later in itertools.pairwise(runs))

    @pytest.mark.parametrize("smoothing", [0.0, 5.0])
    def test_it_finds_who_is_right(self, smoothing: float) -> None:
        """Three good raters against four who nearly flip a coin: better than the majority."""
        lapse_R = np.array([0.1, 0.1, 0.1, 0.9, 0.9, 0.9, 0.9])
        labels, truth_I = lapsing(lapse_R, items=2_000, seed=1)
        fitted = ag.dawid_skene(labels, smoothing=smoothing)
        assert fitted.converged
        votes_IK = labels.counts_IK.toarray()
        by_majority = (votes_IK.argmax(axis=1) == truth_I).mean()
        assert (fitted.posterior_IK.argmax(axis=1) == truth_I).mean() > max(0.95, by_majority + 0.02)
        np.testing.assert_allclose(fitted.prior_K, np.bincount(truth_I) / len(truth_I), atol=0.03)
        np.testing.assert_allclose(ag.lapse_rates(labels, fitted), lapse_R, atol=0.06)

    def test_a_habit_does_not_pass_for_skill(self) -> None:
        """Whoever lapses into one side always is right half of those times, and lapses no less for it."""
        lapse_R = np.array([0.05, 0.05, 0.05, 0.05, 0.4, 1.0])
        labels, _ = lapsing(lapse_R, items=4_000, seed=2, habit=1, classes=2)
        fitted = ag.dawid_skene(labels, smoothing=5.0)
        np.testing.assert_allclose(ag.lapse_rates(labels, fitted), lapse_R, atol=0.04)

    def test_smoothing_draws_new_raters_to_the_crowd(self) -> None:
        labels, _ = lapsing(np.full(6, 0.2), items=300, seed=4)
        few = labels.where((labels.rater_N != 5) | (labels.item_N < 2))
        pooled = ag.dawid_skene(few, smoothing=1e6).confusion_RKK
        np.testing.assert_allclose(pooled[5], pooled[0], atol=1e-3)

    def test_nobody_vouches_for_themselves(self) -> None:
        """Dropping a rater's label of an item leaves the others' opinion of it what it was."""
        labels, _ = lapsing(np.full(5, 0.3), items=40, seed=5)
        fitted = ag.dawid_skene(labels, smoothing=1.0)
        opinion_N = ag.others_opinion(labels, fitted)
        for at in range(0, len(labels), 7):
            item, rater, said = labels.item_N[at], labels.rater_N[at], labels.class_N[at]
            joint_K = fitted.prior_K.copy()
            for i, r, label in zip(labels.item_N, labels.rater_N, labels.class_N, strict=True):
                if i == item and r != rater:
                    joint_K *= fitted.confusion_RKK[r, :, label]
            assert opinion_N[at] == pytest.approx(joint_K[said] / joint_K.sum())

    def test_items_without_labels_have_no_posterior(self) -> None:
        fitted = ag.dawid_skene(coded([(0, 0, 1), (0, 1, 1), (2, 0, 2), (2, 1, 2)]))
        assert np.isnan(fitted.posterior_IK[[1, 3, 4, 5, 6, 7]]).all()
        assert np.isfinite(fitted.posterior_IK[[0, 2]]).all()


def lapsing(
    lapse_R: np.ndarray, *, items: int, seed: int, habit: int | None = None, classes: int = 3
) -> tuple[CodedLabels, np.ndarray]:
    """Everybody labels everything, and lapses at their rate into any class, or always into `habit`."""
    rng = np.random.default_rng(seed)
    truth_I = rng.integers(classes, size=items)
    habit_IR = rng.integers(classes, size=(items, len(lapse_R))) if habit is None else habit
    said_IR = np.where(rng.random((items, len(lapse_R))) < lapse_R, habit_IR, truth_I[:, None])
    item_IR, rater_IR = np.indices(said_IR.shape)
    labels = CodedLabels(item_IR.ravel(), rater_IR.ravel(), said_IR.ravel(), items, len(lapse_R), classes)
    return labels, truth_I


class TestMeans:
    def test_a_mean_has_the_interval_of_its_units(self) -> None:
        found = ag.mean_interval(np.array([0.0, 1.0, 1.0, np.nan]))
        half = 1.959964 * math.sqrt((4 / 9 + 1 / 9 + 1 / 9) / 2 / 3)
        assert (found.value, found.count) == (pytest.approx(2 / 3), 3)
        assert (found.low, found.high) == (pytest.approx(2 / 3 - half), pytest.approx(2 / 3 + half))

    def test_one_unit_has_no_interval(self) -> None:
        found = ag.mean_interval(np.array([1.0]))
        assert (found.value, found.count) == (1.0, 1)
        assert math.isnan(found.low)

    def test_grouped_means_leave_out_what_is_unknown(self) -> None:
        found = ag.grouped_mean(np.array([0, 0, 2, 2]), np.array([1.0, np.nan, 0.5, 0.0]), 4)
        assert found.tolist() == pytest.approx([1.0, math.nan, 0.25, math.nan], nan_ok=True)


class TestRealData:
    def test_pandalm_s_annotators(self) -> None:
        """Cohen's kappa of annotators 1-2, 1-3, 2-3, known from elsewhere."""
        from label_data import pandalm

        labels = matrix([[row[f"annotator{a}"] for row in pandalm()] for a in (1, 2, 3)])
        assert ag.rater_pairs(labels).kappa_P.tolist() == pytest.approx([0.840, 0.860, 0.844], abs=5e-4)

    def test_two_workers_of_ukp_agree_half_of_the_time(self, ukp: CodedLabels) -> None:
        assert len(ukp) == 64_286
        assert ag.raw_agreement(ukp).value == pytest.approx(0.523, abs=5e-4)

    def test_krippendorff_s_alpha_is_another_library_s(self, ukp: CodedLabels) -> None:
        import krippendorff

        said_RI = np.full((ukp.raters, ukp.items), np.nan)
        said_RI[ukp.rater_N, ukp.item_N] = ukp.class_N
        for level, ordinal in (("nominal", False), ("ordinal", True)):
            wanted = krippendorff.alpha(said_RI, level_of_measurement=level)
            assert ag.krippendorff_alpha(ukp, ordinal=ordinal) == pytest.approx(wanted, abs=1e-12)

    @pytest.mark.filterwarnings("ignore::DeprecationWarning:crowdkit")
    def test_dawid_and_skene_s_values_are_another_library_s(self, ukp: CodedLabels) -> None:
        """crowd-kit begins and steps alike; rounds are fixed, since the two stop by different rules."""
        import pandas
        from crowdkit import aggregation

        votes = pandas.DataFrame({"task": ukp.item_N, "worker": ukp.rater_N, "label": ukp.class_N})
        theirs = aggregation.DawidSkene(n_iter=30, tol=-math.inf).fit(votes)
        ours = ag.dawid_skene(ukp, tolerance=0.0, max_iterations=30)
        assert len(theirs.loss_history_) == ours.iterations == 30
        posteriors = theirs.probas_.sort_index()[[0, 1, 2]].to_numpy()
        np.testing.assert_allclose(ours.posterior_IK, posteriors, atol=1e-8)
        np.testing.assert_allclose(ours.prior_K, theirs.priors_[[0, 1, 2]], atol=1e-8)
        columns = theirs.errors_[[0, 1, 2]]
        rater, said = (columns.index.get_level_values(name).to_numpy() for name in ("worker", "label"))
        np.testing.assert_allclose(ours.confusion_RKK[rater, :, said], columns.to_numpy(), atol=1e-8)

    def test_smoothing_foretells_votes_that_were_held_out(self, ukp: CodedLabels) -> None:
        """The default of the command: workers have some 17 votes, which a matrix of their own fits by heart."""
        order = np.random.default_rng(0).permutation(len(ukp))
        _, first = np.unique(ukp.item_N[order], return_index=True)
        held_N = np.zeros(len(ukp), dtype=bool)
        held_N[order[first]] = True
        held, kept = ukp.where(held_N), ukp.where(~held_N)
        known = np.bincount(kept.rater_N, minlength=kept.raters)[held.rater_N] > 0
        surprise = {}
        for smoothing in (0.0, 5.0):
            fitted = ag.dawid_skene(kept, smoothing=smoothing)
            of_truth_NK = fitted.confusion_RKK[held.rater_N, :, held.class_N]
            chance_N = (fitted.posterior_IK[held.item_N] * of_truth_NK).sum(axis=1)[known]
            surprise[smoothing] = -np.log(np.maximum(chance_N, 1e-9)).mean()
        shares_K = np.bincount(kept.class_N) / len(kept)
        by_shares_alone = -np.log(shares_K[held.class_N][known]).mean()
        assert surprise[5.0] < 0.93 < by_shares_alone < 1.3 < surprise[0.0]


@pytest.fixture(scope="module")
def ukp() -> CodedLabels:
    from label_data import ukp_votes

    pairs, workers, votes = zip(*ukp_votes(), strict=True)
    item_names, item_N = np.unique(pairs, return_inverse=True)
    rater_names, rater_N = np.unique(workers, return_inverse=True)
    class_N = np.array([("a1", "equal", "a2").index(vote) for vote in votes])
    return CodedLabels(item_N, rater_N, class_N, len(item_names), len(rater_names), 3)
