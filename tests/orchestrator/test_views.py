"""What `campaign show --json` says of the raters, from states made by hand."""

from datetime import UTC, datetime

import pytest

from orchestrator import views
from orchestrator.core.label_log import LabelLog
from orchestrator.core.records import Choice, Label, Purpose
from orchestrator.core.state import Batch, CampaignState
from orchestrator.report import story


def batch_of(*items: str) -> Batch:
    """A batch in which each item has these verdicts: f(irst), s(econd), t(ie), - for a skip."""
    said = {"f": Choice.FIRST, "s": Choice.SECOND, "t": Choice.TIE, "-": Choice.SKIP}
    labels = tuple(
        Label(item=item, rater=f"r{rater}", choice=said[verdict])
        for item, verdicts in enumerate(items)
        for rater, verdict in enumerate(verdicts)
    )
    return Batch(
        purpose=Purpose.INITIAL,
        stage=None,
        attempt=None,
        comparisons="0" * 64,
        count=len(items),
        labels=labels,
        drawn_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("items", "share"),
    [
        ((), None),
        (("f", "s", "t"), None),  # one rater an item
        (("ff", "fs"), 1 / 2),
        (("fff", "ffs"), 4 / 6),  # three pairs and one pair of three
        (("f-", "ss"), 1.0),  # who skips says nothing
        (("tt", "tf"), 1 / 2),
    ],
)
def test_agreement_between_raters_counts_pairs_on_one_item(items: tuple[str, ...], share: float | None) -> None:
    state = CampaignState(batches=(batch_of(*items),))
    told = views.raters(state)
    assert (told["agreement_with_gold"], told["agreement_between_raters"]) == (None, share)


def test_agreement_with_gold_is_the_share_of_what_could_be_compared() -> None:
    state = CampaignState(labels_with_gold=40, labels_agreed_with_gold=31)
    assert views.raters(state)["agreement_with_gold"] == 31 / 40


def test_what_a_raters_words_tell_of_the_rater() -> None:
    """Of four decided pairs, the last two swapped, ann chose the left one three times; of two repeats she kept one."""
    batch = batch_of("f", "s", "s", "s", "t").model_copy(
        update={
            "labels": LabelLog(
                Label(item=item, rater="ann", choice=choice, swapped=item in (2, 3))
                for item, choice in enumerate((Choice.FIRST, Choice.SECOND, Choice.SECOND, Choice.SECOND, Choice.TIE))
            ),
            "repeats": (
                Label(item=0, rater="ann", choice=Choice.FIRST, swapped=True),
                Label(item=1, rater="ann", choice=Choice.FIRST, swapped=True),
            ),
        }
    )
    (ann,) = views.raters(CampaignState(batches=(batch,)))["by_rater"]
    assert ann == {
        "rater": "ann", "labels": 5, "left_share": 3 / 4, "repeats": 2, "steady_share": 1 / 2, "checks": 0,
        "checks_right_share": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("with_gold", "between", "words"),
    [
        (None, None, None),
        (0.775, None, "Raters agree with gold in 77.5% of the comparisons that both decide."),
        (None, 0.5, "Raters agree with one another in 50.0% of the pairs of verdicts on one comparison."),
    ],
)
def test_the_report_tells_it_in_one_sentence(with_gold: float | None, between: float | None, words: str | None) -> None:
    assert story.raters_told({"agreement_with_gold": with_gold, "agreement_between_raters": between}) == words
