"""Comparisons: drawing them (two responses a prompt, in a random order) and asking simulated raters about them."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import regex

from orchestrator.core.events import ComparisonsDrawn, LabelsRecorded, TripwireRate
from orchestrator.core.records import Choice, Costs, Harm, Label, Purpose
from orchestrator.core.settings import GOLD, TripwireSettings
from orchestrator.core.work import DrawComparisons, DrawDirection, DrawPath, Rate
from orchestrator.errors import WorkFailedError
from policies.preference import promises
from policies.rng import derive_seed
from policies.tasks.base import Choice as TaskChoice
from policies.tasks.base import Rater, RaterSettings, Split, Task, has_gold, is_harmful
from policies.tasks.registry import make
from workers.bench import Bench, Sampled, task_of
from workers.rollouts import read_rollouts

SEARCH_SECONDS: Final = 1.0
"""For one pattern in one response."""


def draw_comparisons(work: DrawComparisons, bench: Bench) -> ComparisonsDrawn:
    """Sample the pairs, put each in a random order, predict the outcomes for a gate, and seal all of it."""
    place = (work.seed, work.purpose.value, *_place(work))
    prompts = _prompts(work, Split.GATE if work.purpose.judges else Split.LABEL, work.first_prompt, work.count)
    means: tuple[float | None, float | None] = (None, None)
    if work.policy == work.opponent:
        both = _draw(work, bench, work.policy, prompts, each=2, seed=derive_seed(*place, "sample"))
        candidate, opponent = both.responses[0::2], both.responses[1::2]
        tokens: tuple[int, ...] = (both.tokens,)
    else:
        ours = _draw(work, bench, work.policy, prompts, each=1, seed=derive_seed(*place, "candidate"))
        theirs = _draw(work, bench, work.opponent, prompts, each=1, seed=derive_seed(*place, "opponent"))
        candidate, opponent, tokens = ours.responses, theirs.responses, (ours.tokens, theirs.tokens)
        if work.purpose is Purpose.GATE:
            means = bench.mean_tokens(work.policy, work.opponent, ours, theirs)
    pairs = _Pairs(prompts, candidate, opponent)
    judges = work.purpose.judges
    return _sealed(
        work,
        work.purpose,
        pairs,
        bench,
        place=place,
        candidate=work.policy,
        opponent=work.opponent if judges else None,
        reward_model=work.reward_model,
        first_prompt=work.first_prompt,
        alpha=work.alpha,
        candidate_tokens_mean=means[0],
        opponent_tokens_mean=means[1],
        tripwires=tuple(_rate_of(tripwire, candidate, opponent) for tripwire in work.tripwires),
        costs=Costs(prompts=len(prompts), samples=2 * len(prompts), tokens=sum(tokens)),
    )


def draw_direction(work: DrawDirection, bench: Bench) -> ComparisonsDrawn:
    """Pair the best and the worst of `best_of` samples a prompt, as the reward model sees them."""
    place = (work.seed, Purpose.DIRECTION.value, work.stage, work.attempt)
    prompts = _prompts(work, Split.GATE, work.first_prompt, work.count)
    seed = derive_seed(*place, "candidate")
    drawn = _draw(work, bench, work.candidate, prompts, each=work.best_of, seed=seed)
    rewards = bench.scorer(work.reward_model).score(drawn.prompts, drawn.responses).aggregate_B
    reward_NK = rewards.double().cpu().reshape(len(prompts), work.best_of)
    responses = [drawn.responses[at : at + work.best_of] for at in range(0, len(drawn.responses), work.best_of)]
    best, worst = reward_NK.argmax(dim=1).tolist(), reward_NK.argmin(dim=1).tolist()
    pairs = _Pairs(
        prompts,
        [said[at] for said, at in zip(responses, best, strict=True)],
        [said[at] for said, at in zip(responses, worst, strict=True)],
    )
    return _sealed(
        work,
        Purpose.DIRECTION,
        pairs,
        bench,
        place=place,
        candidate=work.candidate,
        opponent=work.candidate,
        reward_model=work.reward_model,
        first_prompt=work.first_prompt,
        costs=Costs(prompts=len(prompts), samples=len(drawn.responses), tokens=drawn.tokens),
    )


def draw_path(work: DrawPath, bench: Bench) -> ComparisonsDrawn:
    """Draw rollouts with replacement, with probability proportional to max(advantage, 0), so that the mean over the
    pairs is a mean over the reward paid; each against a fresh response of the phase's start."""
    place = (work.seed, Purpose.PATH.value, work.stage, work.attempt)
    rollouts = read_rollouts(bench.folder(work.rollouts))
    paid = [max(float(rollout["advantage"]), 0.0) for rollout in rollouts]
    # A phase that paid nothing, or nobody knows what, leaves an empty queue, and that is no evidence.
    count = work.count if 0 < sum(paid) < math.inf else 0
    chosen = random.Random(derive_seed(*place, "rollouts")).choices(rollouts, weights=paid, k=count) if count else []
    prompts = [str(rollout["prompt"]) for rollout in chosen]
    started = _draw(work, bench, work.start, prompts, each=1, seed=derive_seed(*place, "opponent"))
    return _sealed(
        work,
        Purpose.PATH,
        _Pairs(prompts, [str(rollout["response"]) for rollout in chosen], started.responses),
        bench,
        place=place,
        candidate=work.candidate,
        opponent=work.start,
        reward_model=work.reward_model,
        costs=Costs(prompts=len(prompts), samples=len(prompts), tokens=started.tokens),
    )


