"""Labels in order of arrival, against a plain list: of any log of a history that branches, old ones too."""

import copy
import itertools
import pickle
import sys
import threading
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.label_log import LabelLog
from orchestrator.core.records import Choice, Label, Record

ITEMS, RATERS = range(4), ("ann", "bob", "cyd")


class Holder(Record):
    labels: LabelLog


def label(item: int, rater: str = "ann", choice: Choice = Choice.FIRST) -> Label:
    return Label(item=item, rater=rater, choice=choice)


def front_of(labels: Sequence[Label], verdicts: int) -> int:
    """The first item with fewer than so many labels."""
    return next(n for n in itertools.count() if sum(label.item == n for label in labels) < verdicts)


def assert_same(log: LabelLog, plain: list[Label]) -> None:
    """Everything that can be asked of a log, told by a list alone."""
    assert len(log) == len(plain)
    assert list(log) == plain
    assert log.all() == tuple(plain)
    assert bool(log) is bool(plain)
    assert log == tuple(plain)
    assert log == LabelLog(plain)
    assert hash(log) == hash(tuple(plain))
    assert log.raters == {label.rater for label in plain}
    for item in ITEMS:
        assert log.on(item) == tuple(label for label in plain if label.item == item)
        assert log.count_on(item) == sum(label.item == item for label in plain)
        for rater in RATERS:
            assert log.of(item, rater) == next(
                (label for label in plain if (label.item, label.rater) == (item, rater)), None
            )
    for rater in RATERS:
        assert log.by(rater) == tuple(label for label in plain if label.rater == rater)
        assert log.count_by(rater) == sum(label.rater == rater for label in plain)
    for verdicts in (1, 2, 3):
        assert log.front(verdicts) == front_of(plain, verdicts)
    for place in range(-len(plain), len(plain)):
        assert log[place] == plain[place]
    for places in (slice(None), slice(2), slice(1, None), slice(None, None, -2), slice(-3, 9)):
        assert log[places] == tuple(plain[places])
    with pytest.raises(IndexError):
        log[len(plain)]
    assert (label(0) in log) is (label(0) in plain)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 60),  # which of the logs so far to go on from
        st.booleans(),  # take back, where that can be done
        st.sampled_from(ITEMS),
        st.sampled_from(RATERS),
        st.sampled_from([Choice.FIRST, Choice.TIE]),
        st.lists(st.integers(0, 60), max_size=2),  # which ones to ask afterwards
    ),
    max_size=25,
)


@given(STEPS)
def test_any_log_of_any_history_is_a_list(steps: list[tuple[int, bool, int, str, Choice, list[int]]]) -> None:
    logs: list[tuple[LabelLog, list[Label]]] = [(LabelLog(), [])]
    for which, back, item, rater, choice, asked in steps:
        log, plain = logs[which % len(logs)]
        known = next((label for label in plain if (label.item, label.rater) == (item, rater)), None)
        if known is None and back:
            with pytest.raises(ValueError, match=f"{rater} has no label on item {item}"):
                log.minus(item, rater)
        elif known is None:
            said = label(item, rater, choice)
            logs.append((log.plus(said), [*plain, said]))
        elif back:
            logs.append((log.minus(item, rater), [label for label in plain if label is not known]))
        else:
            with pytest.raises(ValueError, match=f"{rater} has labelled item {item} already"):
                log.plus(label(item, rater, choice))
        for number in asked:
            assert_same(*logs[number % len(logs)])
    for log, plain in logs:
        assert_same(log, plain)


def test_one_log_two_futures() -> None:
    """As a trial of what is not recorded in the end, and something else that is."""
    before = LabelLog([label(0)])
    tried = before.plus(label(1, choice=Choice.TIE))
    recorded = before.plus(label(1, choice=Choice.SECOND))
    assert_same(tried, [label(0), label(1, choice=Choice.TIE)])
    assert_same(recorded, [label(0), label(1, choice=Choice.SECOND)])
    assert_same(before, [label(0)])
    assert tried != recorded
    assert recorded == before.plus(label(1, choice=Choice.SECOND)), "tried once more"


def test_what_was_taken_back_may_be_said_again_and_comes_last() -> None:
    log = LabelLog([label(0), label(1), label(0, "bob")])
    again = log.minus(0, "ann").plus(label(0, "ann", Choice.TIE))
    assert_same(again, [label(1), label(0, "bob"), label(0, "ann", Choice.TIE)])
    assert_same(log, [label(0), label(1), label(0, "bob")])


def test_taking_back_moves_the_front_back() -> None:
    log = LabelLog(label(item) for item in range(4))
    assert (log.front(1), log.minus(2, "ann").front(1), log.front(1)) == (4, 2, 4)


def test_a_rater_labels_an_item_once() -> None:
    with pytest.raises(ValueError, match="ann has labelled item 3 twice"):
        LabelLog([label(3), label(3, choice=Choice.TIE)])


def test_a_record_holds_it_and_reads_it_back() -> None:
    held = Holder(labels=LabelLog([label(0), label(1, "bob", Choice.TIE)]))
    assert held.model_dump(mode="json")["labels"] == [
        {"item": 0, "rater": "ann", "choice": "first", "harm": None, "swapped": False},
        {"item": 1, "rater": "bob", "choice": "tie", "harm": None, "swapped": False},
    ]
    assert Holder.model_validate_json(held.model_dump_json()) == held
    assert Holder.model_validate({"labels": ({"item": 0, "rater": "ann", "choice": "first"},)}).labels == (label(0),)


def test_a_copy_is_a_log_of_its_own() -> None:
    log = LabelLog([label(0), label(1)]).minus(0, "ann")
    for copied in (copy.deepcopy(log), pickle.loads(pickle.dumps(log))):
        assert_same(copied, [label(1)])
        assert_same(copied.plus(label(2)), [label(1), label(2)])
    assert_same(log, [label(1)])


def test_it_is_neither_equal_to_nor_made_of_something_else() -> None:
    assert LabelLog([label(0)]) != [label(0)]
    assert LabelLog() != "nothing"


def test_thirty_thousand_come_one_by_one() -> None:
    """Were each a copy of those before it, this would take hours."""
    log, old = LabelLog(), LabelLog()
    for item in range(30_000):
        log = log.plus(label(item))
        assert log.front(1) == item + 1
        if item == 50:
            old = log
    assert (len(log), len(old), old.front(1)) == (30_000, 51, 51)
    assert log[29_999] == label(29_999)


def test_threads_may_ask_while_another_adds() -> None:
    """Readers hold logs of their own; what is asked of them is what they held, whatever goes on meanwhile."""
    logs = [LabelLog()]
    wrong: list[object] = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            place = len(logs) - 1
            # Of every three steps the last takes back what the second said.
            said = place - 2 * (place // 3)
            log = logs[place]
            told = (len(log), log.count_by("ann"), log.front(1), len([*log]))
            if told != (said,) * 4:
                wrong.append((place, said, told))

    readers = [threading.Thread(target=read) for _ in range(3)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for reader in readers:
            reader.start()
        for step in range(1500):
            log = logs[-1]
            logs.append(log.minus(len(log) - 1, "ann") if step % 3 == 2 else log.plus(label(len(log))))
    finally:
        over.set()
        for reader in readers:
            reader.join()
        sys.setswitchinterval(interval)
    assert not wrong
    assert len(logs[-1]) == 500
