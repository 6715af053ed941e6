"""What `campaign show`, `checkpoint show` and the screen say of the gate, from whole campaigns in memory."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator import gate_words, lineage, views
from orchestrator.cli.screen import Screen, describe, labels_came
from orchestrator.core import events as ev
from orchestrator.core.attribution import Attribution, Cause, Estimate
from orchestrator.core.budget import account
from orchestrator.core.commands import Do, Note
from orchestrator.core.envelope import Head
from orchestrator.core.events import parse
from orchestrator.core.history import apply, fold
from orchestrator.core.machine import next_command
from orchestrator.core.nulls import TESTS, is_win_rate
from orchestrator.core.records import Purpose
from orchestrator.core.state import CampaignState
from orchestrator.core.work import DrawComparisons, Rate

# In importlib mode pytest puts no test folder on the path.
sys.path.insert(0, str(Path(__file__).parent / "core"))

from fake_world import World, always_bad, settings_of


@pytest.fixture(scope="module")
def mixed_world() -> World:
    """Stage 0: refused, advanced. Stage 1: a phase that fails, refused, advanced. alpha .2 over 2 stages of 3."""
    world = World(settings_of())
    world.run()
    return world


def shown(world: World) -> dict[str, Any]:
    return views.campaign(world.state, world.settings, Head(world.stored[-1].seq, world.stored[-1].hash))


# --- the account of the error budget -------------------------------------------------------------------------


FIRST, SECOND = 0.2 / 2 / 3, (0.2 - 2 * 0.2 / 2 / 3) / 1 / 3


def test_the_account_adds_up_by_hand(mixed_world: World) -> None:
    told = shown(mixed_world)["alpha"]
    places = [(spent["stage"], spent["attempt"], spent["opened"]) for spent in told["attempts"]]
    assert places == [(0, 0, True), (0, 1, True), (1, 0, False), (1, 1, True), (1, 2, True)]
    assert [spent["alpha"] for spent in told["attempts"]] == pytest.approx([FIRST, FIRST, 0, SECOND, SECOND])
    by_then = [FIRST, 2 * FIRST, 2 * FIRST, 2 * FIRST + SECOND, 2 * FIRST + 2 * SECOND]
    assert [spent["spent_after"] for spent in told["attempts"]] == pytest.approx(by_then)
    assert (told["total"], told["spent"], told["left"]) == pytest.approx((0.2, by_then[-1], 0.2 - by_then[-1]))
    assert told["next"] is None  # all stages are done


def test_what_the_next_gate_may_spend_is_what_it_spends(mixed_world: World) -> None:
    """At every event, the account foretells the next gate, or says that the open one has to be settled first."""
    state, foretold = CampaignState(), None
    for event in mixed_world.events:
        state = apply(state, event)
        body = event.body
        if isinstance(body, ev.ComparisonsDrawn) and body.purpose is Purpose.GATE:
            assert body.alpha == foretold
            assert account(state).next is None
        foretold = account(state).next
        if isinstance(body, ev.RolledBack | ev.Advanced):
            assert (foretold is None) == (body.stage == 1 and isinstance(body, ev.Advanced))


def test_nothing_gives_spent_budget_back(mixed_world: World) -> None:
    """Folded anew after every event, as a controller that was killed there does: entries stay, and are only added."""
    entries: list[Any] = []
    for count in range(1, len(mixed_world.stored) + 1):
        now = account(fold(parse(stored) for stored in mixed_world.stored[:count]))
        opened = [spent for spent in now.attempts if spent.opened]
        assert opened[: len(entries)] == entries
        assert now.spent == pytest.approx(sum(spent.alpha for spent in opened))
        assert now.spent + now.left == pytest.approx(now.total)
        entries = opened
    assert len(entries) == 4


def test_pausing_and_resuming_leaves_the_account(mixed_world: World) -> None:
    world = World(settings_of())
    world.run(until=lambda command: isinstance(command, Note) and isinstance(command.body, ev.RolledBack))
    before = account(world.state)
    world.append(ev.Paused(why="lunch"), "pause", person=True)
    world.append(ev.Resumed(), "resume", person=True)
    assert account(world.state) == before
    world.run()
    assert account(world.state) == account(mixed_world.state)


def test_attempts_used_up_leave_no_next_gate() -> None:
    world = World(settings_of(), quality=always_bad)
    world.run()
    told = account(world.state)
    assert [spent.alpha for spent in told.attempts] == pytest.approx([FIRST] * 3)
    assert (told.left, told.next) == (pytest.approx(0.1), None)


@pytest.mark.parametrize(("advance", "share"), [("once", 0.2 / 2 / 2), ("always", None)])
def test_protocols_with_fewer_gates(advance: str, share: float | None) -> None:
    """`once` questions two of three attempts; `always` questions none, and has nothing to spend."""
    world = World(settings_of(protocol={"advance": advance}))
    assert account(world.state).next == pytest.approx(share)
    world.run(
        until=lambda command: (
            isinstance(command, Do)
            and isinstance(command.work, DrawComparisons)
            and world.state.approved is not None
            and command.work.purpose is Purpose.GATE
        )
    )
    told = account(world.state)
    assert told.spent == 0
    assert told.next == pytest.approx(share)


# --- an attempt at the gate ----------------------------------------------------------------------------------


def test_tests_and_queues_are_those_of_the_ledger(mixed_world: World) -> None:
    last, state = shown(mixed_world)["attempts"][-1], mixed_world.state
    verdict = state.attempts[-1].verdict
    assert verdict is not None
    queues = ["gate"] * 3 + ["direction"] * 2 + ["path", "creep_base"]
    assert [(test["name"], test["queue"]) for test in last["tests"]] == [
        (test.name, queue) for test, queue in zip(verdict.tests, queues, strict=True)
    ]
    for told, test in zip(last["tests"], verdict.tests, strict=True):
        assert told.keys() == {"name", "queue", "estimate", "bound", "limit", "labels", "passed"}
        assert all(told[key] == getattr(test, key) for key in ("estimate", "bound", "limit", "labels", "passed"))
    assert last["wrong_reward_high"] == next(test.bound for test in verdict.tests if test.name == "wrong_reward")
    assert (last["method"], last["vetoes"], list(verdict.notes)) == ("betting", [], last["notes"])

    came = {batch.purpose.value: len(batch.labels) for batch in state.panels(state.attempts[-1])}
    assert {queue["purpose"]: queue["labels"] for queue in last["queues"]} == came
    assert {queue["purpose"]: queue["sealed"] for queue in last["queues"]} == {
        "gate": 100,
        "direction": 60,
        "path": 60,
        "creep_base": 60,
        "audit": 30,
    }
    assert last["labels"] == sum(labels for purpose, labels in came.items() if purpose != "audit")


def test_labels_of_attempts_add_up_to_the_gates_account(mixed_world: World) -> None:
    document = shown(mixed_world)
    assert sum(attempt["labels"] for attempt in document["attempts"]) == document["costs"]["labels"]["gate"]
    failed = document["attempts"][2]
    assert (failed["labels"], failed["tests"], failed["queues"], failed["attribution"]) == (0, [], [], None)


def test_attribution_is_shown_figure_by_figure(mixed_world: World) -> None:
    told, attempt = shown(mixed_world)["attempts"][1]["attribution"], mixed_world.state.attempts[1]
    assert attempt.attribution is not None
    over_credit = attempt.attribution.over_credit
    assert over_credit is not None
    assert told["over_credit"] == {
        "mean": over_credit.mean,
        "low": over_credit.low,
        "high": over_credit.high,
        "items": over_credit.items,
    }
    assert attempt.verdict is not None
    assert told["over_credit"]["items"] == min(30, attempt.verdict.panels[0].labels)  # 30 audited, of those judged
    assert told["off_distribution"] is None
    assert told["unknown"] == ["The part off distribution is unknown: no probes, or too few, were compared."]


def test_a_line_says_who_is_to_blame() -> None:
    told = Attribution(
        over_credit=Estimate(mean=0.14, low=0.08, high=0.2, items=90),
        reward_model=Estimate(mean=0.121, low=0.05, high=0.19, items=200),
        raters=Estimate(mean=-0.001, low=-0.07, high=1.0, items=90),
        off_distribution=None,
        without_verdict=0,
        unknown=(),
        causes=(Cause.REWARD_MODEL,),
    )
    whole, parts = gate_words.attribution_told(told.model_dump(mode="json"))
    assert whole == "over-credit +.14 [+.08, +.20]: reward model (b)"
    assert parts == (
        "(b) reward model against raters +.12 [+.05, +.19]; "
        "(a) raters against the better evaluator +.00 [-.07, +1.00]; (c) lost off distribution unknown"
    )
    nobody = told.model_copy(update={"over_credit": None, "causes": ()})
    assert next(gate_words.attribution_told(nobody.model_dump(mode="json"))) == (
        "over-credit unknown: no cause stands out"
    )


def test_every_test_of_the_gate_has_words(mixed_world: World) -> None:
    asked = {test.name for attempt in mixed_world.state.attempts if attempt.verdict for test in attempt.verdict.tests}
    assert asked <= gate_words.TITLES.keys() == TESTS.keys()
    for name in asked:
        assert is_win_rate(name) == (name in ("improvement", "direction", "creep_base"))
    assert (gate_words.title("of_tomorrow"), gate_words.queue("of_tomorrow")) == ("of tomorrow", None)


# --- lineage, and the screen ---------------------------------------------------------------------------------


def test_a_lineage_names_queues_tests_and_auditor(mixed_world: World) -> None:
    state = mixed_world.state
    assert state.approved is not None
    last, first, base = lineage.trace(state, state.approved)
    attempts = shown(mixed_world)["attempts"]
    assert (last["tests"], last["queues"]) == (attempts[-1]["tests"], attempts[-1]["queues"])
    assert "creep_base" not in {queue["purpose"] for queue in first["queues"]}
    assert last["audit"] == {"evaluator": "gold", "labels": 30, "limit": None}
    assert "gold" not in last["raters"]
    assert {base[key] for key in ("tests", "queues", "audit", "causes")} == {None}


def test_labels_are_told_by_queue_at_every_fifth(mixed_world: World) -> None:
    state, lines = CampaignState(), []
    for event in mixed_world.events:
        state = apply(state, event)
        line = labels_came(event, state)
        if line is not None:
            lines.append(line)
    assert lines[0] == "labelling: initial 12/12"
    assert "labelling: gate 20/100" in lines
    assert "labelling: direction 20/60" in lines
    assert not [line for line in lines if line.endswith(" 0/60")]


def test_the_bar_names_the_queue_that_is_being_labelled() -> None:
    world = World(settings_of())
    screen = Screen(Console(file=io.StringIO()))
    watcher = screen.watcher("small")
    descriptions = []
    while world.state.ended_by is None and len(world.state.attempts) < 3:
        seen = len(world.stored)
        world.run(until=lambda command: isinstance(command, Do) and isinstance(command.work, Rate), steps=200)
        state = fold(world.events[:seen])
        for event in world.events[seen:]:
            state = apply(state, event)
            watcher.on_event(event, state)
        command = next_command(world.state, world.settings)
        if not isinstance(command, Do):
            break
        watcher.on_work(command.work)
        descriptions.append(screen._progress.tasks[0].description)
        world.answer(command)
    assert descriptions[0] == "small: labelling: initial 0/12"
    assert {"small: labelling: gate 20/100", "small: labelling: direction 0/60"} <= set(descriptions)


def test_a_verdict_is_one_line_however_many_tests_there_were(mixed_world: World) -> None:
    state, lines = CampaignState(), []
    for event in mixed_world.events:
        state = apply(state, event)
        if isinstance(event.body, ev.VerdictGiven):
            lines.append(str(describe(event, state)))
    verdict = mixed_world.state.attempts[-1].verdict
    assert verdict is not None
    assert lines[0].startswith("[0.0] gate: ROLLBACK; improvement: win rate")
    judged = {panel.purpose.value: panel.labels for panel in verdict.panels}
    assert lines[-1].startswith(
        f"[1.2] gate: ADVANCE; all 7 tests passed on {verdict.labels} labels (gate {judged['gate']}, "
        f"direction {judged['direction']}, path {judged['path']}, creep base {judged['creep_base']})"
    )
