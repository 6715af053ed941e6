"""How far raters agree: with one another, with a consensus, with a reward model; and what each of them is prone to.

Figures only: nothing here decides anything. Labels come as integer codes, at most one per item and rater, with any
number of raters an item; what is missing is simply not there. Every figure is vectorised (a million labels take
seconds), none depends on the order of labels, raters or items, and one that is not defined (a single rater, labels that
never vary) is NaN, never an exception.

Axes: N labels, I items, R raters, K classes (the different labels), P pairs of raters. "Shared" items are those with
labels of two raters or more; only they say anything of agreement.

Sources: Cohen 1960; Fleiss 1971; Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability"; Dawid and Skene
1979, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm"; Wilson 1927.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

Z_95: Final = 1.959963984540054
"""Half-width of a 95% normal interval, in standard errors: of every interval here."""
FLOOR: Final = 1e-10
"""Least weight of a cell of a confusion matrix, in labels, so that its logarithm exists."""


@dataclass(frozen=True, eq=False)
class CodedLabels:
    """N labels: who (`rater_N`) said what (`class_N`) of which item (`item_N`), each coded from 0.

    Raises:
        ValueError: shapes differ, a code is out of its range, or a rater labelled one item twice.
    """

    item_N: Ints
    rater_N: Ints
    class_N: Ints
    items: int
    raters: int
    classes: int

    def __post_init__(self) -> None:
        if not self.item_N.shape == self.rater_N.shape == self.class_N.shape == (len(self.item_N),):
            raise ValueError("items, raters and classes must be three lists of one length")
        for codes, count, what in (
            (self.item_N, self.items, "item"),
            (self.rater_N, self.raters, "rater"),
            (self.class_N, self.classes, "class"),
        ):
            if len(codes) and not 0 <= codes.min() <= codes.max() < count:
                raise ValueError(f"a code of {what} is outside 0 to {count - 1}")
        places = np.sort(self.item_N * self.raters + self.rater_N)
        if (places[1:] == places[:-1]).any():
            raise ValueError("a rater labelled one item twice")

    def __len__(self) -> int:
        return len(self.item_N)

    @cached_property
    def counts_IK(self) -> sparse.csr_array:
        """Labels of each class that each item has; float64."""
        return _tally(self.item_N, self.class_N, (self.items, self.classes))

    @cached_property
    def raters_I(self) -> Ints:
        """Labels that each item has, which is to say raters."""
        return np.bincount(self.item_N, minlength=self.items)

    @cached_property
    def shared_I(self) -> NDArray[np.bool_]:
        """True where an item has two raters or more."""
        return self.raters_I >= 2

    def where(self, keep_N: NDArray[np.bool_]) -> "CodedLabels":
        """Only the labels where `keep_N` is True; codes stay what they are."""
        kept = (self.item_N[keep_N], self.rater_N[keep_N], self.class_N[keep_N])
        return CodedLabels(*kept, self.items, self.raters, self.classes)


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over `count` independent units with a 95% interval; NaN where there are too few."""

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """Per rater: how many cases count, in what share of them something was so, and its 95% Wilson interval."""

    count_R: Ints
    share_R: Floats
    """NaN where no case counts."""
    low_R: Floats
    high_R: Floats


@dataclass(frozen=True, slots=True, eq=False)
class RaterPairs:
    """Every two raters with an item in common, `first_P` < `second_P`, in ascending order."""

    first_P: Ints
    second_P: Ints
    items_P: Ints
    """Items that both labelled; at least 1."""
    agreement_P: Floats
    """Share of these with one label, in [0, 1]."""
    kappa_P: Floats
    """Cohen's kappa, in [-1, 1]; NaN where both gave one and the same label throughout."""


# --- agreement beyond chance ------------------------------------------------------------------------------


def item_agreement(labels: CodedLabels) -> Floats:
    """Per item, the probability that two of its raters, drawn at random, say the same; NaN below two. Shape (I,)."""
    of_one_I = labels.raters_I.astype(np.float64)
    same_I = np.asarray(labels.counts_IK.power(2).sum(axis=1)).ravel() - of_one_I
    return _ratio(same_I, of_one_I * (of_one_I - 1))


def raw_agreement(labels: CodedLabels) -> Mean:
    """How often two raters of an item say the same: mean of `item_agreement` over shared items, each counting once.

    The ceiling for whoever tries to foretell a rater's label.
    """
    return mean_interval(item_agreement(labels)[labels.shared_I])


