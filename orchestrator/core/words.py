"""What raters and adjudicators say, and what it does to a batch. Called by `history` as it folds.

A person's last word on a comparison stays open: they may take it back until they say the next one, or until somebody
speaks `OPEN_FOR` later. A gate does not look at an open word, so that no label changes once it was judged by; a word
that is taken back later is noted as a regret and stands.
"""

from datetime import datetime, timedelta
from typing import Any, Final

from orchestrator.core import events as ev
from orchestrator.core.events import Event
from orchestrator.core.label_log import LabelLog
from orchestrator.core.panels import deadline, raters_per_item
from orchestrator.core.records import Label, Purpose
from orchestrator.core.rules import (
    batch_of,
    require,
    require_known_raters,
    require_may_bring,
    require_may_judge,
    require_own_word,
)
from orchestrator.core.state import Adjudication, Batch, Brought, CampaignState, OpenWord

OPEN_FOR: Final = timedelta(minutes=15)


def labels_recorded(state: CampaignState, event: Event, body: ev.LabelsRecorded) -> CampaignState:
    batch = _by_now(state, event, batch_of(state, event, body.batch))
    raters = frozenset(label.rater for label in body.labels)
    if body.origin is None:
        require_own_word(event, raters, body.credential)
    else:
        require_may_bring(state, event, batch, body)
    require_known_raters(state, event, batch, raters)
    if batch.purpose.judges:
        require_may_judge(state, event, batch, body)
    labels, wanted = batch.labels, raters_per_item(batch, state)
    # Neither a late word nor one too many moves the time that the next queue has.
    in_time = not batch.expired and any(labels.count_on(label.item) < wanted for label in body.labels)
    for label in body.labels:
        labels = _with_label(event, batch, labels, label)
    with_gold, agreed = body.with_gold or 0, body.agreed_with_gold or 0
    require(event, agreed <= with_gold <= len(body.labels), "more labels agree with gold than could be compared")
    labelled_at = event.at if in_time else batch.labelled_at
    batch = batch.model_copy(update={"labels": labels, "labelled_at": labelled_at})
    if body.origin is None:
        last = body.labels[-1]
        state = _spoken(replace_batch(state, batch), event, batch.id, last.rater, last.item)
    else:
        brought = Brought(by=event.author, labels=len(body.labels))
        batch = batch.model_copy(update={"brought": (*batch.brought, brought)})
        state = _final(replace_batch(state, batch), event, raters)
    return state.model_copy(
        update={
            "labels": state.labels.plus(batch.purpose, _bought(state, batch, body)),
            "labels_with_gold": state.labels_with_gold + with_gold,
            "labels_agreed_with_gold": state.labels_agreed_with_gold + agreed,
        }
    )


def label_withdrawn(state: CampaignState, event: Event, body: ev.LabelWithdrawn) -> CampaignState:
    batch = _by_now(state, event, batch_of(state, event, body.batch))
    require_own_word(event, frozenset({body.rater}), body.credential)
    require(event, batch.labels.of(body.item, body.rater) is not None, f"{body.rater} has no label there")
    word = open_word(state, batch, body.rater)
    if word is None or word.item != body.item:
        return replace_batch(state, batch.model_copy(update={"regrets": batch.regrets + 1}))
    update: dict[str, Any] = {"open_words": _others(batch.open_words, body.rater)}
    if word.repeat:
        update["repeats"] = batch.repeats.minus(body.item, body.rater)
    else:
        update["labels"] = batch.labels.minus(body.item, body.rater)
    # What was taken back is not paid for; the word that comes instead is.
    paid = state.labels.plus(Purpose.CHECKS if word.repeat else batch.purpose, -1)
    return replace_batch(state, batch.model_copy(update=update)).model_copy(update={"labels": paid})


def label_repeated(state: CampaignState, event: Event, body: ev.LabelRepeated) -> CampaignState:
    batch, label = batch_of(state, event, body.batch), body.label
    require_own_word(event, frozenset({label.rater}), body.credential)
    require(event, batch.labels.of(label.item, label.rater) is not None, f"{label.rater} never labelled this before")
    once = batch.repeats.of(label.item, label.rater) is None
    require(event, once, f"{label.rater} has labelled item {label.item} of {batch.id} twice already")
    state = replace_batch(state, batch.model_copy(update={"repeats": batch.repeats.plus(label)}))
    state = _spoken(state, event, batch.id, label.rater, label.item, repeat=True)
    return state.model_copy(update={"labels": state.labels.plus(Purpose.CHECKS, 1)})


