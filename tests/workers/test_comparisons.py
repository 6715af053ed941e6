"""Simulated raters as a work item: their realised agreement with gold, counted by hand."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.artifacts import ArtifactStore
from orchestrator.core.events import LabelsRecorded
from orchestrator.core.records import Choice
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


def rated(folder: Path, kind: str = "memo", rater: str = "simulated", **options: Any) -> LabelsRecorded:
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
    )
    body = InProcessWorkers(folder / "artifacts").run(work, Claim("w", "w", 1), lambda *_: None).body
    assert isinstance(body, LabelsRecorded)
    return body


def test_a_rater_without_noise_agrees_wherever_gold_has_a_winner(tmp_path: Path) -> None:
    body = rated(tmp_path, temperature=0.0)
    assert [label.choice for label in body.labels] == [Choice.FIRST, Choice.SECOND, Choice.TIE, Choice.FIRST]
    assert (body.with_gold, body.agreed_with_gold) == (3, 3)


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
