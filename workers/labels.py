"""Labels as learning takes them: sealed comparisons joined with what people said of them, and who wrote what."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.core.records import Choice
from orchestrator.core.work import LabelledBatch
from policies.implicit_reward import sequence_logp
from policies.importance import ImportanceWeights, importance_weights
from policies.preference_phase import LabelledPair
from policies.reward_fit import Comparison
from workers.bench import Bench


@dataclass(frozen=True, slots=True)
class Labelled:
    """A comparison that somebody had an opinion on."""

    item: str
    prompt: str
    response_1: str
    response_2: str
    target: float
    """Mean opinion: share of the preference that goes to response_1."""
    round: int
    drawn_by: tuple[str | None, str | None]
    """Checkpoints that drew response_1 and response_2; None where the ledger does not say."""

    def row(self) -> dict[str, Any]:
        """The line of a label set."""
        return {
            "item": self.item,
            "prompt": self.prompt,
            "response_1": self.response_1,
            "response_2": self.response_2,
            "target": self.target,
            "round": self.round,
        }

    def comparison(self) -> Comparison:
        return Comparison(self.prompt, self.response_1, self.response_2, self.target, self.round)

    def pair(self, start: str) -> LabelledPair:
        """The comparison as a phase sees it that begins at checkpoint `start`."""
        own_1, own_2 = (drawer == start for drawer in self.drawn_by)
        return LabelledPair(
            self.prompt, self.response_1, self.response_2, self.target, self.round, own_1=own_1, own_2=own_2
        )


def labelled(batches: Sequence[LabelledBatch], bench: Bench) -> list[Labelled]:
    """All comparisons of these batches that have a label, oldest batch first."""
    return [item for at, batch in enumerate(batches) for item in _of_batch(batch, at, bench)]


def towards(policy: str, labels: Sequence[Labelled], cap: float, bench: Bench) -> ImportanceWeights:
    """Weigh labels by how likely checkpoint `policy` is to write what was compared.

    A response that nobody is known to have drawn counts as the policy's own.
    """
    log_ratio_2N = np.zeros(2 * len(labels))
    texts = [(label.prompt, text) for label in labels for text in (label.response_1, label.response_2)]
    drawers = [drawer for label in labels for drawer in label.drawn_by]
    for drawer in sorted({drawer for drawer in drawers if drawer not in (None, policy)}, key=str):
        rows = [row for row, found in enumerate(drawers) if found == drawer]
        prompts, responses = zip(*(texts[row] for row in rows), strict=True)
        now_B = sequence_logp(bench.policy(policy), prompts, responses)
        then_B = sequence_logp(bench.policy(str(drawer)), prompts, responses)
        log_ratio_2N[rows] = (now_B - then_B).double().cpu().numpy()
    return importance_weights(log_ratio_2N.reshape(-1, 2).sum(axis=1), cap)


def _of_batch(batch: LabelledBatch, at: int, bench: Bench) -> Iterable[Labelled]:
    for row in bench.artifacts.read_lines(batch.comparisons):
        target = _target(batch.choices[row["item"]])
        if target is not None:
            yield Labelled(
                item=f"{batch.batch}.{row['item']}",
                prompt=row["prompt"],
                response_1=row["response_1"],
                response_2=row["response_2"],
                target=target,
                round=at,
                drawn_by=_drawn_by(batch, row["item"]),
            )


def _drawn_by(batch: LabelledBatch, item: int) -> tuple[str | None, str | None]:
    if not batch.candidate_first:
        return batch.policy, batch.policy
    return (batch.policy, batch.opponent) if batch.candidate_first[item] else (batch.opponent, batch.policy)


def _target(said: tuple[Choice, ...]) -> float | None:
    values = [choice.first_wins for choice in said if choice.first_wins is not None]
    return sum(values) / len(values) if values else None