@dataclass(frozen=True, slots=True)
class _Pairs:
    prompts: Sequence[str]
    candidate: Sequence[str]
    """Responses on the candidate's side."""
    opponent: Sequence[str]


def _sealed(
    work: DrawComparisons | DrawDirection | DrawPath,
    purpose: Purpose,
    pairs: _Pairs,
    bench: Bench,
    *,
    place: tuple[int | str, ...],
    reward_model: str | None,
    **facts: Any,
) -> ComparisonsDrawn:
    """Shuffle the sides, publish the texts, and have the reward model commit itself where the pairs will judge."""
    order = random.Random(derive_seed(*place, "order"))
    candidate_first = tuple(order.random() < 0.5 for _ in pairs.prompts)
    rows = [
        {
            "item": item,
            "prompt": prompt,
            "response_1": ours if first else theirs,
            "response_2": theirs if first else ours,
        }
        for item, (prompt, ours, theirs, first) in enumerate(
            zip(pairs.prompts, pairs.candidate, pairs.opponent, candidate_first, strict=True)
        )
    ]
    p_hat: tuple[float, ...] = ()
    if purpose.judges and reward_model is not None and rows:
        said = promises(bench.scorer(reward_model), pairs.prompts, pairs.candidate, pairs.opponent)
        p_hat = tuple(promise.p_candidate for promise in said)
    return ComparisonsDrawn(
        purpose=purpose,
        stage=work.stage,
        attempt=work.attempt,
        comparisons=bench.artifacts.publish_lines("comparisons", rows),
        count=len(rows),
        reward_model=reward_model,
        candidate_first=candidate_first if purpose.judges else (),
        p_hat=p_hat,
        **facts,
    )


def _trips(pattern: "regex.Pattern[str]", text: str) -> bool:
    """Whether a pattern is found. What takes forever to search, on a text that a model wrote, has tripped."""
    try:
        return pattern.search(text, timeout=SEARCH_SECONDS) is not None
    except TimeoutError:
        return True


def _rate_of(tripwire: TripwireSettings, candidate: Sequence[str], opponent: Sequence[str]) -> TripwireRate:
    pattern = regex.compile(tripwire.pattern)
    ours, theirs = (
        sum(_trips(pattern, text) for text in texts) / max(len(texts), 1) for texts in (candidate, opponent)
    )
    return TripwireRate(name=tripwire.name, candidate=ours, opponent=theirs)


