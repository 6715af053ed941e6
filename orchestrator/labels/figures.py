"""Every figure on a set of judgements as one document: what `ratchet labels agreement --json` prints."""

import math
from typing import Any, Final

import numpy as np

from orchestrator.core import agreement as ag
from orchestrator.core.agreement import DawidSkene, Floats
from orchestrator.labels.judgements import Judgements

MAX_LABEL_PAIRS: Final = 50_000_000
MAX_CONFUSIONS: Final = 50_000_000
"""Beyond these, pairs of raters or confusion matrices would fill the memory; they are left out and are null."""


def fit(judgements: Judgements, smoothing: float) -> DawidSkene | None:
    """None where the raters' confusion matrices would fill the memory."""
    labels = judgements.labels
    if labels.classes * max(labels.raters * labels.classes, len(labels)) > MAX_CONFUSIONS:
        return None
    return ag.dawid_skene(labels, smoothing=smoothing)


def document(judgements: Judgements, fitted: DawidSkene | None, smoothing: float) -> dict[str, Any]:
    """What is not defined is None."""
    labels = judgements.labels
    ordinal = judgements.ordinal()
    return {
        "items": labels.items,
        "raters": labels.raters,
        "labels": len(labels),
        "skipped": judgements.skipped,
        "classes": list(judgements.classes),
        "ranks": None if judgements.rank_K is None else judgements.rank_K.tolist(),
        "agreement": _number(ag.raw_agreement(labels).value),
        "fleiss_kappa": _number(ag.fleiss_kappa(labels)),
        "krippendorff_alpha": {
            "nominal": _number(ag.krippendorff_alpha(labels)),
            "ordinal": None if ordinal is None else _number(ag.krippendorff_alpha(ordinal, ordinal=True)),
        },
        "ceiling": _ceiling(judgements),
        "dawid_skene": None if fitted is None else _model(fitted, smoothing),
        "per_rater": _per_rater(judgements, fitted),
        "pairs": _pairs(judgements),
    }


def consensus(judgements: Judgements, fitted: DawidSkene) -> list[dict[str, Any]]:
    """A row for each item: its likeliest true label and the probability of each."""
    best_I = fitted.posterior_IK.argmax(axis=1)
    return [
        {"item": item, "label": judgements.classes[best], "probability": row[best], "probabilities": row}
        for item, best, row in zip(judgements.items, best_I.tolist(), fitted.posterior_IK.tolist(), strict=True)
    ]


def _ceiling(judgements: Judgements) -> dict[str, Any]:
    """What raters reach with one another, and a reward model with them, on the same labels.

    Of choices, only first and second count: a reward model never says tie.
    """
    decided_N = np.ones(len(judgements.labels), bool)
    if judgements.are_choices:
        decided_N = _is_class(judgements, "first") | _is_class(judgements, "second")
    labels = judgements.labels.where(decided_N)
    human_I = ag.item_agreement(labels)
    reward_I = ag.grouped_mean(labels.item_N, judgements.foretold_N[decided_N], labels.items)
    return {
        "human_human": _mean(ag.mean_interval(human_I)),
        "reward_human": _mean(ag.mean_interval(reward_I)),
        "reward_less_human": _mean(ag.mean_interval(reward_I - human_I)),
    }


def _model(fitted: DawidSkene, smoothing: float) -> dict[str, Any]:
    return {
        "smoothing": smoothing,
        "prior": _numbers(fitted.prior_K),
        "log_likelihood": _number(fitted.log_likelihood),
        "iterations": fitted.iterations,
        "converged": fitted.converged,
    }


def _per_rater(judgements: Judgements, fitted: DawidSkene | None) -> list[dict[str, Any]]:
    labels = judgements.labels
    raters, rater_N = labels.raters, labels.rater_N
    nothing_R: list[float | None] = [None] * raters
    figures: dict[str, list[Any]] = {
        "rater": list(judgements.raters),
        "labels": np.bincount(rater_N, minlength=raters).tolist(),
        "agreement": _numbers(ag.grouped_mean(rater_N, ag.agreement_with_others(labels), raters)),
        "accuracy": nothing_R,
        "lapse_rate": nothing_R,
        "gold": _shares(judgements, ~np.isnan(judgements.gold_right_N), judgements.gold_right_N == 1),
        "first": nothing_R,
        "longer": nothing_R,
        "confusion": nothing_R,
    }
    if fitted is not None:
        opinion_N = ag.others_opinion(labels, fitted)
        figures["accuracy"] = _numbers(ag.grouped_mean(rater_N, opinion_N, raters))
        figures["lapse_rate"] = _numbers(ag.lapse_rates(labels, fitted))
        figures["confusion"] = [[_numbers(row) for row in matrix] for matrix in fitted.confusion_RKK]
    if judgements.are_choices:
        first_N, second_N = _is_class(judgements, "first"), _is_class(judgements, "second")
        longer_N = (first_N & (judgements.longer_N == 1)) | (second_N & (judgements.longer_N == 2))
        figures["first"] = _shares(judgements, first_N | second_N, first_N)
        figures["longer"] = _shares(judgements, (first_N | second_N) & (judgements.longer_N > 0), longer_N)
    return [dict(zip(figures, row, strict=True)) for row in zip(*figures.values(), strict=True)]


def _pairs(judgements: Judgements) -> list[dict[str, Any]] | None:
    labels = judgements.labels
    if ag.label_pair_count(labels) > MAX_LABEL_PAIRS:
        return None
    found = ag.rater_pairs(labels)
    names = judgements.raters
    columns = (found.first_P.tolist(), found.second_P.tolist(), found.items_P.tolist(), found.agreement_P.tolist())
    return [
        {"a": names[a], "b": names[b], "items": items, "agreement": agreement, "kappa": kappa}
        for a, b, items, agreement, kappa in zip(*columns, _numbers(found.kappa_P), strict=True)
    ]


def _is_class(judgements: Judgements, value: str) -> Any:
    if value not in judgements.classes:
        return np.zeros(len(judgements.labels), bool)
    return judgements.labels.class_N == judgements.classes.index(value)


def _shares(judgements: Judgements, counts_N: Any, so_N: Any) -> list[dict[str, Any]]:
    found = ag.shares(judgements.labels.rater_N[counts_N], so_N[counts_N], judgements.labels.raters)
    columns = (found.count_R.tolist(), _numbers(found.share_R), _numbers(found.low_R), _numbers(found.high_R))
    return [
        {"labels": count, "share": share, "low": low, "high": high}
        for count, share, low, high in zip(*columns, strict=True)
    ]


def _mean(mean: ag.Mean) -> dict[str, Any]:
    return {
        "value": _number(mean.value),
        "low": _number(mean.low),
        "high": _number(mean.high),
        "items": mean.count,
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _numbers(values: Floats) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]
