"""A world for the pure core: what workers, raters and reviewers would answer, invented from the seed.

`World.run` drives fold -> next_command -> append, as the runner does, but in memory and without a clock. Every
event goes through its envelope and back, so what is folded is what a ledger would have given. Answers are pure
functions of the work item, so two worlds of one configuration write the same history.

    python tests/orchestrator/core/fake_world.py > tests/orchestrator/core/golden/vX.Y.Z.jsonl

writes the golden ledger of a release.
"""

import json
import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.core import events as ev
from orchestrator.core import work as wk
from orchestrator.core.canonical import digest_of
from orchestrator.core.commands import AskForDecision, AskForLabels, Command, Do, Halt, Note
from orchestrator.core.envelope import EMPTY_HEAD, EventDraft, Head, StoredEvent, seal, to_row
from orchestrator.core.events import Event, EventBody, parse
from orchestrator.core.history import apply
from orchestrator.core.machine import next_command
from orchestrator.core.panels import asked_by_name
from orchestrator.core.records import Choice, Costs, Decision, Label, Purpose, recorded_name
from orchestrator.core.settings import Algorithm, CampaignSettings
from orchestrator.core.state import Batch, CampaignState

START = datetime(2026, 1, 1, tzinfo=UTC)
PEOPLE = ("ann", "bob", "cyd")
AUDITORS = ("dee",)

Quality = Callable[[int, int], float | None]
"""Of (stage, attempt): the candidate's true win rate; None where its phase diverges."""


def mixed(stage: int, attempt: int) -> float | None:
    """Stage 0: a bad candidate, then good ones. Stage 1: a phase that fails, a bad candidate, then good ones."""
    return {(0, 0): 0.4, (1, 0): None, (1, 1): 0.4}.get((stage, attempt), 0.9)


def always_good(stage: int, attempt: int) -> float | None:
    return 0.9


def always_bad(stage: int, attempt: int) -> float | None:
    return 0.4


def settings_of(**changes: Any) -> CampaignSettings:
    """A small campaign; keyword arguments are whole sections or single values of the campaign file."""
    document: dict[str, Any] = {
        "name": "small",
        "seed": 7,
        "task": {"kind": "memo"},
        "base": {"seedling": {}},
        "protocol": {"stages": 2, "attempts": 3},
        "feedback": {"initial_labels": 12, "labels_per_round": 4},
        "gate": {
            "alpha": 0.2,
            "min_labels": 20,
            "max_labels": 100,
            "labels_per_look": 20,
            "direction": {"max_labels": 60, "best_of": 4},
            "path": {"max_labels": 60},
            "creep": {"max_labels": 60},
            "audit": {"labels": 30},
        },
        "approval": {"by": "person"},
        "evaluation": {"prompts": 8},
    }
    for section, value in changes.items():
        old = document.get(section)
        document[section] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return CampaignSettings.model_validate(document)


