"""People at one campaign: everybody's word counts once, on the history that they saw."""

import threading

import pytest
from small_campaigns import Campaign, Small, with_people

from orchestrator.core.records import Choice, Decision, Status
from orchestrator.errors import UsageError
from orchestrator.people import Desk, same_name


@pytest.fixture
def waiting(small: Small) -> Campaign:
    """A campaign whose initial comparisons wait for labels of two raters each."""
    campaign = small.campaign(**with_people(feedback={"raters_per_item": 2, "initial_labels": 10}))
    campaign.run()
    return campaign


def test_each_person_sees_the_items_that_still_need_them(waiting: Campaign) -> None:
    ann, bob, cyd = (waiting.desk(name) for name in ("ann", "bob", "cyd"))
    batch = ann.open_batch()
    assert batch is not None
    ann.label(batch, 0, Choice.FIRST)
    assert ann.next_item(waiting.state.batches[0]) == 1
    assert bob.next_item(waiting.state.batches[0]) == 0
    bob.label(batch, 0, Choice.TIE)
    assert cyd.next_item(waiting.state.batches[0]) == 1


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
