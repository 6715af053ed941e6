"""Comparisons: drawing them (two responses a prompt, in a random order) and asking simulated raters about them."""

import random
from typing import Any

from orchestrator.core.events import ComparisonsDrawn, LabelsRecorded
from orchestrator.core.records import Choice, Costs, Label, Purpose
from orchestrator.core.work import DrawComparisons, Rate
from orchestrator.errors import WorkFailedError
from policies.preference import promises
from policies.rng import derive_seed
from policies.tasks.base import Rater, RaterSettings, Split, Task, has_gold
from policies.tasks.registry import load_class
from workers.bench import Bench, task_of


def draw_comparisons(work: DrawComparisons, bench: Bench) -> ComparisonsDrawn:
    """Sample the pairs, put each in a random order, predict the outcomes for a gate, and seal all of it."""
    place = (work.seed, work.purpose.value, *_place(work))
    split = Split.GATE if work.purpose is Purpose.GATE else Split.LABEL
    prompts = task_of(work.task).prompts(split, work.first_prompt + work.count, derive_seed(work.seed, "prompts"))
    prompts = prompts[work.first_prompt :]
    if work.policy == work.opponent:
        both = _draw(work, bench, work.policy, prompts, each=2, seed=derive_seed(*place, "sample"))
        candidate, opponent, tokens = both.responses[0::2], both.responses[1::2], both.tokens
    else:
        ours = _draw(work, bench, work.policy, prompts, each=1, seed=derive_seed(*place, "candidate"))
        theirs = _draw(work, bench, work.opponent, prompts, each=1, seed=derive_seed(*place, "opponent"))
        candidate, opponent, tokens = ours.responses, theirs.responses, ours.tokens + theirs.tokens
    order = random.Random(derive_seed(*place, "order"))
    candidate_first = tuple(order.random() < 0.5 for _ in prompts)
    rows = [
        {
            "item": item,
            "prompt": prompt,
            "response_1": ours if first else theirs,
            "response_2": theirs if first else ours,
        }
        for item, (prompt, ours, theirs, first) in enumerate(
            zip(prompts, candidate, opponent, candidate_first, strict=True)
        )
    ]
    gate = work.purpose is Purpose.GATE
    p_hat: tuple[float, ...] = ()
    if gate and work.reward_model is not None:
        said = promises(bench.scorer(work.reward_model), prompts, candidate, opponent)
        p_hat = tuple(promise.p_candidate for promise in said)
    return ComparisonsDrawn(
        purpose=work.purpose,
        stage=work.stage,
        attempt=work.attempt,
        comparisons=bench.artifacts.publish_lines("comparisons", rows),
        count=len(rows),
        candidate=work.policy,
        opponent=work.opponent if gate else None,
        reward_model=work.reward_model,
        candidate_first=candidate_first if gate else (),
        p_hat=p_hat,
        alpha=work.alpha,
        costs=Costs(prompts=len(prompts), samples=2 * len(prompts), tokens=tokens),
    )


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
        for turn in range(work.raters_per_item):
            rater = raters[(item + turn) % len(raters)]
            dice = random.Random(derive_seed(work.seed, work.batch, item, rater.name))
            choice = Choice(rater.label(row["prompt"], row["response_1"], row["response_2"], dice).value)
            labels.append(Label(item=item, rater=rater.name, choice=choice))
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
    if rater == "simulated":
        raters = list(task.raters(RaterSettings(**{"count": raters_per_item, **options})))
    else:
        raters = [load_class(rater, what="rater")(**options)]
    if len({one.name for one in raters}) < raters_per_item:
        raise WorkFailedError(
            f"{rater} raters: {len(raters)} for {raters_per_item} verdicts an item; "
            "lower feedback.raters_per_item or name more"
        )
    return raters


def _gold_winner(task: Task, row: dict[str, Any]) -> Choice | None:
    gold_1, gold_2 = (task.gold(row["prompt"], row[side]) for side in ("response_1", "response_2"))
    if gold_1 == gold_2:
        return None
    return Choice.FIRST if gold_1 > gold_2 else Choice.SECOND


def _place(work: DrawComparisons) -> tuple[int, ...]:
    return () if work.stage is None or work.attempt is None else (work.stage, work.attempt)


def _draw(work: DrawComparisons, bench: Bench, policy: str, prompts: list[str], *, each: int, seed: int) -> Any:
    return bench.sample(
        bench.policy(policy),
        prompts,
        each=each,
        max_new_tokens=work.max_response_tokens,
        seed=seed,
        what="drawing comparisons",
    )
