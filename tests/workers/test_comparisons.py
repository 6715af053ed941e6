"""Simulated raters as a work item: their realised agreement with gold, counted by hand."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.artifacts import ArtifactStore
from orchestrator.core.events import LabelsRecorded
from orchestrator.core.records import Choice, Harm
from orchestrator.core.settings import TaskSettings
from orchestrator.core.work import Rate
from orchestrator.ports import Claim
from workers.local import InProcessWorkers

PROMPT = "memo to ana on monday : tea , milk , rice"
BEST, GOOD, POOR = "tea milk rice . thanks !", "tea milk rice", "tea soap"
PAIRS = ((BEST, GOOD), (POOR, GOOD), (GOOD, GOOD), (GOOD, POOR))
"""Gold prefers the first, the second, neither, the first."""
PLUGIN = """
class Scripted:
    name = "scripted"
    def __init__(self, *, says):
        self.says = says
    def label(self, prompt, response_1, response_2, rng):
        from policies.tasks.base import Choice
        return Choice(self.says)
"""


def rated(
    folder: Path, kind: str = "memo", rater: str = "simulated", *, by_everyone: bool = False, **options: Any
) -> LabelsRecorded:
    store = ArtifactStore(folder / "artifacts")
    rows = [
        {"item": item, "prompt": PROMPT, "response_1": first, "response_2": second}
        for item, (first, second) in enumerate(PAIRS)
    ]
    work = Rate(
        seed=0,
        task=TaskSettings(kind=kind),
        batch="initial",
        comparisons=store.publish_lines("comparisons", rows),
        first=0,
        count=len(PAIRS),
        raters_per_item=1,
        rater=rater,
        options=options,
        by_everyone=by_everyone,
    )
    body = InProcessWorkers(folder / "artifacts").run(work, Claim("w", "w", 1), lambda *_: None).body
    assert isinstance(body, LabelsRecorded)
    return body


def test_a_rater_without_noise_agrees_wherever_gold_has_a_winner(tmp_path: Path) -> None:
    body = rated(tmp_path, temperature=0.0)
    assert [label.choice for label in body.labels] == [Choice.FIRST, Choice.SECOND, Choice.TIE, Choice.FIRST]
    assert (body.with_gold, body.agreed_with_gold) == (3, 3)


def test_gold_as_an_auditor_has_no_doubt(tmp_path: Path) -> None:
    body = rated(tmp_path, rater="gold")
    assert [label.choice for label in body.labels] == [Choice.FIRST, Choice.SECOND, Choice.TIE, Choice.FIRST]
    assert {label.rater for label in body.labels} == {"gold"}


def test_of_check_items_every_rater_of_the_pool_says_something(tmp_path: Path) -> None:
    body = rated(tmp_path, by_everyone=True, count=3)
    said = [(label.item, label.rater) for label in body.labels]
    assert sorted(said) == [(item, f"simulated-{number}") for item in range(4) for number in range(3)]


# POOR is worth less than 0, GOOD at least 4, and BEST more than that.
@pytest.mark.parametrize(
    ("harm_below", "flagged"),
    [
        (None, [None, None, None, None]),
        (2.0, [None, Harm.FIRST, None, Harm.SECOND]),
        (100.0, [Harm.BOTH] * 4),
        (-100.0, [None] * 4),
    ],
)
def test_simulated_raters_flag_what_is_worth_too_little(
    tmp_path: Path, harm_below: float | None, flagged: list[Harm | None]
) -> None:
    plain, body = rated(tmp_path / "plain"), rated(tmp_path, harm_below=harm_below, lapses=0.0)
    assert [label.harm for label in body.labels] == flagged
    assert [label.choice for label in body.labels] == [label.choice for label in plain.labels]


def test_a_plug_in_rater_may_know_harm(tmp_path: Path) -> None:
    plugin = PLUGIN + "    def is_harmful(self, prompt, response):\n        return 'soap' in response\n"
    (tmp_path / "scripted.py").write_text(plugin)
    body = rated(tmp_path, rater=f"{tmp_path / 'scripted.py'}:Scripted", says="tie")
    assert [label.harm for label in body.labels] == [None, Harm.FIRST, None, Harm.SECOND]


@pytest.mark.parametrize(
    ("says", "with_gold", "agreed"),
    [("first", 3, 2), ("second", 3, 1), ("tie", 0, 0), ("both_bad", 0, 0)],
)
def test_a_plug_in_rater_is_measured_too_and_ties_are_left_out(
    tmp_path: Path, says: str, with_gold: int, agreed: int
) -> None:
    (tmp_path / "scripted.py").write_text(PLUGIN)
    body = rated(tmp_path, rater=f"{tmp_path / 'scripted.py'}:Scripted", says=says)
    assert (body.with_gold, body.agreed_with_gold) == (with_gold, agreed)


def test_without_gold_nothing_is_measured(tmp_path: Path) -> None:
    (tmp_path / "scripted.py").write_text(PLUGIN)
    (tmp_path / "goldless.py").write_text(
        "from policies.tasks.memo import Memo\nclass Goldless(Memo):\n    has_gold = False\n"
    )
    body = rated(
        tmp_path, f"{tmp_path / 'goldless.py'}:Goldless", rater=f"{tmp_path / 'scripted.py'}:Scripted", says="first"
    )
    assert (body.with_gold, body.agreed_with_gold) == (None, None)
