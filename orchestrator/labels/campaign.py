"""Labels of a campaign: what its ledger recorded, joined with the texts that were compared."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.core.commands import AskForLabels
from orchestrator.core.events import ComparisonsDrawn
from orchestrator.core.machine import next_command
from orchestrator.core.panels import asked_by_name, mixes_checks, raters_per_item
from orchestrator.core.records import Choice, Label, Purpose
from orchestrator.core.settings import CampaignSettings
from orchestrator.core.state import Batch, CampaignState
from orchestrator.core.work import batch_id
from orchestrator.errors import UsageError
from orchestrator.home import Home
from orchestrator.labels.comparisons import Comparison, Labelled
from orchestrator.labels.judgements import Judgement
from orchestrator.runner import read_settings, read_state_at
from orchestrator.store.ledger import Ledger


@dataclass(frozen=True, slots=True)
class _Said:
    """A label with what was compared."""

    batch: Batch
    label: Label
    row: dict[str, Any]

    @property
    def item(self) -> str:
        return f"{self.batch.id}.{self.label.item}"

    @property
    def prediction(self) -> str | None:
        """What the reward model foretold, where it leaned to a side."""
        p_candidate = self.batch.p_hat[self.label.item] if self.batch.p_hat else 0.5
        if p_candidate == 0.5:
            return None
        first_wins = self.batch.candidate_first[self.label.item] == (p_candidate > 0.5)
        return (Choice.FIRST if first_wins else Choice.SECOND).value


def judgements_of(ledger: Ledger, home: Home, campaign: str) -> list[Judgement]:
    """Every label of the raters, for figures on them. Check items, which are clear by design, are left out.

    Labels of a gate come without the reward model's opinion until its verdict; after that, those that were audited
    come with what the auditor said.

    Raises:
        UnknownCampaignError: there is no such campaign.
        IntegrityError: an artifact is missing or damaged.
    """
    state = read_state_at(ledger, campaign)[0]
    sealed, audited = _sealed(state), _audited(state)
    return [
        Judgement(
            item=said.item,
            rater=said.label.rater,
            label=said.label.choice.value,
            gold=None if said.batch.id in sealed else audited.get(said.item),
            prediction=None if said.batch.id in sealed else said.prediction,
            longer=_longer(said.row),
        )
        for said in _all(state, home)
    ]


def labels_of(ledger: Ledger, home: Home, campaign: str) -> tuple[list[Labelled], int]:
    """Every label that may leave, and how many may not: a gate's labels stay sealed until its verdict. Those of audits
    and check items are no labels to learn from and never leave.

    Raises:
        UnknownCampaignError, IntegrityError: as `judgements_of`.
    """
    state = read_state_at(ledger, campaign)[0]
    sealed = _sealed(state)
    labels = [
        Labelled(
            item=said.item,
            rater=said.label.rater,
            label=said.label.choice,
            prompt=said.row["prompt"],
            response_1=said.row["response_1"],
            response_2=said.row["response_2"],
            harm=said.label.harm,
        )
        for said in _all(state, home)
        if said.batch.id not in sealed
    ]
    return labels, sum(len(batch.labels) for batch in state.batches if batch.id in sealed)


@dataclass(frozen=True, slots=True)
class Tasks:
    """What people elsewhere are to label, in the sealed order and with the sealed sides."""

    batch: str
    raters: int
    """Verdicts wanted of each."""
    comparisons: tuple[Comparison, ...]
    mixes_checks: bool
    """Whether raters at a desk would meet check items in between; then no file brings these labels back."""


def tasks_of(ledger: Ledger, home: Home, campaign: str, batch: str | None, person: str | None = None) -> Tasks:
    """The comparisons of the queue that waits which still lack verdicts, or all those of a batch; where a person is
    named, those alone that want theirs.

    Nothing tells which side is the candidate's or what its reward model foretold. Check items stay: among tasks that
    are all alike they would be met by nobody unseen.

    Raises:
        UsageError: nothing waits for labels, or there is no such batch of comparisons.
        UnknownCampaignError, IntegrityError: as `judgements_of`.
    """
    state, settings = read_state_at(ledger, campaign)[0], read_settings(ledger, campaign)
    command = next_command(state, settings)
    asked = command if isinstance(command, AskForLabels) else None
    known = {found.id: found for found in state.batches if found.purpose is not Purpose.CHECKS}
    if batch is None and asked is None:
        raise UsageError(
            f"campaign {campaign} waits for no labels; --batch names one of {', '.join(known) or 'its batches, later'}"
        )
    if batch is not None and batch not in known:
        raise UsageError(
            f"campaign {campaign} has no batch {batch!r} to label; known: {', '.join(known) or 'none yet'}"
        )
    if batch is None:
        assert asked is not None
        chosen, wanted = asked.batch, asked.wanted
    else:
        chosen, wanted = known[batch], known[batch].count
    raters = raters_per_item(chosen, settings)
    said = chosen.choices(raters)
    items = [item for item in range(wanted) if batch is not None or len(said[item]) < raters]
    if person is not None:
        items = [item for item in items if _wants(chosen, item, person, settings)]
    rows = {row["item"]: row for row in home.artifacts().read_lines(chosen.comparisons)}
    seal = seals_of(ledger, campaign)[chosen.id]
    comparisons = tuple(_comparison(chosen, item, rows[item], seal) for item in items)
    return Tasks(chosen.id, raters, comparisons, mixes_checks(chosen, settings))


def seals_of(ledger: Ledger, campaign: str) -> dict[str, str]:
    """By batch, the hash of the event that sealed it: it covers the comparisons and all that came before them."""
    seals = {}
    for stored in ledger.events(campaign):
        if stored.type == ComparisonsDrawn.TYPE:
            drawn = stored.body
            seals[batch_id(Purpose(drawn["purpose"]), drawn["stage"], drawn["attempt"])] = stored.hash
    return seals


def _wants(batch: Batch, item: int, person: str, settings: CampaignSettings) -> bool:
    asked = asked_by_name(batch, item, settings)
    return batch.labels.of(item, person) is None and (asked is None or person in asked)


def _comparison(batch: Batch, item: int, row: dict[str, Any], seal: str) -> Comparison:
    return Comparison(f"{batch.id}.{item}", row["prompt"], row["response_1"], row["response_2"], seal)


def _sealed(state: CampaignState) -> frozenset[str]:
    """Batches of what the raters say in a gate that has no verdict yet."""
    judging = state.open_attempt
    if judging is None or judging.verdict is not None:
        return frozenset()
    return frozenset(batch.id for batch in state.panels(judging) if batch.purpose.trains)


def _audited(state: CampaignState) -> dict[str, str]:
    """By item of a gate, what its auditor says."""
    said: dict[str, str] = {}
    for batch in state.batches:
        if batch.purpose is Purpose.AUDIT:
            gate = batch_id(Purpose.GATE, batch.stage, batch.attempt)
            said |= {
                f"{gate}.{label.item}": label.choice.value for label in batch.labels if label.choice is not Choice.SKIP
            }
    return said


def _all(state: CampaignState, home: Home) -> Iterator[_Said]:
    for batch in state.batches:
        if batch.labels and batch.purpose.trains:
            rows = {row["item"]: row for row in home.artifacts().read_lines(batch.comparisons)}
            yield from (_Said(batch, label, rows[label.item]) for label in batch.labels)


def _longer(row: dict[str, Any]) -> int:
    first, second = len(row["response_1"]), len(row["response_2"])
    return 0 if first == second else 1 if first > second else 2