def rate(work: Rate, bench: Bench) -> LabelsRecorded:
    """Each item's verdicts depend on the item and the rater alone, not on how many are asked at once.

    Where the task has gold, the verdicts are counted against it, for reports alone.
    """
    task = task_of(work.task)
    raters = raters_of(task, work.rater, work.options, raters_per_item=work.raters_per_item)
    gold_is_known = work.count_agreement and has_gold(task)
    labels, agreed = [], []
    for row in bench.artifacts.read_lines(work.comparisons):
        item = row["item"]
        if not work.first <= item < work.first + work.count:
            continue
        winner = _gold_winner(task, row) if gold_is_known else None
        for turn in range(len(raters) if work.by_everyone else work.raters_per_item):
            rater = raters[(item + turn) % len(raters)]
            dice = random.Random(derive_seed(work.seed, work.batch, item, rater.name))
            choice = Choice(rater.label(row["prompt"], row["response_1"], row["response_2"], dice).value)
            labels.append(Label(item=item, rater=rater.name, choice=choice, harm=_harm(rater, row)))
            if winner is not None and choice in (Choice.FIRST, Choice.SECOND):
                agreed.append(choice == winner)
    return LabelsRecorded(
        batch=work.batch,
        labels=tuple(labels),
        with_gold=len(agreed) if gold_is_known else None,
        agreed_with_gold=sum(agreed) if gold_is_known else None,
    )


def raters_of(task: Task, rater: str, options: dict[str, Any], *, raters_per_item: int) -> list[Rater]:
    """The simulated raters that `feedback.rater` names: the task's own, or a plug-in.

    Raises:
        PolicyError, TypeError, ValueError: there is no such rater, or it takes no such options.
        WorkFailedError: they are too few for so many verdicts an item.
    """
    if rater == GOLD:
        raters: list[Rater] = [GoldRater(task)]
    elif rater == "simulated":
        raters = list(task.raters(RaterSettings(**{"count": raters_per_item, **options})))
    else:
        raters = [make(rater, options, what="rater", members=("name", "label"))]
    if len({one.name for one in raters}) < raters_per_item:
        raise WorkFailedError(
            f"{rater} raters: {len(raters)} for {raters_per_item} verdicts an item; "
            "lower feedback.raters_per_item or name more"
        )
    return raters


@dataclass(frozen=True, slots=True)
class GoldRater:
    """The task's own scorer as an auditor: it prefers what scores higher, and calls equal scores a tie."""

    task: Task
    name: str = GOLD

    def label(self, prompt: str, response_1: str, response_2: str, rng: random.Random) -> TaskChoice:
        gold_1, gold_2 = self.task.gold(prompt, response_1), self.task.gold(prompt, response_2)
        if gold_1 == gold_2:
            return TaskChoice.TIE
        return TaskChoice.FIRST if gold_1 > gold_2 else TaskChoice.SECOND


def _harm(rater: Rater, row: dict[str, Any]) -> Harm | None:
    """What a rater flags, where it knows harm when it sees it."""
    first, second = (is_harmful(rater, row["prompt"], row[side]) for side in ("response_1", "response_2"))
    return Harm.BOTH if first and second else Harm.FIRST if first else Harm.SECOND if second else None


def _gold_winner(task: Task, row: dict[str, Any]) -> Choice | None:
    gold_1, gold_2 = (task.gold(row["prompt"], row[side]) for side in ("response_1", "response_2"))
    if gold_1 == gold_2:
        return None
    return Choice.FIRST if gold_1 > gold_2 else Choice.SECOND


def _prompts(work: DrawComparisons | DrawDirection, split: Split, first: int, count: int) -> list[str]:
    return task_of(work.task).prompts(split, first + count, derive_seed(work.seed, "prompts"))[first:]


def _place(work: DrawComparisons) -> tuple[int, ...]:
    return () if work.stage is None or work.attempt is None else (work.stage, work.attempt)


def _draw(
    work: DrawComparisons | DrawDirection | DrawPath,
    bench: Bench,
    policy: str,
    prompts: list[str],
    *,
    each: int,
    seed: int,
) -> Sampled:
    return bench.sample(
        bench.policy(policy),
        prompts,
        each=each,
        max_new_tokens=work.max_response_tokens,
        seed=seed,
        what="drawing comparisons",
    )