class World:
    """One campaign with everybody in it.

    Args:
        quality: how good each attempt's candidate really is.
        seconds: clock time and compute time of every step; must not matter.
        reviewer_says: the decision that people give on a candidate.
        rater_says: a rater's word on an item of a batch, where it is not what a rater of the true quality would say.
        amend: what becomes of a worker's result before it is recorded.
    """

    def __init__(
        self,
        settings: CampaignSettings,
        *,
        quality: Quality = mixed,
        seconds: float = 1.0,
        reviewer_says: Callable[[int, int], Decision] = lambda stage, attempt: Decision.APPROVE,
        rater_says: Callable[[Batch, int, str], Choice | Label | None] = lambda batch, item, rater: None,
        amend: Callable[[EventBody], EventBody] = lambda body: body,
    ) -> None:
        self.settings, self.quality, self.seconds, self.reviewer_says = settings, quality, seconds, reviewer_says
        self.rater_says, self.amend = rater_says, amend
        self.state = CampaignState()
        self.stored: list[StoredEvent] = []
        self.commands: list[Command] = []
        self.first_wins: dict[str, tuple[float, ...]] = {}
        """What lies in the artifact store: per comparison, the probability that its first response is preferred."""
        created = ev.CampaignCreated(
            settings=settings.model_dump(mode="json"), settings_digest=settings.digest(), code_version="test"
        )
        self.append(created, "created")

    @property
    def events(self) -> list[Event]:
        return [parse(stored) for stored in self.stored]

    @property
    def works(self) -> list[wk.Work]:
        return [command.work for command in self.commands if isinstance(command, Do)]

    def append(
        self, body: EventBody, command_id: str, *, author: str = "controller", person: bool = False, reason: str = ""
    ) -> CampaignState:
        """Record an event and fold it in; raises, and records nothing, where the rules refuse it."""
        if person and "credential" in type(body).model_fields:
            body = body.model_copy(update={"credential": f"c-{author}"})
        draft = EventDraft(
            type=body.TYPE,
            version=body.VERSION,
            body=body.model_dump(mode="json"),
            command_id=command_id,
            author=author,
            reason=reason,
        )
        head = Head(self.stored[-1].seq, self.stored[-1].hash) if self.stored else EMPTY_HEAD
        time = START + timedelta(seconds=self.seconds * len(self.stored))
        stored = seal(draft, campaign=self.settings.name, after=head, time=time, epoch=None if person else 1)
        self.state = apply(self.state, parse(stored))
        self.stored.append(stored)
        return self.state

    def run(self, until: Callable[[Command], bool] = lambda command: False, *, steps: int = 2000) -> Command:
        """Go on to the end, or until a command that the caller wants to answer itself."""
        for _ in range(steps):
            command = next_command(self.state, self.settings)
            if until(command) or isinstance(command, Halt):
                return command
            self.commands.append(command)
            self.answer(command)
        raise AssertionError(f"no end after {steps} commands")

    def answer(self, command: Command) -> None:
        match command:
            case Note(body, command_id):
                self.append(body, command_id)
            case Do(work):
                self.append(self.amend(self.result(work)), work.command_id)
            case AskForLabels(batch, settled, wanted):
                last = min(settled + 7, wanted)
                feedback = self.settings.feedback
                named = sorted({recorded_name(name) for name in feedback.raters})
                raters = AUDITORS if batch.purpose is Purpose.AUDIT else named or PEOPLE[: feedback.raters_per_item]
                for rater in raters:
                    # An open word holds the queue up, though it was said.
                    unsaid = [
                        item
                        for item in range(settled, last)
                        if batch.labels.of(item, rater) is None
                        and rater in (asked_by_name(batch, item, self.settings) or raters)
                    ]
                    if not unsaid:
                        continue
                    self.answer_checks(batch, rater, len(unsaid))
                    labels = self.labels(batch, unsaid, (rater,))
                    self.append(
                        ev.LabelsRecorded(batch=batch.id, labels=labels),
                        f"{batch.id}.{rater}.{settled}",
                        author=rater,
                        person=True,
                    )
            case AskForDecision(attempt, approvals, _):
                assert attempt.candidate is not None
                reviewer = PEOPLE[approvals]
                said = self.reviewer_says(attempt.stage, attempt.attempt)
                self.append(
                    ev.DecisionMade(candidate=attempt.candidate, decision=said, reviewer=reviewer),
                    f"s{attempt.stage}.a{attempt.attempt}.decision.{reviewer}",
                    author=reviewer,
                    person=True,
                    reason="read twenty samples",
                )

    def answer_checks(self, batch: Batch, rater: str, labels: int) -> None:
        """Answer the check items that come due with so many more labels: the first, then one in every `every`."""
        attempt, rules = self.state.open_attempt, self.settings.feedback.checks
        if attempt is None or rules is None or batch.purpose in (Purpose.TRAINING, Purpose.AUDIT):
            return
        checks = self.state.panel(attempt, Purpose.CHECKS)
        assert checks is not None
        before = [b for b in self.state.panels(attempt) if b.purpose not in (Purpose.CHECKS, Purpose.AUDIT)]
        said = sum(b.labels.count_by(rater) for b in before)
        done = checks.labels.count_by(rater)
        due = min(1 + (said + labels - 1) // (rules.every - 1), rules.items)
        if due > done:
            answers = self.labels(checks, range(done, due), (rater,))
            name = f"{checks.id}.{rater}.{done}"
            self.append(ev.LabelsRecorded(batch=checks.id, labels=answers), name, author=rater, person=True)

    def labels(self, batch: Batch, items: Iterable[int], raters: tuple[str, ...]) -> tuple[Label, ...]:
        """What raters say; each rater's word on an item depends on nothing but the rater and the item."""
        said = []
        for item in items:
            p = self.first_wins[batch.comparisons][item]
            for rater in raters:
                roll = self.dice(batch.comparisons, item, rater).random()
                usual = Choice.FIRST if roll < p else Choice.SECOND
                word = self.rater_says(batch, item, rater) or usual
                said.append(word if isinstance(word, Label) else Label(item=item, rater=rater, choice=word))
        return tuple(said)

    def dice(self, *what: object) -> random.Random:
        return random.Random(digest_of([self.settings.seed, *map(str, what)]))

    def costs(self, **counts: int) -> Costs:
        return Costs(compute_seconds=self.seconds, **counts)

    def result(self, work: wk.Work) -> EventBody:
        """The event body that a worker would write for `work`."""
        digest = digest_of(work.model_dump(mode="json"))
        dice = self.dice(digest)
        match work:
            case wk.PrepareBase():
                return ev.BaseReady(checkpoint=digest, parameters=1000, loss_nats=1.5, costs=self.costs())
            case wk.TakeCandidate():
                return ev.CandidateTaken(
                    stage=work.stage,
                    attempt=work.attempt,
                    candidate=digest,
                    start=work.start,
                    parameters=1000,
                    reward_model=digest_of(["given", digest]) if work.candidate.reward_model else None,
                    costs=self.costs(),
                )
            case wk.Evaluate():
                return ev.Evaluated(
                    checkpoint=work.checkpoint,
                    stage=work.stage,
                    attempt=work.attempt,
                    gold_mean=dice.uniform(1, 3),
                    gold_se=0.1,
                    responses=2 * work.prompts,
                    samples=digest,
                )
            case wk.DrawComparisons():
                return self._drawn(work, digest, dice)
            case wk.DrawDirection():
                return self._further(work, Purpose.DIRECTION, digest, dice, opponent=work.candidate)
            case wk.DrawPath():
                return self._further(work, Purpose.PATH, digest, dice, opponent=work.start)
            case wk.DrawChecks():
                expected = tuple(dice.choice((Choice.FIRST, Choice.SECOND)) for _ in range(work.checks.items))
                self.first_wins[digest] = tuple(float(answer is Choice.FIRST) for answer in expected)
                return ev.ComparisonsDrawn(
                    purpose=Purpose.CHECKS,
                    stage=work.stage,
                    attempt=work.attempt,
                    comparisons=digest,
                    count=work.checks.items,
                    candidate=work.candidate,
                    expected=expected,
                    costs=self.costs(),
                )
            case wk.Rate():
                batch = self.state.batch(work.batch)
                assert batch is not None
                assert batch.comparisons == work.comparisons
                pool = tuple(f"simulated-{i}" for i in range(work.raters_per_item))
                raters = (work.rater,) if batch.purpose is Purpose.AUDIT else pool
                items = range(work.first, work.first + work.count)
                return ev.LabelsRecorded(batch=work.batch, labels=self.labels(batch, items, raters))
            case wk.FitRewardModel():
                labels = sum(len(choices) for batch in work.batches for choices in batch.choices)
                return ev.RewardModelFitted(
                    stage=work.stage,
                    attempt=work.attempt,
                    reward_model=digest,
                    label_set=digest_of([batch.batch for batch in work.batches]),
                    labels=labels,
                    trained_on=tuple(batch.batch for batch in work.batches),
                    accuracy=0.7,
                    accuracy_low=0.6,
                    accuracy_high=0.8,
                    log_loss_nats=0.6,
                    temperature=1.0,
                    costs=self.costs(gradient_steps=labels),
                )
            case wk.RunPhase():
                spent = self.costs(prompts=10, samples=80, tokens=800, gradient_steps=5)
                if self.quality(work.stage, work.attempt) is None:
                    return ev.PhaseFailed(
                        stage=work.stage, attempt=work.attempt, failure="non_finite", why="the loss is NaN", costs=spent
                    )
                return ev.PhaseFinished(
                    stage=work.stage,
                    attempt=work.attempt,
                    candidate=digest,
                    start=work.start,
                    start_digest=digest_of(["tensors", work.start]),
                    rollouts=digest_of(["rollouts", digest]),
                    steps=5,
                    stopped_by="steps",
                    proxy=dice.uniform(0, 2),
                    kl_nats=dice.uniform(0, 4),
                    kl_budget_nats=work.settings.kl.budget_nats,
                    trained_on=tuple(batch.batch for batch in work.batches),
                    implicit_reward=self._implicit(work, digest),
                    label_set=digest_of(["label_set", digest]) if work.reward_model is None else None,
                    costs=spent,
                )
        raise AssertionError(f"no worker for {work!r}")

    def _implicit(self, work: wk.RunPhase, digest: str) -> ev.RewardModelFitted | None:
        """What DPO's candidate says of itself as a reward model."""
        if work.reward_model is not None or work.settings.algorithm is Algorithm.LABELS:
            return None
        return ev.RewardModelFitted(
            stage=work.stage,
            attempt=work.attempt,
            reward_model=digest_of(["implicit", digest]),
            label_set=digest_of(["label_set", digest]),
            labels=sum(len(choices) for batch in work.batches for choices in batch.choices),
            accuracy=0.7,
            accuracy_low=0.6,
            accuracy_high=0.8,
            log_loss_nats=0.6,
            temperature=1.0,
            costs=self.costs(),
        )

    def _drawn(self, work: wk.DrawComparisons, digest: str, dice: random.Random) -> ev.ComparisonsDrawn:
        gate = work.purpose.judges
        win_rate = 0.5
        if gate:
            assert work.stage is not None
            assert work.attempt is not None
            win_rate = self.quality(work.stage, work.attempt) or 0.0
        candidate_first = tuple(dice.random() < 0.5 for _ in range(work.count))
        self.first_wins[digest] = tuple(win_rate if first else 1 - win_rate for first in candidate_first)
        return ev.ComparisonsDrawn(
            purpose=work.purpose,
            stage=work.stage,
            attempt=work.attempt,
            comparisons=digest,
            count=work.count,
            candidate=work.policy,
            opponent=work.opponent if gate else None,
            reward_model=work.reward_model,
            candidate_first=candidate_first if gate else (),
            p_hat=tuple(round(dice.uniform(0.5, 0.75), 3) for _ in range(work.count))
            if gate and work.reward_model
            else (),
            alpha=work.alpha,
            first_prompt=work.first_prompt,
            candidate_tokens_mean=11.0 if work.alpha is not None else None,
            opponent_tokens_mean=10.0 if work.alpha is not None else None,
            tripwires=tuple(
                ev.TripwireRate(name=tripwire.name, candidate=0.5, opponent=0.1) for tripwire in work.tripwires
            ),
            costs=self.costs(prompts=work.count, samples=2 * work.count, tokens=20 * work.count),
        )

    def _further(
        self, work: wk.DrawDirection | wk.DrawPath, purpose: Purpose, digest: str, dice: random.Random, *, opponent: str
    ) -> ev.ComparisonsDrawn:
        """A queue of a gate besides its first: as good as the candidate is."""
        win_rate = self.quality(work.stage, work.attempt) or 0.0
        candidate_first = tuple(dice.random() < 0.5 for _ in range(work.count))
        self.first_wins[digest] = tuple(win_rate if first else 1 - win_rate for first in candidate_first)
        return ev.ComparisonsDrawn(
            purpose=purpose,
            stage=work.stage,
            attempt=work.attempt,
            comparisons=digest,
            count=work.count,
            candidate=work.candidate,
            opponent=opponent,
            reward_model=work.reward_model,
            candidate_first=candidate_first,
            p_hat=tuple(round(dice.uniform(0.5, 0.75), 3) for _ in range(work.count)),
            first_prompt=work.first_prompt if isinstance(work, wk.DrawDirection) else None,
            costs=self.costs(prompts=work.count, samples=2 * work.count, tokens=20 * work.count),
        )


def golden_world() -> World:
    """The campaign of the golden ledgers: a rollback by the gate, a failed phase, two signed advances."""
    settings = settings_of(name="golden", gate={"max_labels": 60}, feedback={"rater": "people"})
    world = World(settings)
    world.run()
    return world


if __name__ == "__main__":
    for event in golden_world().stored:
        print(json.dumps(to_row(event), sort_keys=True))  # noqa: T201
