"""The queues that judge a candidate, drawn from real models and checked against what they are said to be."""

import gzip
import json
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from small_campaigns import Small

from orchestrator.artifacts import ArtifactStore
from orchestrator.core.events import BaseReady, ComparisonsDrawn, Evaluated, EventBody
from orchestrator.core.gate import judge
from orchestrator.core.questions import Panel
from orchestrator.core.records import Choice, Purpose, Verdict
from orchestrator.core.settings import (
    BaseSettings,
    ChecksSettings,
    GateSettings,
    SeedlingSettings,
    TaskSettings,
    TripwireSettings,
)
from orchestrator.core.work import (
    DrawChecks,
    DrawComparisons,
    DrawDirection,
    DrawPath,
    Evaluate,
    PrepareBase,
    Work,
)
from orchestrator.errors import WorkFailedError
from orchestrator.ports import Claim
from policies.preference import promises
from policies.rng import derive_seed, generator
from policies.sampler import sample
from workers.bench import Bench, task_of
from workers.local import InProcessWorkers
from workers.rollouts import ROLLOUTS_FILE, read_rollouts

PROMPT = "memo to ana on monday : tea , milk"
CUE = TaskSettings(kind="cue")


@dataclass(frozen=True)
class World:
    """The artifacts of a whole campaign, in a copy of their own."""

    root: Path
    task: TaskSettings
    base: str
    candidate: str
    reward_model: str
    rollouts: str

    @property
    def place(self) -> dict[str, Any]:
        return {"seed": 3, "task": self.task, "stage": 0, "attempt": 1, "candidate": self.candidate}

    @property
    def bench(self) -> Bench:
        return Bench(ArtifactStore(self.root), torch.device("cpu"), lambda *_: None)

    def do(self, work: Work) -> EventBody:
        return InProcessWorkers(self.root).run(work, Claim("w", "w", 1), lambda *_: None).body

    def draw(self, work: Work) -> ComparisonsDrawn:
        body = self.do(work)
        assert isinstance(body, ComparisonsDrawn)
        return body

    def sides(self, body: ComparisonsDrawn) -> list[tuple[str, str, str]]:
        """Prompt, response on the candidate's side, the other response."""
        found = []
        rows = ArtifactStore(self.root).read_lines(body.comparisons)
        for row, first in zip(rows, body.candidate_first, strict=True):
            one, two = row["response_1"], row["response_2"]
            found.append((row["prompt"], one, two) if first else (row["prompt"], two, one))
        return found

    def drawn_by(self, policy: str, prompts: list[str], each: int, *place: int | str) -> list[str]:
        """What this policy answers when it is asked with the seed of this place."""
        bench = self.bench
        sampled = bench.sample(
            bench.policy(policy), prompts, each=each, max_new_tokens=12, seed=derive_seed(*place), what="again"
        )
        return list(sampled.responses)


@pytest.fixture(scope="module")
def world(undisturbed: Small, tmp_path_factory: pytest.TempPathFactory) -> World:
    campaign = undisturbed.reopen()
    root = tmp_path_factory.mktemp("gate") / "artifacts"
    shutil.copytree(campaign.home.artifact_root, root)
    last = campaign.state.attempts[-1]
    return World(
        root,
        campaign.settings.task,
        str(campaign.state.base),
        str(last.candidate),
        str(last.reward_model),
        str(last.rollouts),
    )


def without_time(body: ComparisonsDrawn) -> dict[str, Any]:
    return body.model_dump(exclude={"costs": {"compute_seconds"}})


# --- direction ----------------------------------------------------------------------------------------------


def direction(world: World, **changes: Any) -> DrawDirection:
    asked = {"best_of": 4, "first_prompt": 30, "count": 12, "max_response_tokens": 12, **world.place, **changes}
    return DrawDirection(reward_model=world.reward_model, **asked)


