"""Labels of a campaign: what its ledger recorded, joined with the texts that were compared."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.core.records import Choice, Label
from orchestrator.core.state import Batch, CampaignState
from orchestrator.home import Home
from orchestrator.labels.comparisons import Labelled
from orchestrator.labels.judgements import Judgement
from orchestrator.runner import read_state_at
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
    """Every label, for figures on raters; those of a gate before its verdict come without the reward model's opinion.

    Raises:
        UnknownCampaignError: there is no such campaign.
        IntegrityError: an artifact is missing or damaged.
    """
    state = read_state_at(ledger, campaign)[0]
    sealed = _sealed(state)
    return [
        Judgement(
            item=said.item,
            rater=said.label.rater,
            label=said.label.choice.value,
            prediction=None if said.batch is sealed else said.prediction,
            longer=_longer(said.row),
        )
        for said in _all(state, home)
    ]


def labels_of(ledger: Ledger, home: Home, campaign: str) -> tuple[list[Labelled], int]:
    """Every label that may leave, and how many may not: a gate's labels stay sealed until its verdict.

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
        )
        for said in _all(state, home)
        if said.batch is not sealed
    ]
    return labels, 0 if sealed is None else len(sealed.labels)


def _sealed(state: CampaignState) -> Batch | None:
    judging = state.open_attempt
    return state.gate_batch(judging) if judging is not None and judging.verdict is None else None


def _all(state: CampaignState, home: Home) -> Iterator[_Said]:
    for batch in state.batches:
        if batch.labels:
            rows = {row["item"]: row for row in home.artifacts().read_lines(batch.comparisons)}
            yield from (_Said(batch, label, rows[label.item]) for label in batch.labels)


def _longer(row: dict[str, Any]) -> int:
    first, second = len(row["response_1"]), len(row["response_2"])
    return 0 if first == second else 1 if first > second else 2