def rater_pairs(labels: CodedLabels) -> RaterPairs:
    """Raw agreement and Cohen's kappa of every two raters, over the items that both labelled.

    kappa = (p_o - p_e) / (1 - p_e), p_e from the two raters' own label shares on these items. Work and memory grow
    with the number of pairs of labels on one item, not with the number of pairs of raters.
    """
    rater_a, rater_b, class_a, class_b = _label_pairs(labels)
    code_P, pair = np.unique(rater_a * labels.raters + rater_b, return_inverse=True)
    items_P = np.bincount(pair, minlength=len(code_P))
    same_P = np.bincount(pair[class_a == class_b], minlength=len(code_P))
    shape = (len(code_P), labels.classes)
    chance = _tally(pair, class_a, shape).multiply(_tally(pair, class_b, shape)).sum(axis=1)
    chance_P = np.asarray(chance).ravel()  # items squared times p_e: exact, so that p_e = 1 is seen
    return RaterPairs(
        first_P=code_P // max(labels.raters, 1),
        second_P=code_P % max(labels.raters, 1),
        items_P=items_P,
        agreement_P=_ratio(same_P, items_P),
        kappa_P=_ratio(same_P * items_P - chance_P, items_P**2 - chance_P),
    )


def label_pair_count(labels: CodedLabels) -> int:
    """Pairs of labels on one item: what `rater_pairs` has to look at."""
    return int((labels.raters_I * (labels.raters_I - 1) // 2).sum())


def fleiss_kappa(labels: CodedLabels) -> float:
    """Fleiss' kappa over shared items, for any numbers of raters.

    (P - P_e) / (1 - P_e), where P is the mean over items of `item_agreement` and P_e the sum of squared shares of the
    classes among all labels of these items. With n raters on every item this is Fleiss (1971) to the letter; with
    unequal numbers every item still counts once in P, and every label once in P_e.
    """
    shared = labels.where(labels.shared_I[labels.item_N])
    if not len(shared):
        return np.nan
    observed = float(item_agreement(shared)[shared.shared_I].mean())
    totals_K = np.bincount(shared.class_N, minlength=shared.classes)
    if (totals_K > 0).sum() == 1:
        return np.nan
    chance = float(((totals_K / len(shared)) ** 2).sum())
    return (observed - chance) / (1 - chance)


def krippendorff_alpha(labels: CodedLabels, *, ordinal: bool = False) -> float:
    """Krippendorff's alpha, 1 - D_o / D_e, over shared items; missing labels are no obstacle.

    Nominal: any two classes differ by 1. Ordinal: the codes are ranks, and classes c < k differ by
    (sum of n_g for g from c to k, less half of n_c and n_k) squared, n_g being the labels of class g.
    """
    values_KK = coincidences(labels)
    totals_K = values_KK.sum(axis=1)
    total = totals_K.sum()
    if (totals_K > 0).sum() < 2:
        return np.nan
    if ordinal:
        middle_K = np.cumsum(totals_K) - totals_K / 2
        distance_KK = (middle_K[:, None] - middle_K[None, :]) ** 2
    else:
        distance_KK = 1.0 - np.eye(labels.classes)
    observed = (values_KK * distance_KK).sum() / total
    expected = (np.outer(totals_K, totals_K) * distance_KK).sum() / (total * (total - 1))
    return float(1 - observed / expected)


def coincidences(labels: CodedLabels) -> Floats:
    """Krippendorff's coincidence matrix: ordered pairs of labels of one item, weighted 1 / (its raters - 1).

    Symmetric, shape (K, K); it sums to the number of labels on shared items.
    """
    weight_I = _ratio(labels.shared_I, np.maximum(labels.raters_I - 1, 1))
    weighted_IK = sparse.diags_array(weight_I) @ labels.counts_IK
    both_KK = (labels.counts_IK.T @ weighted_IK).toarray()
    return np.asarray(both_KK - np.diag(np.asarray(weighted_IK.sum(axis=0)).ravel()))


# --- Dawid and Skene --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class DawidSkene:
    """Raters' confusions and what the truth may be, estimated from the labels alone."""

    posterior_IK: Floats
    """Probability that an item's true class is k; rows sum to 1, NaN for an item without labels."""
    prior_K: Floats
    """Share of each true class."""
    confusion_RKK: Floats
    """[r, k, l]: probability that rater r says l where the truth is k; rows sum to 1, NaN without labels."""
    log_likelihood: float
    """Of the labels under these estimates, in nats."""
    iterations: int
    converged: bool


def dawid_skene(
    labels: CodedLabels, *, smoothing: float = 0.0, tolerance: float = 1e-6, max_iterations: int = 200
) -> DawidSkene:
    """Fit the model of Dawid and Skene (1979) by expectation maximisation, begun from each item's vote shares.

    Args:
        smoothing: labels' worth of belief, per true class, that a rater errs as all raters together do; it steadies
            raters with few labels. 0 is the classical maximum-likelihood estimate.
        tolerance: ends when the posteriors' mean absolute change in a round is below this; 0 runs all rounds.

    Raises:
        ValueError: an argument is negative, or no round is allowed.
    """
    if smoothing < 0 or tolerance < 0 or max_iterations < 1:
        raise ValueError("smoothing and tolerance must not be negative, and one round or more is needed")
    said = _said(labels)
    heard = said.T.tocsr()
    posterior_IK = _ratio(labels.counts_IK.toarray(), labels.raters_I[:, None])
    labelled_I = labels.raters_I > 0
    iterations, converged, log_likelihood = 0, False, np.nan
    prior_K, confusion_RKK = _maximise(labels, heard, posterior_IK, labelled_I, smoothing)
    while not converged and iterations < max_iterations:
        iterations += 1
        before_IK = posterior_IK
        posterior_IK, log_likelihood = _expect(said, prior_K, confusion_RKK, labelled_I)
        prior_K, confusion_RKK = _maximise(labels, heard, posterior_IK, labelled_I, smoothing)
        if not len(labels):
            break
        change = np.abs(posterior_IK[labelled_I] - before_IK[labelled_I]).mean()
        converged = bool(change < tolerance)
    return DawidSkene(posterior_IK, prior_K, confusion_RKK, log_likelihood, iterations, converged)


def others_opinion(labels: CodedLabels, fitted: DawidSkene) -> Floats:
    """Per label, the probability that the *other* raters of its item give to it, under the fitted model. Shape (N,).

    NaN where nobody else labelled the item. A rater's own label never vouches for itself.
    """
    log_said = _log(fitted.confusion_RKK)
    log_posterior_IK = _log_joint(_said(labels), fitted.prior_K, fitted.confusion_RKK)
    others_NK = log_posterior_IK[labels.item_N] - log_said[labels.rater_N, :, labels.class_N]
    others_NK = np.exp(others_NK - others_NK.max(axis=1, keepdims=True)) if len(labels) else others_NK
    others_NK /= others_NK.sum(axis=1, keepdims=True)
    opinion_N = others_NK[np.arange(len(labels)), labels.class_N]
    opinion_N[~labels.shared_I[labels.item_N]] = np.nan
    return np.asarray(opinion_N)


def lapse_rates(labels: CodedLabels, fitted: DawidSkene) -> Floats:
    """Per rater, how often the item is answered without regard to it. Shape (R,).

    The model: with probability λ a rater lapses and answers by a habit of their own, whatever that is (always "first",
    any coin); else the answer is the truth. Then the confusion matrix is (1 - λ)·identity + λ·(equal rows), whose
    trace is K - λ(K - 1), so λ = (K - trace) / (K - 1) whatever the habit. 0 for one who never errs, about 1 for one
    who never looks, more for one who answers the opposite. Honest differences of taste count as lapses too, so it
    bounds carelessness from above.

    Classes that are true of no item take no part; NaN with fewer than two classes left, and for a rater whose items
    nobody else labelled.
    """
    real_K = fitted.prior_K * labels.items > 0.5
    classes = int(real_K.sum())
    others_R = np.bincount(labels.rater_N[labels.shared_I[labels.item_N]], minlength=labels.raters)
    if classes < 2:
        return np.full(labels.raters, np.nan)
    right_R = np.einsum("rkk->rk", fitted.confusion_RKK)[:, real_K].sum(axis=1)
    return np.where(others_R > 0, (classes - right_R) / (classes - 1), np.nan)


# --- one rater at a time ----------------------------------------------------------------------------------


def shares(rater_N: Ints, so_N: NDArray[np.bool_], raters: int) -> Shares:
    """Per rater, the share of cases where `so_N` is True: position bias, length bias, right answers to checks."""
    count_R = np.bincount(rater_N, minlength=raters)
    hits_R = np.bincount(rater_N[so_N], minlength=raters)
    low_R, high_R = wilson_interval(hits_R, count_R)
    return Shares(count_R, _ratio(hits_R, count_R), low_R, high_R)


def grouped_mean(code_N: Ints, value_N: Floats, groups: int) -> Floats:
    """Mean of a figure of each label, per rater or per item; NaN values are left out. NaN where none is left."""
    there_N = ~np.isnan(value_N)
    total = np.bincount(code_N[there_N], weights=value_N[there_N], minlength=groups)
    return _ratio(total, np.bincount(code_N[there_N], minlength=groups))


def agreement_with_others(labels: CodedLabels) -> Floats:
    """Per label, the share of the item's other raters who say the same; NaN where there are none. Shape (N,)."""
    said = labels.item_N * labels.classes + labels.class_N
    _, place_N, count = np.unique(said, return_inverse=True, return_counts=True)
    return _ratio(count[place_N] - 1, labels.raters_I[labels.item_N] - 1)


# --- intervals --------------------------------------------------------------------------------------------


def mean_interval(values: Floats) -> Mean:
    """Mean of independent values with its 95% normal interval; NaN values are left out.

    No interval (NaN) below two values.
    """
    kept = values[~np.isnan(values)]
    if not len(kept):
        return Mean(np.nan, np.nan, np.nan, 0)
    mean = float(kept.mean())
    half = float(Z_95 * kept.std(ddof=1) / np.sqrt(len(kept))) if len(kept) > 1 else np.nan
    return Mean(mean, mean - half, mean + half, len(kept))


def wilson_interval(hits: Ints, count: Ints) -> tuple[Floats, Floats]:
    """Lower and upper 95% bounds of a share, elementwise (Wilson 1927); NaN where `count` is 0."""
    share, per = _ratio(hits, count), _ratio(np.full_like(count, 1), count)
    middle = (share + Z_95**2 * per / 2) / (1 + Z_95**2 * per)
    half = Z_95 * np.sqrt(share * (1 - share) * per + (Z_95 * per) ** 2 / 4) / (1 + Z_95**2 * per)
    return middle - half, middle + half


# --- helpers ----------------------------------------------------------------------------------------------


def _tally(row: Ints, column: Ints, shape: tuple[int, int]) -> sparse.csr_array:
    """How often each (row, column) comes."""
    return sparse.coo_array((np.ones(len(row)), (row, column)), shape=shape).tocsr()


def _ratio(above: NDArray[np.generic], below: NDArray[np.generic]) -> Floats:
    """Quotient, NaN where `below` is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below == 0, np.nan, np.true_divide(above, below))


def _log(probability: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.log(probability)


def _label_pairs(labels: CodedLabels) -> tuple[Ints, Ints, Ints, Ints]:
    """Both raters (the lower code first) and both classes of every pair of labels on one item."""
    order = np.lexsort((labels.rater_N, labels.item_N))
    begin_I = np.cumsum(labels.raters_I) - labels.raters_I
    first, second = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for size in np.unique(labels.raters_I[labels.shared_I]):
        at = order[begin_I[labels.raters_I == size][:, None] + np.arange(size)]
        left, right = np.triu_indices(size, 1)
        first.append(at[:, left].ravel())
        second.append(at[:, right].ravel())
    a, b = np.concatenate(first), np.concatenate(second)
    return labels.rater_N[a], labels.rater_N[b], labels.class_N[a], labels.class_N[b]


def _said(labels: CodedLabels) -> sparse.csr_array:
    """[i, r·K + l] = 1 where rater r says l of item i: it turns both steps of the fit into matrix products."""
    return _tally(
        labels.item_N, labels.rater_N * labels.classes + labels.class_N, (labels.items, labels.raters * labels.classes)
    )


def _maximise(
    labels: CodedLabels,
    heard: sparse.csr_array,
    posterior_IK: Floats,
    labelled_I: NDArray[np.bool_],
    smoothing: float,
) -> tuple[Floats, Floats]:
    prior_K = posterior_IK[labelled_I].mean(axis=0) if labelled_I.any() else np.full(labels.classes, np.nan)
    weight = heard @ np.where(labelled_I[:, None], posterior_IK, 0.0)
    weight_RKK = weight.reshape(labels.raters, labels.classes, labels.classes).swapaxes(1, 2)
    if smoothing:
        pooled_KK = np.maximum(weight_RKK.sum(axis=0), FLOOR)
        weight_RKK = weight_RKK + smoothing * pooled_KK / pooled_KK.sum(axis=1, keepdims=True)
    # A class that a rater never uses keeps probability 0: nothing is ever asked of it.
    used_RK = weight_RKK.sum(axis=1, keepdims=True) > 0
    weight_RKK = np.where(used_RK, np.maximum(weight_RKK, FLOOR), 0.0)
    return prior_K, _ratio(weight_RKK, weight_RKK.sum(axis=2, keepdims=True))


def _log_joint(said: sparse.csr_array, prior_K: Floats, confusion_RKK: Floats) -> Floats:
    """Log probability of each item's labels together with each true class, shape (I, K)."""
    classes = len(prior_K)
    log_said = _log(confusion_RKK).swapaxes(1, 2).reshape(len(confusion_RKK) * classes, classes)
    return np.asarray(said @ log_said + np.log(np.maximum(prior_K, FLOOR)))


def _expect(
    said: sparse.csr_array, prior_K: Floats, confusion_RKK: Floats, labelled_I: NDArray[np.bool_]
) -> tuple[Floats, float]:
    joint_IK = _log_joint(said, prior_K, confusion_RKK)
    if not len(joint_IK):
        return joint_IK, 0.0
    most_I = joint_IK.max(axis=1, keepdims=True)
    share_IK = np.exp(joint_IK - most_I)
    sum_I = share_IK.sum(axis=1, keepdims=True)
    log_likelihood = float((most_I + np.log(sum_I))[labelled_I].sum())
    return np.where(labelled_I[:, None], share_IK / sum_I, np.nan), log_likelihood
