"""From rows to codes: which labels are one, how they rank, and what a row may say besides."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import UsageError
from orchestrator.labels import figures
from orchestrator.labels.judgements import Judgement, Judgements, code, judgement_of, read_judgements
from orchestrator.labels.rows import RowError


def coded(values: Sequence[Any], order: Sequence[str] | None = None) -> Judgements:
    return code([Judgement(f"item {at}", "r", value) for at, value in enumerate(values)], order)


@pytest.mark.parametrize(
    ("values", "classes", "ranks"),
    [
        ([10, 9, 2.5, -1], (-1, 2.5, 9, 10), [0, 1, 2, 3]),
        ([True, False], (False, True), [0, 1]),
        ([1, 1.0], (1,), [0]),
        ([1, True, "1"], (True, 1, "1"), None),
        (["yes", "no"], ("no", "yes"), [0, 1]),
        (["a1", "equal", "a2"], ("a1", "equal", "a2"), [0, 1, 2]),
        (["left", "Tie", "right"], ("left", "Tie", "right"), [0, 1, 2]),
        (["good", "bad", "ugly"], ("bad", "good", "ugly"), None),
        (["tie", "equal", "other"], ("equal", "other", "tie"), None),
        (["first", "tie", "second", "both_bad"], ("second", "tie", "both_bad", "first"), [0, 1, 1, 2]),
        (["first", "second", "skip"], ("second", "first"), [0, 1]),
        (["tie", "skip"], ("skip", "tie"), [0, 1]),
        (["skip", "first", "other"], ("first", "other", "skip"), None),
        ([], (), []),
    ],
)
def test_labels_rank_where_something_says_how(values: list[Any], classes: tuple[Any, ...], ranks: Any) -> None:
    for said in (values, values[::-1]):
        found = coded(said)
        if "both_bad" in values:  # tie and both_bad have one rank, so either may come first
            assert set(found.classes) == set(classes)
        else:
            assert [(type(value) is bool, value) for value in found.classes] == [
                (type(value) is bool, value) for value in classes
            ]
        assert (None if found.rank_K is None else found.rank_K.tolist()) == ranks


def test_an_order_may_be_said() -> None:
    found = coded(["good", "bad", "ugly"], ["ugly", "bad", "good"])
    assert found.classes == ("ugly", "bad", "good")
    ordinal = found.ordinal()
    assert ordinal is not None
    assert ordinal.class_N.tolist() == [2, 1, 0]
    assert coded([True, 0.5], ["true", "0.5"]).classes == (True, 0.5)
    for wrong in (["ugly", "bad"], ["ugly", "bad", "good", "good"], ["ugly", "bad", "best"]):
        with pytest.raises(UsageError, match="each label once: bad, good, ugly"):
            coded(["good", "bad", "ugly"], wrong)


def test_a_skip_is_no_label() -> None:
    found = code([Judgement(1, "a", "first"), Judgement(1, "b", "skip"), Judgement(2, "b", "skip")])
    assert (found.items, found.raters, found.skipped, len(found.labels)) == ((1,), ("a",), 2, 1)
    assert found.labels.items == found.labels.raters == 1


def test_a_thousand_labels_are_a_measurement() -> None:
    with pytest.raises(UsageError, match="1001 different labels"):
        coded(range(1001))


rows = st.dictionaries(
    st.tuples(st.integers(0, 5), st.sampled_from(["a", "b", "c", "d"])),
    st.tuples(st.sampled_from(["first", "second", "tie", "both_bad", "skip"]), st.integers(0, 2)),
    min_size=1,
)


def document(said: list[Judgement]) -> dict[str, Any]:
    judgements = code(said)
    return figures.document(judgements, figures.fit(judgements, 1.0), 1.0)


def near(found: Any, wanted: Any) -> bool:
    """Equal but for rounding."""
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(near(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(near, found, wanted))
    if isinstance(wanted, float) and isinstance(found, float):
        return math.isclose(found, wanted, abs_tol=1e-6)
    return bool(found == wanted)


@given(rows, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_the_order_of_rows_changes_nothing(said: dict[Any, Any], dice: Any) -> None:
    judgements = [Judgement(item, who, label, longer=longer) for (item, who), (label, longer) in said.items()]
    shuffled = list(judgements)
    dice.shuffle(shuffled)
    assert near(document(shuffled), document(judgements))


@given(rows)
@settings(deadline=None, max_examples=50)
def test_swapped_sides_turn_biases_around_and_leave_agreement_alone(said: dict[Any, Any]) -> None:
    swap = {"first": "second", "second": "first"}
    here = [Judgement(item, who, label, longer=longer) for (item, who), (label, longer) in said.items()]
    there = [row._replace(label=swap.get(str(row.label), row.label), longer=(0, 2, 1)[row.longer]) for row in here]
    ours, theirs = document(here), document(there)
    for key in ("items", "raters", "labels", "agreement", "fleiss_kappa", "krippendorff_alpha", "pairs", "ceiling"):
        assert near(theirs[key], ours[key]), key
    for mine, other in zip(ours["per_rater"], theirs["per_rater"], strict=True):
        assert near(other["longer"], mine["longer"])
        if mine["first"] and mine["first"]["labels"]:
            assert other["first"]["share"] == pytest.approx(1 - mine["first"]["share"])


def test_figures_on_a_handful_by_hand() -> None:
    """Two items of two raters and one of one; ana always says first and errs once, where gold knows better."""
    found = document(
        [
            Judgement("x", "ana", "first", gold="first", prediction="first", longer=1),
            Judgement("x", "bob", "first", gold="first", prediction="first", longer=1),
            Judgement("y", "ana", "first", gold="second", prediction="second", longer=2),
            Judgement("y", "bob", "second", gold="second", prediction="second", longer=2),
            Judgement("z", "ana", "first"),
            Judgement("z", "bob", "skip"),
        ]
    )
    assert (found["items"], found["raters"], found["labels"], found["skipped"]) == (3, 2, 5, 1)
    assert found["agreement"] == 0.5
    # p_o 1/2, p_e = 1 · 1/2 + 0 · 1/2
    assert found["pairs"] == [{"a": "ana", "b": "bob", "items": 2, "agreement": 0.5, "kappa": 0.0}]
    # 3 of 4 shared labels are first: p_e = 9/16 + 1/16
    assert found["fleiss_kappa"] == pytest.approx((1 / 2 - 5 / 8) / (3 / 8))
    # one differing pair among 4 values: D_o = 2/4, D_e = 2 · 3 · 1/(4 · 3)
    assert found["krippendorff_alpha"] == {"nominal": pytest.approx(0.0), "ordinal": pytest.approx(0.0)}
    assert found["ceiling"]["human_human"]["value"] == 0.5
    assert found["ceiling"]["reward_human"]["value"] == 0.75  # right of both, of one in two; z has no prediction
    assert found["ceiling"]["reward_less_human"]["value"] == 0.25
    ana, bob = found["per_rater"]
    assert (ana["rater"], ana["labels"], ana["agreement"]) == ("ana", 3, 0.5)
    assert (ana["gold"]["labels"], ana["gold"]["share"], bob["gold"]["share"]) == (2, 0.5, 1.0)
    assert (ana["first"]["labels"], ana["first"]["share"], bob["first"]["share"]) == (3, 1.0, 0.5)
    assert (ana["longer"]["labels"], ana["longer"]["share"], bob["longer"]["share"]) == (2, 0.5, 1.0)


def test_a_tie_is_nothing_that_a_reward_model_could_foretell() -> None:
    said = [("a", "first"), ("b", "first"), ("c", "tie")]
    found = document([Judgement("x", who, label, prediction="first") for who, label in said])
    assert found["agreement"] == pytest.approx(1 / 3)
    assert found["ceiling"]["human_human"]["value"] == 1
    assert found["ceiling"]["reward_human"]["value"] == 1


def test_what_is_not_defined_is_null() -> None:
    found = document([Judgement("x", "ana", 3)])
    json.dumps(found, allow_nan=False)
    assert found["agreement"] is None
    assert found["krippendorff_alpha"] == {"nominal": None, "ordinal": None}
    assert found["pairs"] == []
    assert found["per_rater"][0]["lapse_rate"] is None


def test_what_would_fill_the_memory_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    judgements = code([Judgement(item, who, item % 2) for item in range(3) for who in range(3)])
    monkeypatch.setattr(figures, "MAX_CONFUSIONS", 11)
    monkeypatch.setattr(figures, "MAX_LABEL_PAIRS", 8)
    assert figures.fit(judgements, 1.0) is None
    found = figures.document(judgements, None, 1.0)
    assert (found["pairs"], found["dawid_skene"], found["agreement"]) == (None, None, 1.0)
    assert found["per_rater"][0]["accuracy"] is None


def test_names_sort_as_people_count() -> None:
    said = ["r10", 10, 9, "9", "r9", "é"]
    assert code([Judgement(1, name, 0) for name in said]).raters == (9, "9", 10, "r10", "r9", "é")


def test_lengths_come_from_numbers_or_from_the_texts() -> None:
    row = {"item": 1, "rater": 2, "label": "first"}
    assert judgement_of({**row, "length_1": 3, "length_2": 2.5}).longer == 1
    assert judgement_of({**row, "response_1": "a", "response_2": "bc"}).longer == 2
    assert judgement_of({**row, "length_1": 3, "length_2": 3}).longer == 0
    assert judgement_of({**row, "response_1": [], "response_2": "bc"}).longer == 0
    for wrong in (-1, True, "3", None, math.inf):
        with pytest.raises(RowError, match="length_1"):
            judgement_of({**row, "length_1": wrong, "length_2": 1})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"item": None}, "item is null"),
        ({"item": 1.5}, "item is a number"),
        ({"rater": True}, "rater is a boolean"),
        ({"rater": ""}, "rater is empty"),
        ({"label": None}, "label is null"),
        ({"label": []}, "label is a list"),
        ({"label": {}}, "label is an object"),
        ({"gold": []}, "gold is a list"),
        ({"prediction": {}}, "prediction is an object"),
    ],
)
def test_bad_values_are_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(RowError, match=why):
        judgement_of({"item": 1, "rater": 2, "label": 3, **change})


def test_every_bad_line_of_a_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    good = {"item": 1, "rater": "a", "label": "x"}
    lines = [good, {**good, "item": 2}, good, {"item": 3, "rater": "a"}, [], *[{}] * 20]
    path.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(UsageError) as told:
        read_judgements(path)
    said = str(told.value).splitlines()
    assert said[0] == f"{path}: 23 bad lines; no figures were made"
    assert said[1] == "  line 3: rater 'a' labelled item 1 before, in line 1"
    assert said[2] == "  line 4: label is missing; text, a number or a boolean is wanted"
    assert said[3] == "  line 5: it is a list, not an object"
    assert said[-1] == "  and 3 more"
    assert len(said) == 22


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_file_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "votes").write_text(text)
    with pytest.raises(UsageError, match="no row"):
        read_judgements(tmp_path / "votes")


def test_the_consensus_names_the_likeliest(tmp_path: Path) -> None:
    judgements = code([Judgement(item, who, "ab"[item % 2]) for item in range(4) for who in range(3)])
    fitted = figures.fit(judgements, 0.0)
    assert fitted is not None
    for row in figures.consensus(judgements, fitted):
        assert row["label"] == "ab"[row["item"] % 2]
        assert row["probability"] == pytest.approx(1)
        assert np.sum(row["probabilities"]) == pytest.approx(1)