def test_direction_pairs_the_best_with_the_worst(world: World) -> None:
    body = world.draw(direction(world))
    pairs = world.sides(body)
    scorer = world.bench.scorer(world.reward_model)

    def reward(prompt: str, response: str) -> float:
        return float(scorer.score([prompt], [response]).aggregate_B[0])

    prompts = task_of(world.task).prompts("gate", 42, derive_seed(3, "prompts"))[30:]
    assert [prompt for prompt, _, _ in pairs] == prompts
    samples = world.drawn_by(world.candidate, prompts, 4, 3, "direction", 0, 1, "candidate")
    apart = 0
    for at, (prompt, best, worst) in enumerate(pairs):
        four = samples[4 * at : 4 * at + 4]
        assert {best, worst} <= set(four)
        rewards = [reward(prompt, response) for response in four]
        assert reward(prompt, best) == pytest.approx(max(rewards), abs=1e-5)
        assert reward(prompt, worst) == pytest.approx(min(rewards), abs=1e-5)
        apart += best != worst
    assert apart > 6
    assert {True, False} == set(body.candidate_first)
    assert min(body.p_hat) >= 0.5 - 1e-6
    said = promises(scorer, *(list(column) for column in zip(*pairs, strict=True)))
    assert body.p_hat == pytest.approx([promise.p_candidate for promise in said], abs=1e-6)
    assert (body.purpose, body.first_prompt, body.candidate, body.opponent) == (
        Purpose.DIRECTION, 30, world.candidate, world.candidate
    )  # fmt: skip
    assert (body.costs.prompts, body.costs.samples) == (12, 48)


def test_a_queue_is_a_function_of_its_spec(world: World) -> None:
    one, again, other = (world.draw(direction(world, attempt=attempt)) for attempt in (1, 1, 2))
    assert without_time(one) == without_time(again)
    assert one.comparisons != other.comparisons


# --- path ---------------------------------------------------------------------------------------------------


def published(world: World, advantages: list[float]) -> str:
    """Rollouts of made-up advantages, all on one prompt, told apart by how often they say tea."""
    store = ArtifactStore(world.root)
    with store.staging() as folder:
        rows = [
            {"step": 0, "prompt": PROMPT, "response": " ".join(["tea"] * (at + 1)), "advantage": paid}
            for at, paid in enumerate(advantages)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / ROLLOUTS_FILE).write_bytes(gzip.compress(text.encode(), mtime=0))
        return store.publish(folder, kind="rollouts")


def path(world: World, rollouts: str, count: int) -> DrawPath:
    return DrawPath(
        **world.place,
        start=world.base,
        rollouts=rollouts,
        reward_model=world.reward_model,
        count=count,
        max_response_tokens=12,
    )


def test_a_path_is_drawn_in_proportion_to_the_reward_paid(world: World) -> None:
    advantages = [-3.0, 1.0, 0.0, 4.0, 0.5, -0.1, 2.5]
    body = world.draw(path(world, published(world, advantages), 1200))
    drawn = Counter(len(ours.split()) - 1 for _, ours, _ in world.sides(body))
    paid = {at: advantage for at, advantage in enumerate(advantages) if advantage > 0}
    assert drawn.keys() == paid.keys(), "nothing was paid for the others"
    expected = [1200 * advantage / 8.0 for advantage in paid.values()]
    assert chisquare([drawn[at] for at in paid], expected).pvalue > 0.001


@pytest.mark.parametrize("advantages", [[0.0, -1.0], [float("inf"), 1.0], [float("nan"), 1.0]])
def test_where_nothing_was_paid_the_path_s_queue_is_empty(world: World, advantages: list[float]) -> None:
    """Which is no evidence: the gate refuses, and the campaign goes on."""
    body = world.draw(path(world, published(world, advantages), 5))
    assert (body.count, body.p_hat, body.candidate_first) == (0, (), ())
    empty = Panel(Purpose.PATH, body.count, ())
    both = (Panel(Purpose.GATE, 2, (), (0.5, 0.5)), empty)
    assert judge(both, alpha=0.1, settings=GateSettings()).verdict is Verdict.ROLLBACK


def test_a_path_is_held_against_answers_of_the_start(world: World) -> None:
    body = world.draw(path(world, world.rollouts, 20))
    pairs = world.sides(body)
    paid = {
        (row["prompt"], row["response"])
        for row in read_rollouts(world.bench.folder(world.rollouts))
        if row["advantage"] > 0
    }
    assert {(prompt, ours) for prompt, ours, _ in pairs} <= paid
    prompts, seed = [prompt for prompt, _, _ in pairs], (3, "path", 0, 1, "opponent")
    theirs = [other for _, _, other in pairs]
    assert theirs == world.drawn_by(world.base, prompts, 1, *seed)
    assert theirs != world.drawn_by(world.candidate, prompts, 1, *seed)
    assert body.opponent == world.base
    assert body.first_prompt is None
    assert len(body.p_hat) == 20
    assert without_time(body) == without_time(world.draw(path(world, world.rollouts, 20)))


