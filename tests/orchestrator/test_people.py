"""People at one campaign: everybody's word counts once, on the history that they saw."""

import random
import threading
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from orchestrator.people import Desk, asked_by_name, missing_by_name, same_name
from small_campaigns import Campaign, Small, against_the_candidate, for_the_candidate, with_people

from orchestrator.core.commands import AskForDecision, AskForLabels
from orchestrator.core.records import Choice, Decision, Harm, Purpose, Status, Verdict
from orchestrator.core.state import Batch
from orchestrator.errors import UsageError
from orchestrator.store.ledger import Ledger


@pytest.fixture
def waiting(small: Small) -> Campaign:
    """A campaign whose initial comparisons wait for labels of two raters each."""
    campaign = small.campaign(**with_people(feedback={"raters_per_item": 2, "initial_labels": 10}))
    campaign.run()
    return campaign


def next_of(desk: Desk) -> tuple[str, int, int] | None:
    """Batch, item, and the how-manieth it is for this person."""
    asked = desk.asked()
    return None if asked is None else (asked.batch.id, asked.item, asked.number)


def all_of(desk: Desk, choice: Choice = Choice.TIE) -> list[int]:
    """Label until nothing more is asked; gives the items in the order that they came."""
    items, numbers = [], []
    while (asked := desk.asked()) is not None:
        desk.label(asked.batch, asked.item, choice)
        items.append(asked.item)
        numbers.append(asked.number)
    assert not numbers or numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return items


def test_each_person_sees_the_items_that_still_need_them(waiting: Campaign) -> None:
    ann, bob, cyd = (waiting.desk(name) for name in ("ann", "bob", "cyd"))
    batch = ann.open_batch()
    assert batch is not None
    for item in range(8):
        ann.label(batch, item, Choice.FIRST)
    assert sorted(all_of(ann)) == [8, 9]
    for item in range(7):
        bob.label(batch, item, Choice.TIE)
    assert sorted(all_of(cyd)) == [7, 8, 9]
    assert next_of(bob) is None


def test_people_without_an_order_seldom_meet_on_an_item(small: Small) -> None:
    """Side by side, 60 items of one label each: whoever is quicker would win each time that two meet."""
    campaign = small.campaign(**with_people(feedback={"initial_labels": 60}))
    campaign.run()
    ann, bob = campaign.desk("ann"), campaign.desk("bob")
    met = rounds = 0
    while (first := ann.asked()) is not None and (second := bob.asked()) is not None:
        rounds += 1
        met += first.item == second.item
        ann.label(first.batch, first.item, Choice.FIRST)
        if first.item != second.item:
            bob.label(second.batch, second.item, Choice.FIRST)
    assert rounds >= 30
    assert met < rounds / 3
    assert sorted(label.item for label in campaign.state.batches[0].labels) == list(range(60))


