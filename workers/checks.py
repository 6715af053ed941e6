"""Check items: comparisons whose answer is known beforehand, to tell who labels from who only clicks."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from orchestrator.core.events import ComparisonsDrawn
from orchestrator.core.records import Choice, Costs, Purpose
from orchestrator.core.work import DrawChecks
from orchestrator.errors import WorkFailedError
from policies.errors import TaskError
from policies.rng import derive_seed
from policies.tasks.base import Task, has_gold
from workers.bench import Bench, task_of

TEXTS: Final = ("prompt", "response_1", "response_2")
CANDIDATES: Final = 20
"""Pairs looked at for each check item made from a corpus, of which the clearest are taken."""


def draw_checks(work: DrawChecks, bench: Bench) -> ComparisonsDrawn:
    """Choose this attempt's check items, in an order of their own."""
    source = random.Random(derive_seed(work.seed, Purpose.CHECKS.value, work.stage, work.attempt))
    task = task_of(work.task)
    pool = read_checks(work.checks.file) if work.checks.file else made_checks(task, work.checks.items, source)
    if len(pool) < work.checks.items:
        raise WorkFailedError(
            f"{work.checks.file}: {len(pool)} check items, an attempt takes {work.checks.items}; "
            "add some or lower feedback.checks.items"
        )
    chosen = source.sample(pool, work.checks.items)
    rows, expected = [], []
    for item, check in enumerate(chosen):
        first, second, answer = check["response_1"], check["response_2"], Choice(check["choice"])
        if source.random() < 0.5:
            first, second, answer = second, first, _SWAPPED.get(answer, answer)
        rows.append({"item": item, "prompt": check["prompt"], "response_1": first, "response_2": second})
        expected.append(answer)
    return ComparisonsDrawn(
        purpose=Purpose.CHECKS,
        stage=work.stage,
        attempt=work.attempt,
        comparisons=bench.artifacts.publish_lines("comparisons", rows),
        count=len(rows),
        candidate=work.candidate,
        expected=tuple(expected),
        costs=Costs(),
    )


def read_checks(file: str) -> list[dict[str, Any]]:
    """Read check items from JSON lines.

    Raises:
        TaskError: naming the first line that is none.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"feedback.checks.file {file}: cannot be read ({error})") from error
    checks = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            check = json.loads(line)
            fits = all(isinstance(check[key], str) for key in TEXTS) and check["choice"] in _ANSWERS
        except (ValueError, KeyError, TypeError):
            fits = False
        if not fits:
            raise TaskError(
                f"feedback.checks.file {file}, line {number}: expected "
                '{"prompt": ..., "response_1": ..., "response_2": ..., "choice": "first" | "second" | "both_bad"}'
            )
        checks.append(check)
    return checks


def made_checks(task: Task, count: int, source: random.Random) -> list[dict[str, Any]]:
    """Make check items from a corpus: its own response to a prompt against another prompt's, gold far apart.

    Raises:
        TaskError: the task has no corpus or no gold, or gold tells too few of them apart.
    """
    if not has_gold(task):
        raise TaskError("feedback.checks: the task has no gold to make check items with; name a file of them")
    corpus = task.corpus(source.randrange(2**31))
    pairs = [_clear(task, *source.sample(corpus, 2)) for _ in range(CANDIDATES * count)]
    clearest = sorted(pairs, key=lambda pair: -pair[0])[:count]
    if not clearest[-1][0] > 0:
        raise TaskError("feedback.checks: gold scores the corpus too evenly to make check items; name a file of them")
    return [check for _, check in clearest]


def _clear(task: Task, own: Any, other: Any) -> tuple[float, dict[str, Any]]:
    """How far apart gold sees the two, and the item."""
    apart = task.gold(own.prompt, own.response) - task.gold(own.prompt, other.response)
    answer = Choice.FIRST if apart > 0 else Choice.SECOND
    texts: Sequence[str] = (own.prompt, own.response, other.response)
    return abs(apart), {**dict(zip(TEXTS, texts, strict=True)), "choice": answer.value}


_ANSWERS: Final = (Choice.FIRST.value, Choice.SECOND.value, Choice.BOTH_BAD.value)
_SWAPPED: Final = {Choice.FIRST: Choice.SECOND, Choice.SECOND: Choice.FIRST}