# --- the gate's own -----------------------------------------------------------------------------------------


def test_lengths_and_tripwires_of_a_gate_are_counted(world: World) -> None:
    """Tokens are recounted on a second draw from the same seeds, one response at a time."""
    patterns = {"thanks": "thanks", "begins_with_tea": r"\Atea\b", "never": "no such word"}
    work = DrawComparisons(
        seed=3,
        task=world.task,
        purpose=Purpose.GATE,
        stage=0,
        attempt=1,
        policy=world.candidate,
        opponent=world.base,
        reward_model=world.reward_model,
        first_prompt=0,
        count=40,
        max_response_tokens=12,
        alpha=0.1,
        tripwires=tuple(TripwireSettings(name=name, pattern=pattern) for name, pattern in patterns.items()),
    )
    body = world.draw(work)
    pairs = world.sides(body)
    for policy, side, mean in (
        (world.candidate, "candidate", body.candidate_tokens_mean),
        (world.base, "opponent", body.opponent_tokens_mean),
    ):
        loaded = world.bench.policy(policy)
        seed = generator(derive_seed(3, "gate", 0, 1, side), torch.device("cpu"))
        drawn = sample(loaded, [pair[0] for pair in pairs], max_new_tokens=12, generator=seed, samples_per_prompt=1)
        end, lengths = loaded.eos_id, []
        for ids in drawn.batch.response_ids_BT.tolist():
            lengths.append(ids.index(end) + 1 if end in ids else 12)
        assert mean == pytest.approx(sum(lengths) / 40)
        assert list(drawn.responses) == [pair[1 if side == "candidate" else 2] for pair in pairs]
    assert body.costs.tokens == pytest.approx(
        40 * ((body.candidate_tokens_mean or 0) + (body.opponent_tokens_mean or 0))
    )
    rates = {rate.name: (rate.candidate, rate.opponent) for rate in body.tripwires}
    for name, pattern in patterns.items():
        by_hand = tuple(sum(bool(re.search(pattern, pair[side])) for pair in pairs) / 40 for side in (1, 2))
        assert rates[name] == pytest.approx(by_hand)
    assert rates["never"] == (0.0, 0.0)
    assert max(rates["thanks"]) > 0


# --- check items --------------------------------------------------------------------------------------------


def checks(world: World, **settings: Any) -> DrawChecks:
    return DrawChecks(**world.place, checks=ChecksSettings(**settings))


def test_the_answers_of_made_check_items_are_golds(world: World) -> None:
    body = world.draw(checks(world, items=30))
    task = task_of(world.task)
    for row, answer in zip(ArtifactStore(world.root).read_lines(body.comparisons), body.expected, strict=True):
        first, second = (task.gold(row["prompt"], row[side]) for side in ("response_1", "response_2"))
        assert answer is (Choice.FIRST if first > second else Choice.SECOND)
        assert abs(first - second) > 3, "nobody who reads could miss it"
    assert Counter(body.expected).keys() == {Choice.FIRST, Choice.SECOND}
    assert body.candidate_first == body.p_hat == ()
    assert without_time(body) == without_time(world.draw(checks(world, items=30)))
    assert body.comparisons != world.draw(checks(world, items=30).model_copy(update={"attempt": 2})).comparisons


def lines(folder: Path, *rows: Any) -> str:
    file = folder / "checks.jsonl"
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(file)


def test_check_items_of_a_file_keep_their_answers_on_whichever_side(world: World, tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "response_1": "good", "response_2": "poor", "choice": "first"} for n in range(20)] + [
        {"prompt": "p20", "response_1": "poor", "response_2": "worse", "choice": "both_bad"}
    ]
    body = world.draw(checks(world, items=21, file=lines(tmp_path, *rows, "")))
    answers: Counter[Choice] = Counter()
    for row, answer in zip(ArtifactStore(world.root).read_lines(body.comparisons), body.expected, strict=True):
        if row["prompt"] == "p20":
            assert answer is Choice.BOTH_BAD
        else:
            assert row["response_1" if answer is Choice.FIRST else "response_2"] == "good"
            answers[answer] += 1
    assert min(answers[Choice.FIRST], answers[Choice.SECOND]) >= 4
    prompts = [row["prompt"] for row in ArtifactStore(world.root).read_lines(body.comparisons)]
    assert sorted(prompts) == sorted(row["prompt"] for row in rows) != prompts