def test_a_desk_reads_what_is_new_and_nothing_twice(waiting: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    ann, bob = waiting.desk("ann"), waiting.desk("bob")
    assert ann.asked() is not None
    read: list[int] = []
    events = Ledger.events

    def counted(ledger: Ledger, campaign: str, after_seq: int = -1) -> Any:
        found = events(ledger, campaign, after_seq)
        read.extend(event.seq for event in found)
        return found

    assert len(all_of(bob)) == 10
    head = waiting.ledger.head(waiting.name).seq
    monkeypatch.setattr(Ledger, "events", counted)
    assert len(all_of(ann)) == 10
    assert read == list(range(head - 9, head + 11)), "bob's ten labels, then each of one's own"


def test_a_label_said_twice_is_one_and_another_word_is_refused(waiting: Campaign) -> None:
    ann = waiting.desk("ann")
    batch = ann.open_batch()
    assert batch is not None
    ann.label(batch, 0, Choice.FIRST)
    ann.label(batch, 0, Choice.FIRST)
    with pytest.raises(UsageError, match="already"):
        ann.label(batch, 0, Choice.SECOND)
    with pytest.raises(UsageError, match="no item 10"):
        ann.label(batch, 10, Choice.FIRST)
    assert waiting.state.labels.total == 1


def test_labels_of_many_at_once_are_all_kept(waiting: Campaign) -> None:
    """Six people label everything at the same time, each over a connection of its own; two labels an item suffice."""
    acknowledged: list[tuple[int, str]] = []
    refused: list[str] = []

    def work(person: str) -> None:
        with waiting.home.ledger() as ledger:
            desk = Desk(ledger, waiting.name, person)
            batch = waiting.state.batches[0]
            for item in range(batch.count):
                try:
                    desk.label(batch, item, Choice.FIRST)
                    acknowledged.append((item, person))
                except UsageError as error:
                    refused.append(str(error))

    threads = [threading.Thread(target=work, args=(f"p{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    said = [(label.item, label.rater) for label in waiting.state.batches[0].labels]
    assert sorted(said) == sorted(acknowledged)
    assert len(said) + len(refused) == 60
    assert all("needs no label any more" in why for why in refused)
    assert all(sum(item == labelled for labelled, _ in said) >= 2 for item in range(10))
    assert waiting.ledger.verify(waiting.name).ok


@pytest.mark.parametrize("first", [Decision.APPROVE, Decision.REJECT])
def test_of_two_that_decide_one_after_the_other_the_first_stands(small: Small, first: Decision) -> None:
    campaign = small.campaign(**with_people())
    candidate = campaign.run_until_candidate()
    second = Decision.REJECT if first is Decision.APPROVE else Decision.APPROVE
    assert campaign.desk("ann").decide(first, candidate[:8].upper(), "read twenty") == candidate
    with pytest.raises(UsageError, match="no candidate waits"):
        campaign.desk("bob").decide(second, candidate, "read forty")
    assert campaign.desk("ann").decide(first, candidate, "read twenty") == candidate
    with pytest.raises(UsageError):
        campaign.desk("ann").decide(second, candidate, "changed my mind")
    assert campaign.types.count("decision_made") == 1


def test_nobody_approves_twice_under_two_spellings(small: Small) -> None:
    campaign = small.campaign(**with_people(approval={"approvers": 2}))
    candidate = campaign.run_until_candidate()
    campaign.desk(same_name("Ann")).decide(Decision.APPROVE, candidate, "good")
    campaign.desk(same_name(" \uff21NN ")).decide(Decision.APPROVE, candidate, "good")
    assert campaign.types.count("decision_made") == 1
    assert campaign.desk().candidate() is not None


def test_nothing_can_be_decided_while_paused_or_after_the_end(small: Small) -> None:
    campaign = small.campaign(**with_people())
    candidate = campaign.run_until_candidate()
    campaign.desk().pause("lunch")
    with pytest.raises(UsageError, match="no candidate waits"):
        campaign.desk().decide(Decision.APPROVE, candidate, "good")
    campaign.desk().stop("enough")
    with pytest.raises(UsageError):
        campaign.desk().decide(Decision.APPROVE, candidate, "good")
    assert campaign.state.status is Status.STOPPED
    assert campaign.state.approved == campaign.state.base


def test_only_those_whom_the_campaign_names_may_label(small: Small) -> None:
    campaign = small.campaign(**with_people(feedback={"raters": ["Ann", "bob"]}))
    campaign.run()
    ann, cyd = campaign.desk(same_name("ANN")), campaign.desk("cyd")
    asked = ann.asked()
    assert asked is not None
    ann.label(asked.batch, asked.item, Choice.TIE)
    assert cyd.asked() is None
    assert cyd.refusal() == "cyd is not among the raters of campaign small (feedback.raters)"
    with pytest.raises(UsageError, match="cyd is not among the raters"):
        cyd.label(asked.batch, 1, Choice.TIE)
    assert [label.rater for label in campaign.state.batches[0].labels] == ["ann"]


def test_harm_is_recorded_beside_the_verdict(waiting: Campaign) -> None:
    ann = waiting.desk("ann")
    batch = ann.open_batch()
    assert batch is not None
    ann.label(batch, 0, Choice.FIRST, Harm.BOTH)
    ann.label(batch, 0, Choice.FIRST, Harm.BOTH)
    with pytest.raises(UsageError, match="already"):
        ann.label(batch, 0, Choice.FIRST)
    (label,) = waiting.state.batches[0].labels
    assert (label.choice, label.harm) == (Choice.FIRST, Harm.BOTH)


# --- who is asked for what --------------------------------------------------------------------------------------


def a_gate(count: int) -> Batch:
    return Batch(
        purpose=Purpose.GATE,
        stage=0,
        attempt=0,
        comparisons="c" * 64,
        count=count,
        candidate_first=(True,) * count,
        drawn_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def test_the_lot_does_not_ask_who_is_quick(small: Small) -> None:
    """Three raters toss fair coins, and are 1.3 times faster when they favour the candidate."""
    settings = small.settings(**with_people(feedback={"raters": ["ann", "bob", "cyd"]}))
    dice, gate = random.Random(1), a_gate(4000)
    quickest = drawn = 0
    for item in range(gate.count):
        favours = {name: dice.random() < 0.5 for name in ("ann", "bob", "cyd")}
        takes = {name: dice.expovariate(1.3 if good else 1.0) for name, good in favours.items()}
        quickest += favours[min(takes, key=takes.__getitem__)]
        (name,) = asked_by_name(gate, item, settings) or ()
        drawn += favours[name]
    assert quickest / gate.count > 0.5 + 0.02, "the race favours the candidate"
    assert abs(drawn / gate.count - 0.5) < 3.3 * 0.5 / gate.count**0.5


@pytest.mark.parametrize("each", [1, 2])
def test_the_lot_treats_all_raters_alike_and_does_not_heed_their_order(small: Small, each: int) -> None:
    names = ["Ann", "bob", "cyd", "dee", " ANN"]
    gate, feedback = a_gate(2000), {"raters_per_item": each}
    settings = small.settings(**with_people(feedback={**feedback, "raters": names}))
    turned = small.settings(**with_people(feedback={**feedback, "raters": names[::-1]}))
    said: Counter[str] = Counter()
    for item in range(gate.count):
        asked = asked_by_name(gate, item, settings)
        assert asked == asked_by_name(gate, item, turned)
        assert asked is not None
        assert len(set(asked)) == each
        said.update(asked)
    expected = gate.count * each / 4
    assert set(said) == {"ann", "bob", "cyd", "dee"}
    assert all(abs(count - expected) < 4 * (expected * (1 - each / 4)) ** 0.5 for count in said.values())


def test_who_comes_first_changes_nothing_where_raters_are_named(small: Small) -> None:
    """Two gates on the same pairs, labelled in opposite orders by raters who disagree: the same verdicts count."""
    told = []
    people = {"ann": Choice.FIRST, "bob": Choice.SECOND, "cyd": Choice.TIE}
    for home, order in (("one", list(people)), ("two", list(people)[::-1])):
        campaign = small.campaign(home, **with_people(feedback={"raters": list(people), "raters_per_item": 2}))
        campaign.run()
        campaign.label(person="ann")
        campaign.label(person="bob")
        campaign.run()
        items = {person: all_of(campaign.desk(person), people[person]) for person in order}
        (gate,) = (batch for batch in campaign.state.batches if batch.purpose is Purpose.GATE)
        assert sorted(item for own in items.values() for item in own) == sorted(2 * list(range(40)))
        assert all(len(set(own)) == len(own) for own in items.values())
        assert campaign.desk().open_batch() is None, "nothing is missing any more"
        told.append((gate.comparisons, gate.outcomes(2), {label.model_dump_json() for label in gate.labels}))
    assert told[0] == told[1]


def test_nobody_labels_what_the_lot_drew_for_another(small: Small) -> None:
    """Who does not come is missed by name, and nobody can fill in."""
    campaign = at_the_gate(small, feedback={"raters": ["ann", "bob"]})
    ann, bob = campaign.desk("ann"), campaign.desk("bob")
    gate = ann.open_batch()
    assert gate is not None
    missing = sorted(set(range(40)) - set(all_of(ann)))
    assert missing
    with pytest.raises(UsageError, match=f"item {missing[0] + 1} of s0.a0.gate is for bob, by lot"):
        ann.label(gate, missing[0], Choice.TIE)
    ask = campaign.run().waiting_for
    assert isinstance(ask, AskForLabels)
    assert ask.settled == missing[0]
    assert missing_by_name(ask, campaign.settings) == {"bob": len(missing)}
    assert all_of(bob) == missing
    assert campaign.desk().open_batch() is None


# --- check items --------------------------------------------------------------------------------------------


def labelled_at_the_gate(campaign: Campaign, people: list[str], *, check: Any = None) -> dict[str, list[str]]:
    """Label in turns until nobody is asked any more; gives, person by person, the batches of their labels.

    Queues are labelled for the candidate, check items as `check` says, or rightly.
    """
    met: dict[str, list[str]] = {person: [] for person in people}
    numbers: dict[str, list[int]] = {person: [] for person in people}
    desks = {person: campaign.desk(person) for person in people}
    while True:
        before = sum(map(len, met.values()))
        for person in people:
            asked = desks[person].asked()
            if asked is None:
                continue
            if asked.batch.purpose is Purpose.CHECKS:
                said = check or asked.batch.expected[asked.item]
            else:
                said = for_the_candidate(asked.batch, asked.item)
            desks[person].label(asked.batch, asked.item, said)
            met[person].append(asked.batch.id)
            numbers[person].append(asked.number)
        if sum(map(len, met.values())) == before:
            break
    for person in people:
        assert numbers[person] == list(range(1, len(met[person]) + 1)), "no number is left out, or tells a check"
    return met


def at_the_gate(small: Small, **changes: Any) -> Campaign:
    campaign = small.campaign(**with_people(**changes))
    campaign.run()
    campaign.label()
    campaign.run()
    return campaign


def test_check_items_come_in_between_and_everybody_answers_the_same(small: Small) -> None:
    """Of 40 items two people label 20 each: in stretches of 3, so 7 checks each, were there not only 6."""
    campaign = at_the_gate(small, feedback={"checks": {"items": 6, "every": 4}}, gate={"audit": {"evaluator": "none"}})
    met = labelled_at_the_gate(campaign, ["ann", "bob"])
    checks = campaign.state.panel(campaign.state.attempts[0], Purpose.CHECKS)
    assert checks is not None
    for person, batches in met.items():
        answered = [label.item for label in checks.labels if label.rater == person]
        assert answered == list(range(6))
        assert batches.count("s0.a0.gate") == 20
        said = done = 0
        for batch in batches:
            if batch == "s0.a0.checks":
                done += 1
                continue
            assert min(said // 3 + 1, 6) <= done <= min(said // 3 + 2, 6)
            said += 1
    places = {person: [n for n, b in enumerate(said) if b.endswith("checks")] for person, said in met.items()}
    assert places["ann"] != places["bob"], "whoever counts knows nothing"
    assert campaign.state.labels.checks == 12
    assert campaign.run().state.attempts[0].verdict is not None


def test_who_fails_the_checks_carries_no_verdict(small: Small) -> None:
    campaign = at_the_gate(small, feedback={"checks": {"items": 2}}, protocol={"attempts": 1})
    labelled_at_the_gate(campaign, ["ann"], check=Choice.TIE)
    verdict = campaign.run().state.attempts[0].verdict
    assert verdict is not None
    assert verdict.verdict is Verdict.ROLLBACK
    (veto,) = verdict.vetoes
    assert veto.startswith("rater ann failed 1 of 1 check items")


def test_a_label_that_runs_ahead_of_its_check_is_refused(small: Small) -> None:
    campaign = at_the_gate(small, feedback={"checks": {"items": 2}})
    gate = campaign.desk().open_batch()
    assert gate is not None
    with pytest.raises(UsageError, match="ann has 1 check items to answer first"):
        campaign.desk().label(gate, 0, Choice.FIRST)


def test_every_queue_is_mixed_with_checks(small: Small) -> None:
    """Direction and path are asked after the gate's own queue: the checks go on from where they were."""
    campaign = at_the_gate(
        small,
        protocol={"stages": 2},
        feedback={"checks": {"items": 80, "every": 2}},
        gate={"audit": {"evaluator": "none"}},
    )
    met = labelled_at_the_gate(campaign, ["ann"])["ann"]
    assert list(dict.fromkeys(met)) == ["s0.a0.checks", "s0.a0.gate", "s0.a0.direction", "s0.a0.path"]
    assert met[::2] == ["s0.a0.checks"] * (len(met) // 2), "every second label is a check"
    assert "s0.a0.checks" not in met[1::2]
    assert isinstance(campaign.run().waiting_for, AskForDecision)


# --- audits by people ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [None, 0.9])
def test_an_audit_wants_other_eyes(small: Small, limit: float | None) -> None:
    campaign = at_the_gate(small, gate={"audit": {"evaluator": "people", "labels": 10, "limit": limit}})
    ann, bob = campaign.desk("ann"), campaign.desk("bob")
    gate = campaign.label(items=range(39))
    ann.label(gate, 39, for_the_candidate(gate, 39))
    assert ann.asked() is None
    assert ann.refusal() == "ann: you labelled this gate's comparisons; an audit wants other eyes"
    batch = bob.open_batch()
    assert batch is not None
    assert (batch.id, batch.count) == ("s0.a0.audit", 10)
    with pytest.raises(UsageError, match="an audit wants other eyes"):
        ann.label(batch, 0, Choice.FIRST)
    ann.label(gate, 39, for_the_candidate(gate, 39))  # said twice is said once, even now
    assert labelled_at_the_gate(campaign, ["ann", "bob"]) == {"ann": [], "bob": ["s0.a0.audit"] * 10}
    state = campaign.run().state
    (attempt,) = state.attempts
    assert attempt.verdict is not None
    assert attempt.verdict.verdict is Verdict.ADVANCE
    assert attempt.attribution is not None
    # Without a limit it decides nothing, and costs the campaign nothing.
    assert state.labels.audit == (0 if limit is None else 10)


def test_an_auditor_sees_what_was_judged_and_labels_none_of_it(small: Small) -> None:
    """The audit stops half-way for want of judged comparisons: the gate is asked again, and not the auditor."""
    audit = {"evaluator": "people", "labels": 80, "limit": 0.3}
    campaign = at_the_gate(small, gate={"max_labels": 80, "audit": audit})
    campaign.label(items=range(40))
    bob = campaign.desk("bob")
    audited = []
    while (asked := bob.asked()) is not None:
        assert asked.batch.id == "s0.a0.audit"
        audited.append(asked.item)
        says = for_the_candidate if asked.item % 2 else against_the_candidate
        bob.label(asked.batch, asked.item, says(asked.batch, asked.item))
    assert sorted(audited) == list(range(40))
    assert bob.refusal() == "bob: you audited this gate's comparisons; its labels want other eyes"
    asked = campaign.desk("ann").asked()
    assert asked is not None
    assert (asked.batch.id, asked.number) == ("s0.a0.gate", 41)
    assert 40 <= asked.item < 60


def test_an_audit_is_for_people_whom_the_campaign_does_not_name(small: Small) -> None:
    audit = {"evaluator": "people", "labels": 10, "limit": 0.9}
    campaign = at_the_gate(small, feedback={"raters": ["ann", "bob"]}, gate={"audit": audit})
    ann, bob, dee = (campaign.desk(name) for name in ("ann", "bob", "dee"))
    assert dee.refusal() == "dee is not among the raters of campaign small (feedback.raters)"
    while (asked := ann.asked() or bob.asked()) is not None and asked.batch.purpose is Purpose.GATE:
        person = ann if ann.asked() is not None else bob
        person.label(asked.batch, asked.item, for_the_candidate(asked.batch, asked.item))
    for rater in (ann, bob):
        assert rater.refusal() == f"{rater.person}: you labelled this gate's comparisons; an audit wants other eyes"
    assert labelled_at_the_gate(campaign, ["ann", "dee", "bob"]) == {"ann": [], "dee": ["s0.a0.audit"] * 10, "bob": []}
    verdict = campaign.run().state.attempts[0].verdict
    assert verdict is not None
    assert verdict.verdict is Verdict.ADVANCE