def label_adjudicated(state: CampaignState, event: Event, body: ev.LabelAdjudicated) -> CampaignState:
    batch = batch_of(state, event, body.batch)
    require_own_word(event, frozenset({body.adjudicator}), body.credential)
    require(event, batch.purpose.trains, f"the labels of {batch.id} tell of a rater, and nobody settles them")
    said = {label.choice for label in batch.labels.on(body.item)}
    require(event, len(said) > 1, f"its raters do not disagree on item {body.item} of {batch.id}")
    word = Adjudication(item=body.item, choice=body.choice, adjudicator=body.adjudicator, reason=event.reason)
    return replace_batch(state, batch.model_copy(update={"adjudications": (*batch.adjudications, word)}))


def open_word(state: CampaignState, batch: Batch, rater: str) -> OpenWord | None:
    """A rater's word in a batch that can still be taken back."""
    word = next((word for word in batch.open_words if word.rater == rater), None)
    if word is None:
        return None
    attempt = state.open_attempt
    judged = batch.purpose.judges and (
        attempt is None
        or (batch.stage, batch.attempt) != (attempt.stage, attempt.attempt)
        or attempt.verdict is not None
    )
    # Where the labels of a queue are all in, the campaign may have gone on with them.
    over = batch.purpose is not Purpose.CHECKS and batch.complete(raters_per_item(batch, state))
    return None if judged or (over and not word.repeat) else word


def _by_now(state: CampaignState, event: Event, batch: Batch) -> Batch:
    """The batch as the clock has it, where no controller was there to say that its time was up."""
    due = deadline(state, batch)
    return expired(batch, event.at) if due is not None and event.at > due else batch


def expired(batch: Batch, at: datetime) -> Batch:
    """A batch whose time is up; a second time changes nothing."""
    if batch.expired:
        return batch
    return batch.model_copy(update={"expired_after": len(batch.labels), "labelled_at": at, "open_words": ()})


def replace_batch(state: CampaignState, batch: Batch) -> CampaignState:
    return state.model_copy(update={"batches": tuple(batch if b.id == batch.id else b for b in state.batches)})


def _with_label(event: Event, batch: Batch, labels: LabelLog, label: Label) -> LabelLog:
    require(event, label.item < batch.count, f"batch {batch.id} has no item {label.item}")
    once = labels.of(label.item, label.rater) is None
    require(event, once, f"{label.rater} has labelled item {label.item} of {batch.id} already")
    return labels.plus(label)


def _spoken(
    state: CampaignState, event: Event, batch: str, rater: str, item: int, *, repeat: bool = False
) -> CampaignState:
    """A person's new word is open, their earlier ones are final, and so is what was said long ago.

    Programs do not slip, and auditors see no further than what is judged: their words are final at once.
    """
    if event.epoch is not None:
        return state
    state = _final(state, event, frozenset({rater}))
    known = batch_of(state, event, batch)
    if known.purpose is Purpose.AUDIT or known.expired:
        return state
    word = OpenWord(rater=rater, item=item, repeat=repeat, said_at=event.at)
    return replace_batch(state, known.model_copy(update={"open_words": (*known.open_words, word)}))


def _final(state: CampaignState, event: Event, raters: frozenset[str]) -> CampaignState:
    """What these raters said before is final, and what anybody said long ago."""
    batches = []
    for known in state.batches:
        words = tuple(w for w in known.open_words if w.rater not in raters and event.at - w.said_at <= OPEN_FOR)
        batches.append(known if words == known.open_words else known.model_copy(update={"open_words": words}))
    return state.model_copy(update={"batches": tuple(batches)})


def _others(words: tuple[OpenWord, ...], rater: str) -> tuple[OpenWord, ...]:
    return tuple(word for word in words if word.rater != rater)


def _bought(state: CampaignState, batch: Batch, body: ev.LabelsRecorded) -> int:
    """Labels that cost the campaign something: an audit that can refuse nothing is the experimenter's."""
    instrument = batch.purpose is Purpose.AUDIT and state.gate.audit.limit is None
    return 0 if instrument else len(body.labels)