GOOD = {"prompt": "p", "response_1": "a", "response_2": "b", "choice": "first"}


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([GOOD], "1 check items, an attempt takes 2"),
        ([GOOD, {**GOOD, "choice": "tie"}], "line 2: expected"),
        ([GOOD, {**GOOD, "prompt": 7}], "line 2: expected"),
        (["{", GOOD], "line 1: expected"),
        (["[]", GOOD], "line 1: expected"),
    ],
)
def test_a_bad_file_of_check_items_is_told(world: World, tmp_path: Path, rows: list[Any], why: str) -> None:
    with pytest.raises(WorkFailedError, match=re.escape(why)):
        world.do(checks(world, items=2, file=lines(tmp_path, *rows)))


# --- the instrument -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cue_bases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """Two seedlings of the cue task, one of which has hardly seen the corpus."""
    root = tmp_path_factory.mktemp("cue") / "artifacts"
    found = []
    for steps in (150, 2):
        seedling = SeedlingSettings(width=16, layers=1, heads=2, steps=steps, batch_size=16)
        work = PrepareBase(seed=0, task=CUE, base=BaseSettings(seedling=seedling))
        body = InProcessWorkers(root).run(work, Claim("w", "w", 1), lambda *_: None).body
        assert isinstance(body, BaseReady)
        found.append(body.checkpoint)
    return root, found[0], found[1]


def evaluated(root: Path, checkpoint: str, approved: str | None) -> Evaluated:
    work = Evaluate(
        seed=1, task=CUE, stage=0, attempt=0, checkpoint=checkpoint, approved=approved, prompts=40,
        max_response_tokens=12,
    )  # fmt: skip
    body = InProcessWorkers(root).run(work, Claim("w", "w", 1), lambda *_: None).body
    assert isinstance(body, Evaluated)
    return body


def test_what_is_lost_on_probes_is_nothing_where_nothing_changed(cue_bases: tuple[Path, str, str]) -> None:
    root, grown, _ = cue_bases
    lost = evaluated(root, grown, grown).off_distribution
    assert lost is not None
    assert (lost.mean, lost.items) == (0.0, 40)
    assert evaluated(root, grown, None).off_distribution is None


def test_what_is_lost_on_probes_is_a_difference_of_win_rates(cue_bases: tuple[Path, str, str]) -> None:
    root, grown, raw = cue_bases
    lost = evaluated(root, grown, raw).off_distribution
    assert lost is not None
    bench, task = Bench(ArtifactStore(root), torch.device("cpu"), lambda *_: None), task_of(CUE)
    prompts = task.prompts("evaluate", 40, derive_seed(1, "prompts"))
    swap = {"private": "official", "official": "private"}
    rates: list[float] = []
    for asked in (prompts, [" ".join(swap.get(word, word) for word in prompt.split()) for prompt in prompts]):
        gold = {}
        for policy in (grown, raw):
            sampled = bench.sample(
                bench.policy(policy), asked, each=2, max_new_tokens=12, seed=derive_seed(1, "evaluate"), what="again"
            )
            gold[policy] = [task.gold(p, r) for p, r in zip(sampled.prompts, sampled.responses, strict=True)]
        wins = [
            1.0 if ours > theirs else 0.5 if ours == theirs else 0.0
            for ours, theirs in zip(gold[grown], gold[raw], strict=True)
        ]
        rates.append(sum(wins) / 80)
    assert rates[0] != rates[1]
    assert lost.mean == pytest.approx(rates[0] - rates[1])


def test_a_reward_model_names_the_batches_it_has_seen(undisturbed: Small) -> None:
    fitted = [attempt.fitted for attempt in undisturbed.reopen().state.attempts]
    assert [one.trained_on for one in fitted if one is not None] == [("initial",), ("initial", "s0.a1.training")]
