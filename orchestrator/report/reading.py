"""What a report reads besides the ledger: phases' step records, and samples to lay side by side.

An artifact that is damaged or gone leaves a gap in the report, and the report says so; it never guesses.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from orchestrator.artifacts import ArtifactStore
from orchestrator.core.events import ROLLOUT_STEPS
from orchestrator.core.settings import CampaignSettings
from orchestrator.core.state import Attempt, Batch, CampaignState
from orchestrator.errors import ArtifactCorruptError, ArtifactMissingError

"""In a phase's rollouts: one line of means a step."""
RANDOM_PAIRS: Final = 6
WORST_PAIRS: Final = 3

Place = tuple[int, int]
"""Stage and attempt."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StepRecord:
    """Means over one step's rollouts, before the step's update."""

    step: int
    reward: float
    """In standard deviations of the approved policy's rewards."""
    kl_nats: float


@dataclass(frozen=True, slots=True)
class Response:
    text: str
    gold: float | None


@dataclass(frozen=True, slots=True)
class Pair:
    """One prompt, answered by the approved checkpoint and by the candidate."""

    prompt: str
    approved: Response
    candidate: Response
    chosen: str
    """Why this pair is shown."""


@dataclass(frozen=True, slots=True)
class SampleSet:
    """An attempt's samples beside those of the checkpoint that was approved when it was judged."""

    attempt: Attempt
    approved: str
    source: str
    pairs: tuple[Pair, ...]


@dataclass(slots=True)
class Reader:
    """Reads artifacts and keeps account of those that could not be read."""

    artifacts: ArtifactStore
    gaps: list[str] = field(default_factory=list)

    def steps(self, state: CampaignState) -> Mapping[Place, Sequence[StepRecord]]:
        """Every finished phase's records, by stage and attempt."""
        return {
            (attempt.stage, attempt.attempt): self._all_or_gap(self._steps, attempt.rollouts)
            for attempt in state.attempts
            if attempt.rollouts is not None
        }

    def samples(self, state: CampaignState, settings: CampaignSettings) -> tuple[SampleSet, ...]:
        """Per attempt: a few prompts drawn once for the whole campaign, and those that the candidate did worst on."""
        sets = []
        approved, before = state.base, state.base_evaluation.samples if state.base_evaluation else None
        for attempt in state.attempts:
            after = attempt.evaluation.samples if attempt.evaluation else None
            if approved is not None and before is not None and after is not None:
                both = self._all_or_gap(self._evaluated, before, after)
                sets.append(SampleSet(attempt, approved, "the evaluation's prompts", _chosen(both, settings.seed)))
            elif approved is not None and (batch := _opened_gate(state, attempt)) is not None:
                both = self._all_or_gap(self._judged, batch)
                sets.append(SampleSet(attempt, approved, "the gate's prompts", _chosen(both, settings.seed)))
            if attempt.advanced:
                approved, before = attempt.candidate, after
        return tuple(found for found in sets if found.pairs)

    def _steps(self, rollouts: str) -> Iterator[StepRecord]:
        with (self.artifacts.open(rollouts) / ROLLOUT_STEPS).open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                yield StepRecord(row["step"], row["reward"], row["kl_nats"])

    def _evaluated(self, before: str, after: str) -> Iterator[tuple[str, Response, Response]]:
        """Every checkpoint answered the same prompts in the same order."""
        rows = zip(self.artifacts.read_lines(before), self.artifacts.read_lines(after), strict=False)
        for ours, theirs in rows:
            if ours["prompt"] == theirs["prompt"]:
                yield ours["prompt"], _response(ours), _response(theirs)

    def _judged(self, batch: Batch) -> Iterator[tuple[str, Response, Response]]:
        for row in self.artifacts.read_lines(batch.comparisons):
            first, second = Response(row["response_1"], None), Response(row["response_2"], None)
            candidate_first = batch.candidate_first[row["item"]]
            yield row["prompt"], *((second, first) if candidate_first else (first, second))

    def _all_or_gap(self, read: Callable[..., Iterator[T]], *arguments: Any) -> tuple[T, ...]:
        try:
            return tuple(read(*arguments))
        except (ArtifactCorruptError, ArtifactMissingError) as error:
            if str(error) not in self.gaps:
                self.gaps.append(str(error))
            return ()


def _opened_gate(state: CampaignState, attempt: Attempt) -> Batch | None:
    """The gate's comparisons, once the verdict stands: before, nobody may learn which side is the candidate's."""
    return state.gate_batch(attempt) if attempt.verdict is not None else None


def _response(row: Mapping[str, Any]) -> Response:
    return Response(row["response"], row.get("gold"))


def _chosen(rows: Sequence[tuple[str, Response, Response]], seed: int) -> tuple[Pair, ...]:
    """Drawn with the campaign's seed, so that equal campaigns show equal pairs and all attempts the same prompts."""
    dice = random.Random(f"{seed} samples of the report")
    drawn = sorted(dice.sample(range(len(rows)), min(RANDOM_PAIRS, len(rows))))
    scored = [at for at, (_, _, candidate) in enumerate(rows) if candidate.gold is not None]
    worst = sorted(scored, key=lambda at: (rows[at][2].gold, at))
    worst = [at for at in worst if at not in drawn][:WORST_PAIRS]
    return tuple(Pair(*rows[at], chosen="drawn at random") for at in drawn) + tuple(
        Pair(*rows[at], chosen="among the candidate's lowest gold") for at in worst
    )
